"""Consistency between the features of the two tasks (Hermes Eq. 14)."""

from __future__ import annotations

import keras
from keras import ops

from keras_semimed.embeddings import l2_normalize


@keras.saving.register_keras_serializable(package="keras_semimed")
class InterTaskConsistency(keras.losses.Loss):
    """One minus the cosine of classification and segmentation features, averaged over the images (Hermes Eq. 14).

    A zero vector has no direction: its cosine is 0 and its gradient stays finite.

    Args:
        name: name of the loss.
    """

    def __init__(self, name: str = "inter_task_consistency") -> None:
        super().__init__(name=name)

    def __call__(self, classification: keras.KerasTensor, segmentation: keras.KerasTensor) -> keras.KerasTensor:
        """Computes the loss; gradient flows into both arguments.

        Args:
            classification: projected classifier features, any float dtype. Shape: `(U, D)`.
            segmentation: projected features of the segmentation encoder. Shape: `(U, D)`.

        Returns:
            Scalar float32 in [0, 2].
        """
        cosine = ops.sum(l2_normalize(classification) * l2_normalize(segmentation), axis=-1)  # (U,)
        return ops.mean(1.0 - cosine)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {"name": self.name}
