"""One confidence threshold for all classes that follows the surest pixels of each (CorrMatch)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one, check_whole
from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.losses.reductions import one_hot_and_valid


@keras.saving.register_keras_serializable(package="keras_semimed")
class AdaptiveThreshold(keras.Layer):
    """Keeps pseudo-labels whose confidence reaches a moving average of the classes' largest confidences.

    Sun et al., CorrMatch, CVPR 2024: `threshold <- momentum threshold + (1 - momentum) mean`, where the mean, over the
    classes that some pixel inside has as its label, is of the largest confidence of these pixels. Near 1, as these
    maxima are, the filter tightens by itself: from 0.85 to 0.945 in 1,000 steps.

    State, saved with the model: `threshold`, a float32 scalar. It takes in a batch before it filters it, and no
    gradient flows through it.

    Args:
        num_classes: number of classes K.
        initial: threshold before training.
        momentum: of the moving average; 1: it stays as it is.

    Raises:
        ValueError: where an argument is out of its range.
    """

    def __init__(self, num_classes: int, initial: float = 0.85, momentum: float = 0.999, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_whole("num_classes", num_classes, 2)
        self.num_classes = num_classes
        self.initial = initial
        self.momentum = momentum
        check_at_most_one(self, "initial", "momentum")
        self.threshold = self.add_weight(
            name="threshold",
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(initial),
            trainable=False,
            autocast=False,
            aggregation="mean",
        )
        self.built = True

    def update(self, probabilities: Any, inside: Any = None) -> None:
        """Moves the threshold towards a batch; without a pixel inside it stays.

        Args:
            probabilities: `(N, H, W, K)`, any float dtype.
            inside: `(N, H, W)`, 1 where a pixel lies inside its image; None: everywhere.
        """
        labels, confidence, inside = _labels(probabilities, inside)
        one_hot, _ = one_hot_and_valid(labels, self.num_classes)
        members = one_hot * ops.cast(inside > 0, "float32")[..., None]
        axes = tuple(range(len(labels.shape)))
        present = ops.max(members, axis=axes)  # (K,)
        largest = ops.max(members * confidence[..., None], axis=axes)
        mean = ops.sum(largest) / ops.maximum(ops.sum(present), 1.0)
        old = self.threshold.value
        self.threshold.assign(old + (1.0 - self.momentum) * ops.max(present) * (mean - old))

    def call(self, probabilities: Any, inside: Any = None, training: bool | None = None) -> PseudoLabels:
        """Turns probabilities into filtered pseudo-labels.

        Args:
            probabilities: `(N, H, W, K)`, any float dtype.
            inside: `(N, H, W)`, 1 where a pixel lies inside its image; None: everywhere.
            training: whether the threshold takes in this batch first.

        Returns:
            `PseudoLabels` with `probabilities`; kept is 1 where a pixel inside reaches the threshold, else 0.
        """
        if training:
            self.update(probabilities, inside)
        labels, confidence, inside = _labels(probabilities, inside)
        kept = inside * ops.cast(confidence >= self.threshold.value, "float32")
        return PseudoLabels(labels, confidence, kept, inside, ops.stop_gradient(ops.cast(probabilities, "float32")))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "initial": self.initial,
            "momentum": self.momentum,
        }


def _labels(probabilities: Any, inside: Any) -> tuple[Any, Any, Any]:
    """Most probable class, its probability, and where there is image; without gradient."""
    probabilities = ops.stop_gradient(ops.cast(probabilities, "float32"))
    confidence = ops.max(probabilities, axis=-1)
    inside = ops.ones_like(confidence) if inside is None else ops.stop_gradient(ops.cast(inside, "float32"))
    return ops.cast(ops.argmax(probabilities, axis=-1), "int32"), confidence, inside
