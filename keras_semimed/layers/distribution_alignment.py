"""Pseudo-labels whose classes are made equally frequent (distribution alignment; ShrinkMatch)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one, check_whole
from keras_semimed.losses.reductions import safe_divide

_FLOOR = 1e-12


@keras.saving.register_keras_serializable(package="keras_semimed")
class DistributionAlignment(keras.Layer):
    """Divides probabilities by their own mean over the last steps, and brings their sum back to 1.

    Berthelot et al., "ReMixMatch", ICLR 2020, with a uniform target, as ShrinkMatch has it: `p <- (p / q) / sum`, where
    q is the mean of the batches' means. A class that is predicted more often than others loses by it, so classes that
    are not equally frequent in truth are moved wrongly.

    State, saved with the model, no gradient flows through it: `updates`, the number of batches, int32; `queue`
    `(size, C)`, the means of the last batches, 0 where there was none yet, which changes all classes alike and so
    cancels; with a momentum `mean` `(C,)` in its place, a moving average whose first batch is copied. Both float32.

    Args:
        num_labels: number of classes C.
        size: batches that the queue holds.
        momentum: of the moving average; None: the queue.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    def __init__(self, num_labels: int, size: int = 32, momentum: float | None = None, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_whole("num_labels", num_labels, 2)
        check_whole("size", size, 1)
        self.num_labels = num_labels
        self.size = size
        self.momentum = momentum
        options = {"initializer": "zeros", "trainable": False, "autocast": False}
        average = {**options, "dtype": "float32", "aggregation": "mean"}
        if momentum is None:
            self.queue = self.add_weight(name="queue", shape=(size, num_labels), **average)
        else:
            check_at_most_one(self, "momentum")
            self.mean = self.add_weight(name="mean", shape=(num_labels,), **average)
        self.updates = self.add_weight(
            name="updates", shape=(), dtype="int32", aggregation="only_first_replica", **options
        )
        self.built = True

    def update(self, probabilities: Any, inside: Any = None) -> None:
        """Takes in a batch; one without an image, or with numbers that are not finite, changes nothing.

        Args:
            probabilities: `(U, C)`, any float dtype.
            inside: `(U,)`, 1 for the images that count, else 0; None: all.
        """
        probabilities = ops.stop_gradient(ops.cast(probabilities, "float32"))
        inside = ops.ones_like(probabilities[:, 0]) if inside is None else ops.cast(inside, "float32")
        mean = safe_divide(ops.sum(inside[:, None] * probabilities, axis=0), ops.sum(inside))  # (C,)
        counts = ops.logical_and(ops.sum(inside) > 0, ops.all(ops.isfinite(mean)))
        updates = self.updates.value * 1
        if self.momentum is None:
            place = ops.arange(self.size, dtype="int32") == updates % self.size
            self.queue.assign(ops.where(ops.logical_and(place, counts)[:, None], mean, self.queue.value))
        else:
            moved = self.momentum * self.mean.value + (1.0 - self.momentum) * mean
            self.mean.assign(ops.where(counts, ops.where(updates == 0, mean, moved), self.mean.value))
        self.updates.assign(updates + ops.cast(counts, "int32"))

    def call(self, probabilities: Any, inside: Any = None, training: bool | None = None) -> Any:
        """Aligns probabilities.

        Args:
            probabilities: `(U, C)`, any float dtype.
            inside: `(U,)`, 1 for the images that count, else 0; None: all.
            training: whether the state takes in this batch first.

        Returns:
            `(U, C)` float32, each row with sum 1; constants.

        Raises:
            ValueError: the probabilities are no `(U, C)`.
        """
        if len(probabilities.shape) != 2 or probabilities.shape[-1] != self.num_labels:
            raise ValueError(f"`probabilities` must be (U, {self.num_labels}), found {tuple(probabilities.shape)}.")
        if training:
            self.update(probabilities, inside)
        frequency = ops.mean(self.queue.value, axis=0) if self.momentum is None else self.mean.value
        weighed = ops.stop_gradient(ops.cast(probabilities, "float32") / ops.maximum(frequency, _FLOOR))
        return safe_divide(weighed, ops.sum(weighed, axis=-1, keepdims=True))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `(U, C)`."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "num_labels": self.num_labels,
            "size": self.size,
            "momentum": self.momentum,
        }
