"""Streaming balanced accuracy."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_whole


@keras.saving.register_keras_serializable(package="keras_semimed")
class BalancedAccuracy(keras.metrics.Metric):
    """Mean over the classes that occur of the share of their images that is right, from 0 to 1.

    Whoever names the larger class each time has 1 / C of C classes, however rare the others are.

    Args:
        num_classes: C.
        ignore_value: label of the images to leave out.
        name: name of the metric.
        dtype: dtype of the running sums.
    """

    def __init__(
        self, num_classes: int, ignore_value: int = 255, name: str = "balanced_accuracy", dtype: str | None = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        check_whole("num_classes", num_classes, 1)
        self.num_classes = num_classes
        self.ignore_value = ignore_value
        self.right = self.add_variable((num_classes,), "zeros", name="right")
        self.counts = self.add_variable((num_classes,), "zeros", name="counts")

    def update_state(self, y_true: Any, y_pred: Any) -> None:
        """Takes in a batch.

        Args:
            y_true: class indices. Shape: `(N,)` or `(N, 1)`.
            y_pred: probabilities or logits. Shape: `(N, C)`.
        """
        labels = ops.cast(ops.reshape(y_true, (-1, 1)), "int32")
        members = (labels == ops.arange(self.num_classes, dtype="int32")) & (labels != self.ignore_value)  # (N, C)
        right = members & (labels == ops.cast(ops.argmax(y_pred, axis=-1), "int32")[:, None])
        self.right.assign(self.right.value + ops.sum(ops.cast(right, self.dtype), axis=0))
        self.counts.assign(self.counts.value + ops.sum(ops.cast(members, self.dtype), axis=0))

    def result(self) -> Any:
        """The mean of the classes' shares; 0 before the first image."""
        present = ops.cast(self.counts.value > 0, self.dtype)
        shares = self.right.value / ops.maximum(self.counts.value, 1.0)
        return ops.sum(shares) / ops.maximum(ops.sum(present), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "num_classes": self.num_classes, "ignore_value": self.ignore_value}
