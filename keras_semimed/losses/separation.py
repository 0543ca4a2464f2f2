"""Pixels pulled to the prototypes of their class (SS-Net)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.embeddings import l2_normalize
from keras_semimed.losses.reductions import one_hot_and_valid, safe_divide


@keras.saving.register_keras_serializable(package="keras_semimed")
class ClassSeparation(keras.losses.Loss):
    """Mean distance of the pixels of each class to the prototypes of that class (SS-Net, L_sep).

    Wu et al., "Exploring Smoothness and Class-Separation for Semi-supervised Medical Image Segmentation", MICCAI 2022;
    after Alonso et al., ICCV 2021. Of a class c with M > 1 pixels i and more than one prototype j

    `L_c = (1/M) sum_i w_i (1 - u_i . mean_j m_j)`, `w_i = M s_i / sum s_i`,

    with u and m embedding and prototype of length 1 and s the score of a pixel; the loss is the sum over the classes,
    divided by their number, the background's with it, which has no prototypes.
    """

    def __init__(self, name: str = "class_separation") -> None:
        super().__init__(name=name)

    def __call__(self, embeddings: Any, labels: Any, means: Any, counts: Any, scores: Any) -> Any:
        """The loss; gradient flows into embeddings and scores.

        Args:
            embeddings: of the pixels, any float dtype. Shape: `(M, D)`.
            labels: their classes; 255 leaves a pixel out. Shape: `(M,)`.
            means: mean unit prototype of each class. Shape: `(K, D)`.
            counts: number of its prototypes. Shape: `(K,)`.
            scores: of each pixel for each class, >= 0; looked at in its own class. Shape: `(K, M)`.

        Returns:
            Scalar float32; 0 where no class has two pixels and two prototypes.
        """
        means, counts = (ops.stop_gradient(ops.cast(x, "float32")) for x in (means, counts))
        members, _ = one_hot_and_valid(labels, means.shape[0])
        members = ops.transpose(members)  # (K, M)
        cosines = ops.matmul(means, ops.transpose(l2_normalize(embeddings)))
        # What is of no class may be anything, so it is left out before it is multiplied.
        weights, far = (ops.where(members > 0, each, 0.0) for each in (ops.cast(scores, "float32"), 1.0 - cosines))
        distances = safe_divide(ops.sum(weights * far, axis=1), ops.sum(weights, axis=1))
        counted = ops.logical_and(ops.sum(members, axis=1) > 1, counts > 1)
        return ops.mean(ops.where(counted, distances, 0.0))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"name": self.name}
