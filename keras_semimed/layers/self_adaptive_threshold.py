"""Confidence thresholds of the classes that follow the predictions (InfoMatch, after FreeMatch)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one, check_whole
from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.losses.reductions import safe_divide


@keras.saving.register_keras_serializable(package="keras_semimed")
class SelfAdaptiveThreshold(keras.Layer):
    """Keeps a label whose confidence reaches `T(c) = tau P_c / max_k P_k` (Han et al., InfoMatch, IJCAI 2024).

    tau is a moving average of the mean confidence of a batch, P of its mean probabilities, over all of its images; a
    class that is predicted less is filtered less strictly. They take in a batch before they filter it. Both start at
    1 / C: at first everything is kept.

    State, saved with the model: `global_threshold`, tau, a float32 scalar, and `class_means`, P, `(C,)` float32. No
    gradient flows through them.

    Args:
        num_labels: number of classes C.
        momentum: of both moving averages; 1: they stay as they are.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    def __init__(self, num_labels: int, momentum: float = 0.999, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_whole("num_labels", num_labels, 2)
        self.num_labels = num_labels
        self.momentum = momentum
        check_at_most_one(self, "momentum")
        self.global_threshold = self._state("global_threshold", ())
        self.class_means = self._state("class_means", (num_labels,))
        self.built = True

    def _state(self, name: str, shape: tuple[int, ...]) -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            dtype="float32",
            initializer=keras.initializers.Constant(1.0 / self.num_labels),
            trainable=False,
            autocast=False,
            aggregation="mean",
        )

    def thresholds(self) -> Any:
        """T of each class: `(C,)` float32."""
        means = self.class_means.value
        return self.global_threshold.value * safe_divide(means, ops.max(means))

    def update(self, probabilities: Any, inside: Any = None) -> None:
        """Moves both averages towards a batch; without an image that counts, or where one is not finite, they stay.

        Args:
            probabilities: `(U, C)`, any float dtype.
            inside: `(U,)`, 1 for images that count, else 0; None: all of them.
        """
        probabilities, confidence, inside = _confidence(probabilities, inside)
        count = ops.sum(inside)
        moves = ops.logical_and(count > 0, ops.all(ops.isfinite(probabilities)))
        for state, values in ((self.global_threshold, confidence), (self.class_means, probabilities)):
            weights = inside if len(values.shape) == 1 else inside[:, None]
            mean = safe_divide(ops.sum(weights * values, axis=0), count)
            state.assign(ops.where(moves, state.value + (1.0 - self.momentum) * (mean - state.value), state.value))

    def call(self, probabilities: Any, inside: Any = None, training: bool | None = None) -> PseudoLabels:
        """Turns probabilities into filtered pseudo-labels.

        Args:
            probabilities: `(U, C)`, any float dtype.
            inside: `(U,)`, 1 for images that count, else 0; None: all of them.
            training: whether the averages take in this batch first.

        Returns:
            `PseudoLabels` with `probabilities`; kept is 1 where an image that counts reaches the threshold of its
            class, else 0.
        """
        if training:
            self.update(probabilities, inside)
        probabilities, confidence, inside = _confidence(probabilities, inside)
        labels = ops.cast(ops.argmax(probabilities, axis=-1), "int32")
        kept = inside * ops.cast(confidence >= ops.take(self.thresholds(), labels), "float32")
        return PseudoLabels(labels, confidence, kept, inside, probabilities)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {**super().get_config(), "num_labels": self.num_labels, "momentum": self.momentum}


def _confidence(probabilities: Any, inside: Any) -> tuple[Any, Any, Any]:
    """Probabilities, the largest of each image, and which images count; float32 without gradient."""
    probabilities = ops.stop_gradient(ops.cast(probabilities, "float32"))
    confidence = ops.max(probabilities, axis=-1)
    inside = ops.ones_like(confidence) if inside is None else ops.stop_gradient(ops.cast(inside, "float32"))
    return probabilities, confidence, inside
