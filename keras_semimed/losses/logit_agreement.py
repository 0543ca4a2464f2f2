"""How far the standardized logits of two views lie apart (InfoMatch)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.losses.reductions import weighted_mean


@keras.saving.register_keras_serializable(package="keras_semimed")
class LogitAgreement(keras.losses.Loss):
    """Mean over images and classes of `(n(z_1) - n(z_2))^2`, n(z) logits less their mean, by their standard deviation.

    Mean and deviation are over the C classes of an image, with the divisor C - 1, so that an image gives
    `2 (C - 1) / C (1 - r)`, r the correlation of its two rows of logits (Han et al., InfoMatch, IJCAI 2024).

    With two classes n(z) is `(1, -1) / sqrt(2)` or its opposite: the loss says whether the views agree, and its
    gradient is exactly 0.

    Args:
        name: name of the loss.
    """

    def __init__(self, name: str = "logit_agreement") -> None:
        super().__init__(name=name)

    def __call__(self, logits_1: Any, logits_2: Any, inside: Any = None) -> Any:
        """Computes the loss; gradient flows into both views.

        Args:
            logits_1: of one view of U images, before the softmax, any float dtype. Shape: `(U, C)`.
            logits_2: of the other view. Shape: `(U, C)`.
            inside: 1 for the images that count, else 0; None: all of them. Shape: `(U,)`.

        Returns:
            Scalar float32; 0 where no image counts.
        """
        squares = ops.mean(ops.square(_standardized(logits_1) - _standardized(logits_2)), axis=-1)  # (U,)
        inside = ops.ones_like(squares) if inside is None else ops.stop_gradient(ops.cast(inside, "float32"))
        return weighted_mean(squares, inside)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"name": self.name}


def _standardized(logits: Any) -> Any:
    """Each row less its mean, by its standard deviation; a row of equal logits becomes 0."""
    logits = ops.cast(logits, "float32")
    classes = logits.shape[-1]
    if classes == 2:  # constant but for a jump
        logits = ops.stop_gradient(logits)
    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / (classes - 1)
    return centred * ops.rsqrt(ops.maximum(variance, 1e-12))
