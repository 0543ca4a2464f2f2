"""The less certain of two predictions moves towards the more certain one (DCNet)."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import is_number
from keras_semimed.losses.reductions import check_class_maps, weighted_mean


@keras.saving.register_keras_serializable(package="keras_semimed")
class DirectionalConsistency(keras.losses.Loss):
    """`mean_v mean_k g1 (sg(s1) - s2)^2 + mean_v mean_k g2 (sg(s2) - s1)^2` (Chen et al., DCNet, 2023).

    s is the softmax of the logits over a temperature, sg stops the gradient; the means are over the K classes and over
    all pixels that lie inside their image, guided or not.

    Args:
        temperature: below 1 it sharpens.
        name: name of the loss.

    Raises:
        ValueError: `temperature` is no finite number above 0.
    """

    def __init__(self, temperature: float = 1.0, name: str = "directional_consistency") -> None:
        super().__init__(name=name)
        if not is_number(temperature) or not 0 < temperature < math.inf:
            raise ValueError(f"`temperature` must be a finite number above 0, found {temperature!r}.")
        self.temperature = temperature

    def __call__(self, logits_1: Any, logits_2: Any, guide_1: Any, guide_2: Any, inside: Any = None) -> Any:
        """Computes the loss; gradient flows into the logits of whom is guided.

        Args:
            logits_1: scores of the first decoder before the softmax, any float dtype. Shape: `(N, H, W, K)`.
            logits_2: scores of the second decoder. Shape: `(N, H, W, K)`.
            guide_1: 1 where the first decoder guides the second one, else 0. Shape: `(N, H, W, K)`.
            guide_2: 1 where the second decoder guides the first one, else 0. Shape: `(N, H, W, K)`.
            inside: 1 where a pixel lies inside its image, else 0; 1 by default. Shape: `(N, H, W)`.

        Returns:
            Scalar float32; 0 where nothing is inside.

        Raises:
            ValueError: maps that are not `(N, H, W, K)`, all of one shape.
        """
        check_class_maps(logits_1=logits_1, logits_2=logits_2, guide_1=guide_1, guide_2=guide_2)
        first, second = (
            ops.softmax(ops.cast(logits, "float32") / self.temperature, axis=-1) for logits in (logits_1, logits_2)
        )
        guide_1, guide_2 = (ops.stop_gradient(ops.cast(guide, "float32")) for guide in (guide_1, guide_2))
        distances = guide_1 * ops.square(ops.stop_gradient(first) - second)
        distances = distances + guide_2 * ops.square(ops.stop_gradient(second) - first)
        means = ops.mean(distances, axis=-1)  # (N, H, W)
        inside = ops.ones_like(means) if inside is None else ops.cast(inside, "float32")
        return weighted_mean(means, ops.stop_gradient(inside))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"temperature": self.temperature, "name": self.name}
