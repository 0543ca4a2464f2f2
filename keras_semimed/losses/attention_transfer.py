"""Features that imitate where other features of the same size are strong (DCNet)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_semimed.losses.reductions import shapes_agree


@keras.saving.register_keras_serializable(package="keras_semimed")
class AttentionTransfer(keras.losses.Loss):
    """`sum over the levels of mean (A(e) - sg(A(d)))^2`, the mean over images and positions (DCNet, 2023).

    The attention `A(f)` of an image is the mean over the channels of f^2, flattened over the positions and divided by
    its length, at least 1e-12, so that a factor of f changes nothing; a map of zeros has the attention 0.

    Args:
        name: name of the loss.
    """

    def __init__(self, name: str = "attention_transfer") -> None:
        super().__init__(name=name)

    def __call__(self, features: Sequence[Any], targets: Sequence[Any]) -> Any:
        """Computes the loss; gradient flows into the features alone.

        Args:
            features: of each level, any float dtype. Shape of each: `(N, h, w, D)`.
            targets: what they imitate, level by level, of any number of channels. Shape of each: `(N, h, w, D')`.

        Returns:
            Scalar float32; 0 without any level.

        Raises:
            ValueError: another number of targets than of features, or maps of different sizes or numbers of images.
        """
        if len(features) != len(targets):
            raise ValueError(f"`targets` must be as many as `features`, {len(features)}, found {len(targets)}.")
        total = ops.zeros(())
        for ours, theirs in zip(features, targets, strict=True):
            sizes = [tuple(values.shape) for values in (ours, theirs)]
            if [len(size) for size in sizes] != [4, 4] or not shapes_agree(sizes[0][:3], sizes[1][:3]):
                raise ValueError(f"`targets` must be (N, h, w, D) as large as `features` {sizes[0]}, found {sizes[1]}.")
            distances = attention(ours) - ops.stop_gradient(attention(theirs))
            total = total + ops.mean(ops.square(distances))
        return total

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"name": self.name}


def attention(features: Any) -> Any:
    """A(f): where the features of an image are strong.

    Args:
        features: any float dtype. Shape: `(N, h, w, D)`.

    Returns:
        Shape: `(N, h w)`, float32, of length 1, or 0 for a map of zeros.
    """
    strength = ops.mean(ops.square(ops.cast(features, "float32")), axis=-1)
    strength = ops.reshape(strength, (ops.shape(strength)[0], -1))
    squares = ops.sum(ops.square(strength), axis=-1, keepdims=True)
    return strength * ops.rsqrt(ops.maximum(squares, 1e-24))
