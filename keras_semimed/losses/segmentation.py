"""Supervised segmentation loss of Hermes, Eq. 1."""

from __future__ import annotations

import keras
from keras import ops

from keras_semimed.losses.cross_entropy import masked_cross_entropy
from keras_semimed.losses.dice import DiceLoss


@keras.saving.register_keras_serializable(package="keras_semimed")
class SegmentationLoss(keras.losses.Loss):
    """`(cross-entropy + Dice) / 2` of logits (Hermes Eq. 1).

    The half is part of the equation: a weight such as lambda_seg comes on top of it.

    Args:
        smooth: see `DiceLoss`.
        per_image: see `DiceLoss`.
        ignore_value: label of the pixels to leave out of both terms.
        include_background: see `DiceLoss`; the cross-entropy has all classes anyway.
        name: name of the loss.
    """

    def __init__(
        self,
        smooth: float = 1e-5,
        per_image: bool = False,
        ignore_value: int = 255,
        include_background: bool = False,
        name: str = "segmentation_loss",
    ) -> None:
        super().__init__(name=name)
        self.dice = DiceLoss(smooth, per_image, ignore_value, include_background)

    def __call__(self, labels: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
        """Computes the loss.

        Args:
            labels: classes. Shape: `(N, H, W)`, integers.
            logits: scores before the softmax, any float dtype. Shape: `(N, H, W, K)`.

        Returns:
            Scalar float32.
        """
        logits = ops.cast(logits, "float32")
        cross_entropy = masked_cross_entropy(labels, logits, ignore_value=self.dice.ignore_value)
        return 0.5 * (cross_entropy + self.dice(labels, ops.softmax(logits, axis=-1)))

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {**self.dice.get_config(), "name": self.name}
