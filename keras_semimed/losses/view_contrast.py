"""Contrast from one view of the images to the other (PEFAT, warm-up)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import is_number
from keras_semimed.embeddings import l2_normalize
from keras_semimed.losses.reductions import NEVER, weighted_mean


@keras.saving.register_keras_serializable(package="keras_semimed")
class ViewContrastiveLoss(keras.losses.Loss):
    """`-mean over i of log(exp(s_ii / t) / sum_j exp(s_ij / t))`, s_ij the cosine of i's first and j's second view.

    The warm-up's contrast of PEFAT (Zeng et al., CVPR 2023): from the first view to the second alone, the positive pair
    in the denominator.

    Args:
        temperature: t, which divides the cosines.
        name: name of the loss.

    Raises:
        ValueError: `temperature` is not positive.
    """

    def __init__(self, temperature: float = 0.05, name: str = "view_contrastive_loss") -> None:
        super().__init__(name=name)
        if not is_number(temperature) or not 0 < temperature < float("inf"):
            raise ValueError(f"`temperature` must be a positive number, found {temperature!r}.")
        self.temperature = temperature

    def __call__(self, first: Any, second: Any, inside: Any = None) -> Any:
        """Computes the loss; gradient flows into both views.

        Args:
            first: features of one view of N images, of any length and float dtype. Shape: `(N, D)`.
            second: those of the other view of the same images. Shape: `(N, D)`.
            inside: 1 for the images that count, else 0; None: all of them. Shape: `(N,)`.

        Returns:
            Scalar float32; 0 where no image counts.
        """
        first, second = l2_normalize(first), l2_normalize(second)
        inside = ops.ones_like(first[:, 0]) if inside is None else ops.stop_gradient(ops.cast(inside, "float32"))
        logits = ops.matmul(first, ops.transpose(second)) / self.temperature  # (N, N)
        positive = ops.sum(first * second, axis=-1) / self.temperature
        others = ops.where(inside[None, :] > 0, logits, NEVER)
        return weighted_mean(ops.logsumexp(others, axis=1) - positive, inside)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"temperature": self.temperature, "name": self.name}
