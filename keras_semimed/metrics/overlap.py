"""What the streaming overlap metrics share: pixel counts of each image and the mean over images."""

from __future__ import annotations

import keras
from keras import ops


class ForegroundOverlap(keras.metrics.Metric):
    """Mean over images of an overlap score, itself the mean over the foreground classes of the image.

    Only the classes 1..K-1 that occur in an image's truth or prediction count. An image with no foreground in either
    scores 1. An image whose pixels are all ignored leaves the mean. Without any image the result is 0.

    Args:
        num_classes: K, background included.
        ignore_value: label of the pixels to leave out.
        name: name of the metric.
        dtype: dtype of the running sums.

    Raises:
        ValueError: `num_classes` is less than 2.
    """

    def __init__(
        self, num_classes: int = 2, ignore_value: int = 255, name: str | None = None, dtype: str | None = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if num_classes < 2:
            raise ValueError(f"`num_classes` must be at least 2 (background and one class), found {num_classes}.")
        self.num_classes = num_classes
        self.ignore_value = ignore_value
        self.total = self.add_variable(shape=(), initializer="zeros", name="total")
        self.count = self.add_variable(shape=(), initializer="zeros", name="count")

    def score(
        self, intersection: keras.KerasTensor, predicted: keras.KerasTensor, true: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Score of each image and class from pixel counts, all `(N, K-1)`; `predicted + true` is positive."""
        raise NotImplementedError

    def update_state(
        self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor, sample_weight: keras.KerasTensor | None = None
    ) -> None:
        """Adds a batch of images.

        Args:
            y_true: classes. Shape: `(N, H, W)`, integers.
            y_pred: probabilities or logits; the largest one decides. Shape: `(N, H, W, K)`.
            sample_weight: weight of each image, 1 by default. Shape: `(N,)`.

        Raises:
            ValueError: a shape is not as above.
        """
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if len(y_true.shape) != 3 or len(y_pred.shape) != 4 or y_pred.shape[-1] != self.num_classes:
            raise ValueError(
                f"{self.name} expects y_true (N, H, W) and y_pred (N, H, W, {self.num_classes}), found "
                f"{tuple(y_true.shape)} and {tuple(y_pred.shape)}."
            )
        labels = ops.cast(y_true, "int32")
        valid = ops.not_equal(labels, self.ignore_value)  # (N, H, W)
        true = self._foreground(labels, valid)
        predicted = self._foreground(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), valid)
        intersection = ops.sum(true * predicted, axis=(1, 2))  # (N, K-1)
        true, predicted = ops.sum(true, axis=(1, 2)), ops.sum(predicted, axis=(1, 2))

        present = ops.cast(true + predicted > 0, "float32")
        scores = self.score(intersection, predicted, ops.where(present > 0, true, 1.0)) * present
        classes = ops.sum(present, axis=-1)  # (N,)
        images = ops.where(classes > 0, ops.sum(scores, axis=-1) / ops.maximum(classes, 1.0), 1.0)
        weights = ops.cast(ops.any(valid, axis=(1, 2)), "float32")
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, "float32")
            if len(sample_weight.shape) != 1:
                raise ValueError(
                    f"{self.name} expects one sample_weight an image, shape (N,), found {tuple(sample_weight.shape)}. "
                    f"To leave pixels out, give them the label {self.ignore_value}."
                )
            weights = weights * sample_weight
        self.total.assign(self.total + ops.cast(ops.sum(images * weights), self.total.dtype))
        self.count.assign(self.count + ops.cast(ops.sum(weights), self.count.dtype))

    def _foreground(self, labels: keras.KerasTensor, valid: keras.KerasTensor) -> keras.KerasTensor:
        """One-hot form of the classes 1..K-1, zero where ignored: `(N, H, W, K-1)`."""
        one_hot = ops.equal(ops.expand_dims(labels, -1), ops.arange(1, self.num_classes, dtype="int32"))
        return ops.cast(ops.logical_and(one_hot, ops.expand_dims(valid, -1)), "float32")

    def result(self) -> keras.KerasTensor:
        """Mean over the images so far."""
        count = ops.convert_to_tensor(self.count)
        return self.total / ops.where(count > 0, count, ops.ones_like(count))

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes, "ignore_value": self.ignore_value}
