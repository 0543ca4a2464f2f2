"""What two predictions agree a pixel is not (DiffRect), with its weight, and the time of a rectification."""

from __future__ import annotations

import keras
from keras import ops

from keras_semimed.losses.cross_entropy import masked_cross_entropy
from keras_semimed.losses.dice import DiceLoss
from keras_semimed.losses.reductions import check_class_maps, one_hot_and_valid, safe_divide, shapes_agree

TIMES = 999.0
_IGNORE = 255


def guidance_time(labels: keras.KerasTensor, targets: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    """How far labels are from what they should be: 999 times their Dice loss, background included.

    Args:
        labels: classes, 255 is left out. Shape: `(N, H, W)`, integers.
        targets: classes, 255 is left out. Shape: `(N, H, W)`, integers.
        num_classes: K.

    Returns:
        Scalar float32, 0 for equal labels, and where nothing is left; without gradient.

    Raises:
        ValueError: for maps of two shapes.
    """
    if not shapes_agree(tuple(labels.shape), tuple(targets.shape)):
        raise ValueError(
            f"`targets` must be of the shape of `labels` {tuple(labels.shape)}, found {tuple(targets.shape)}."
        )
    given, known = one_hot_and_valid(labels, num_classes)
    return ops.stop_gradient(TIMES * DiceLoss(include_background=True)(targets, given, known))


def spatial_concentration(
    probabilities: keras.KerasTensor, inside: keras.KerasTensor | None = None
) -> keras.KerasTensor:
    """How concentrated the classes are in space: one minus the mean entropy of where each of them is (DiffRect, a).

    `q = p / sum of p` over the pixels of an image is where a class is; its entropy is divided by the largest that
    there is, ln P for P pixels. The mean is over images and classes.

    Args:
        probabilities: of the classes, any float dtype. Shape: `(N, H, W, K)`.
        inside: 1 where a pixel counts, else 0; None: everywhere. Shape: `(N, H, W)`.

    Returns:
        Scalar float32 in 0..1, with a gradient. Images of fewer than two pixels leave the mean; 0 with no other.
    """
    p = ops.cast(probabilities, "float32")
    inside = ops.ones_like(p[..., 0]) if inside is None else ops.stop_gradient(ops.cast(inside, "float32"))
    p = p * inside[..., None]
    # q stays what it is when p is divided by its largest; the sum, then 1 or more, is no number whose square is 0.
    p = p / ops.stop_gradient(ops.maximum(ops.max(p, axis=(1, 2), keepdims=True), 1e-30))
    q = p / ops.maximum(ops.sum(p, axis=(1, 2), keepdims=True), 0.5)
    entropy = -ops.sum(q * ops.log(ops.maximum(q, 1e-37)), axis=(1, 2))  # (N, K)
    pixels = ops.sum(inside, axis=(1, 2))
    counted = ops.cast(pixels >= 2, "float32")
    concentrated = 1.0 - ops.mean(entropy, axis=-1) / ops.log(ops.maximum(pixels, 2.0))  # (N,)
    return safe_divide(ops.sum(counted * concentrated), ops.sum(counted))


@keras.saving.register_keras_serializable(package="keras_semimed")
class ComplementaryLoss(keras.losses.Loss):
    """`a(p') CE(1 - p', argmin_k p)`: the least probable class of one prediction, learnt by the other (DiffRect, Q).

    `1 - p'` are taken for logits, so that a softmax is applied to them once more; a is `spatial_concentration`.

    Args:
        name: name of the loss.
    """

    def __init__(self, name: str = "complementary_loss") -> None:
        super().__init__(name=name)

    def __call__(
        self,
        probabilities: keras.KerasTensor,
        other: keras.KerasTensor,
        inside: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        """Computes the loss; gradient flows into the other prediction alone, through both factors.

        Args:
            probabilities: p, any float dtype. Shape: `(N, H, W, K)`.
            other: p', any float dtype. Shape: `(N, H, W, K)`.
            inside: 1 where a pixel counts, else 0; None: everywhere. Shape: `(N, H, W)`.

        Returns:
            Scalar float32; 0 where nothing counts.

        Raises:
            ValueError: for predictions of two shapes.
        """
        check_class_maps(probabilities=probabilities, other=other)
        other = ops.cast(other, "float32")
        labels = ops.cast(ops.argmin(probabilities, axis=-1), "int32")
        if inside is not None:
            labels = ops.where(ops.cast(inside, "float32") > 0, labels, _IGNORE)
        return spatial_concentration(other, inside) * masked_cross_entropy(labels, 1.0 - other)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {"name": self.name}


def complementary_term(
    probabilities: keras.KerasTensor, other: keras.KerasTensor, inside: keras.KerasTensor | None = None
) -> keras.KerasTensor:
    """`a(p') Q(p, p')`, in which a comes in twice, as in DiffRect's losses; arguments as in `ComplementaryLoss`."""
    return spatial_concentration(other, inside) * ComplementaryLoss()(probabilities, other, inside)
