"""Soft Dice loss of the foreground classes (the Dice of Hermes Eq. 1 and 9), or of all."""

from __future__ import annotations

import keras
from keras import ops

from keras_semimed.losses.reductions import one_hot_and_valid


@keras.saving.register_keras_serializable(package="keras_semimed")
class DiceLoss(keras.losses.Loss):
    """One minus the soft Dice with squared denominators, averaged over the classes 1..K-1.

    For each foreground class, with probabilities p, labels y (one-hot or soft) and weights w,
    `1 - (2 sum(w p y) + smooth) / (sum(w p^2) + sum(w y^2) + smooth)`. The sums run over all pixels of the batch, which
    stays stable for images without the class; `per_image=True` takes them image by image and averages, as Hermes
    Eq. 1 prints it. A pixel of weight 0 (Eq. 9), or with the ignore value, leaves all sums; with no pixel left the loss
    is 0.

    Args:
        smooth: positive constant in numerator and denominator.
        per_image: one Dice an image instead of one over the batch.
        ignore_value: label of the pixels to leave out.
        include_background: average over the classes 0..K-1, as UniMatch, ABD and AD-MT do.
        name: name of the loss.

    Raises:
        ValueError: `smooth` is not positive.
    """

    def __init__(
        self,
        smooth: float = 1e-5,
        per_image: bool = False,
        ignore_value: int = 255,
        include_background: bool = False,
        name: str = "dice_loss",
    ) -> None:
        super().__init__(name=name)
        if smooth <= 0:
            raise ValueError(f"`smooth` must be positive (it keeps empty classes finite), found {smooth}.")
        self.smooth = smooth
        self.per_image = per_image
        self.ignore_value = ignore_value
        self.include_background = include_background

    def __call__(
        self,
        labels: keras.KerasTensor,
        probabilities: keras.KerasTensor,
        weights: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        """Computes the loss; gradient flows into the probabilities alone.

        Args:
            labels: classes, hard pseudo-labels for Eq. 9. Shape: `(N, H, W)`, integers. Or soft targets, where nothing
                is ignored but by weight. Shape: `(N, H, W, K)`, floats.
            probabilities: softmax output, any float dtype. Shape: `(N, H, W, K)`.
            weights: non-negative weight of each pixel, 1 by default. Shape: `(N, H, W)`.

        Returns:
            Scalar float32.

        Raises:
            ValueError: the probabilities have no foreground class (K < 2), or soft targets other classes than they.
        """
        num_classes = probabilities.shape[-1]
        if num_classes < 2:
            raise ValueError(
                f"`probabilities` must have K >= 2 classes (background first) on the last axis, found K = "
                f"{num_classes}. Append the background as 1 - p."
            )
        first = 0 if self.include_background else 1
        p = ops.cast(probabilities, "float32")[..., first:]
        y, valid = self._targets(labels, num_classes, soft=len(labels.shape) == len(probabilities.shape))
        y = y[..., first:]  # (N, H, W, K-1), with the background (N, H, W, K)
        w = valid if weights is None else ops.stop_gradient(ops.cast(weights, "float32")) * valid
        w = ops.expand_dims(w, -1)
        axes = (1, 2) if self.per_image else (0, 1, 2)
        overlap = ops.sum(w * p * y, axis=axes)
        size = ops.sum(w * p * p, axis=axes) + ops.sum(w * y * y, axis=axes)
        return ops.mean(1.0 - (2.0 * overlap + self.smooth) / (size + self.smooth))

    def _targets(self, labels: keras.KerasTensor, num_classes: int, soft: bool) -> tuple:
        """Targets of each class, and which pixels count."""
        if not soft:
            return one_hot_and_valid(labels, num_classes, self.ignore_value)
        if labels.shape[-1] != num_classes:
            raise ValueError(
                f"soft labels must have the K = {num_classes} classes of the probabilities on the last axis, found "
                f"{labels.shape[-1]}. Give hard labels without that axis."
            )
        y = ops.stop_gradient(ops.cast(labels, "float32"))
        return y, ops.ones_like(y[..., 0])

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            "smooth": self.smooth,
            "per_image": self.per_image,
            "ignore_value": self.ignore_value,
            "include_background": self.include_background,
            "name": self.name,
        }
