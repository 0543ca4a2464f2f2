"""A confidence threshold that follows the training (DCNet)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_whole, is_number
from keras_semimed.losses.reductions import weighted_mean


@keras.saving.register_keras_serializable(package="keras_semimed")
class ConsistencyThreshold(keras.Layer):
    """`gamma <- clip(min over j of ((1 - rate) gamma + rate m_j), minimum, maximum)` (Chen et al., DCNet, 2023).

    m_1 and m_2 are the mean confidences of two decoders. The rate is to grow to 1 over the run, so that the memory
    shrinks: at its end gamma is the lower confidence of the batch.

    State, saved with the model: `threshold`, gamma, a float32 scalar, 1 / num_classes before the first update. No
    gradient flows through it.

    Args:
        num_classes: K.
        minimum: lowest threshold after an update.
        maximum: highest threshold after an update.

    Raises:
        ValueError: fewer than two classes, or limits that are not in order within [0, 1].
    """

    def __init__(self, num_classes: int, minimum: float = 0.25, maximum: float = 0.95, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_whole("num_classes", num_classes, 2)
        if not is_number(minimum) or not 0 <= minimum <= 1:
            raise ValueError(f"`minimum` must be within [0, 1], found {minimum!r}.")
        if not is_number(maximum) or not minimum <= maximum <= 1:
            raise ValueError(
                f"`maximum` must be within [`minimum`, 1], found {maximum!r} with a `minimum` of {minimum!r}."
            )
        self.num_classes = num_classes
        self.minimum = minimum
        self.maximum = maximum
        self.threshold = self.add_weight(
            name="threshold",
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(1.0 / num_classes),
            trainable=False,
            autocast=False,
            aggregation="mean",
        )
        self.built = True

    def update(self, confidences: Any, rate: Any) -> Any:
        """Moves the threshold towards the lower confidence.

        Args:
            confidences: `mean_confidence` of both decoders; where one is 0, which says that nothing is inside, nothing
                moves. Shape: `(2,)`.
            rate: how far, in [0, 1]: a number or a scalar tensor; of step s from 0, `min((s + 1) / total_steps, 1)`.

        Returns:
            The updated threshold: scalar float32, a constant.
        """
        lower = ops.min(ops.cast(ops.stop_gradient(ops.convert_to_tensor(confidences)), "float32"))
        rate = ops.stop_gradient(ops.cast(rate, "float32"))
        old = self.threshold.value * 1.0
        new = ops.clip((1.0 - rate) * old + rate * lower, self.minimum, self.maximum)
        new = ops.where(lower > 0, new, old)
        self.threshold.assign(new)
        return new

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }


def mean_confidence(logits: Any, inside: Any = None) -> Any:
    """Mean over the pixels of a batch of the most probable class's probability.

    Args:
        logits: scores before the softmax, any float dtype. Shape: `(N, H, W, K)`.
        inside: 1 where a pixel lies inside its image, else 0; None: everywhere. Shape: `(N, H, W)`.

    Returns:
        Scalar float32, a constant: at least 1 / K; 0 where nothing is inside.
    """
    confidence = ops.max(ops.softmax(ops.stop_gradient(ops.cast(logits, "float32")), axis=-1), axis=-1)
    inside = ops.ones_like(confidence) if inside is None else ops.stop_gradient(ops.cast(inside, "float32"))
    return weighted_mean(confidence, inside)
