"""Distance between a prediction and the soft target of a teacher (Mean Teacher; CorrMatch; ShrinkMatch)."""

from __future__ import annotations

import keras
from keras import ops

from keras_semimed.configuration import check_choice
from keras_semimed.losses.reductions import safe_divide

_DISTANCES = ("squared", "kl", "cross_entropy")
# Far below any probability: 0 ln 0 is then 0.
_TINY = 1e-37


@keras.saving.register_keras_serializable(package="keras_semimed")
class SoftmaxConsistency(keras.losses.Loss):
    """Mean distance of the softmax p to target probabilities q, over what is image.

    `sum(weights * inside * d) / sum(inside)`, where the distance d of a pixel is

    - `"squared"`: `sum over the classes of (p - q)^2 / K` (Tarvainen, Valpola, Mean Teacher, 2017);
    - `"kl"`: `sum of q (ln q - ln p)` (CorrMatch's soft term);
    - `"cross_entropy"`: `-sum of q ln p` (ShrinkMatch's soft labels).

    Args:
        distance: one of these.
        name: name of the loss.

    Raises:
        ValueError: `distance` is none of these.
    """

    def __init__(self, distance: str = "squared", name: str = "softmax_consistency") -> None:
        super().__init__(name=name)
        check_choice("distance", distance, _DISTANCES)
        self.distance = distance

    def __call__(
        self,
        logits: keras.KerasTensor,
        targets: keras.KerasTensor,
        weights: keras.KerasTensor | None = None,
        inside: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        """Computes the loss; gradient flows into the logits alone.

        Args:
            logits: the student's scores before the softmax, any float dtype. Shape: `(..., K)`.
            targets: the teacher's probabilities, any float dtype. Shape: `(..., K)`.
            weights: non-negative weight of each pixel or image, 1 by default; it does not enter the denominator.
                Shape: `(...)`.
            inside: 1 where a pixel lies inside its image, else 0; 1 by default. Shape: `(...)`.

        Returns:
            Scalar float32; 0 where nothing is inside.

        Raises:
            ValueError: the targets have another rank or other classes than the logits.
        """
        if len(targets.shape) != len(logits.shape) or targets.shape[-1] != logits.shape[-1]:
            raise ValueError(
                f"`targets` must be probabilities of the shape of the logits {tuple(logits.shape)}, found "
                f"{tuple(targets.shape)}. Give hard labels to masked_cross_entropy instead."
            )
        distances = self._distances(
            ops.cast(logits, "float32"), ops.stop_gradient(ops.cast(targets, "float32"))
        )  # (...)
        inside = ops.ones_like(distances) if inside is None else ops.cast(inside, "float32")
        inside = ops.stop_gradient(inside)
        counted = inside if weights is None else inside * ops.stop_gradient(ops.cast(weights, "float32"))
        return safe_divide(ops.sum(counted * distances), ops.sum(inside))

    def _distances(self, logits: keras.KerasTensor, targets: keras.KerasTensor) -> keras.KerasTensor:
        if self.distance == "squared":
            return ops.mean(ops.square(ops.softmax(logits, axis=-1) - targets), axis=-1)
        logarithms = ops.log_softmax(logits, axis=-1)
        if self.distance == "cross_entropy":
            return -ops.sum(targets * logarithms, axis=-1)
        return ops.sum(targets * (ops.log(ops.maximum(targets, _TINY)) - logarithms), axis=-1)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {"distance": self.distance, "name": self.name}
