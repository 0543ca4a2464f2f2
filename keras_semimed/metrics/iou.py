"""Streaming intersection over union."""

from __future__ import annotations

import keras

from keras_semimed.metrics.overlap import ForegroundOverlap


@keras.saving.register_keras_serializable(package="keras_semimed")
class IoU(ForegroundOverlap):
    """Mean over images of the intersection over union of the foreground, `|A and B| / |A or B|`, from 0 to 1.

    Per image, averaged over the classes 1..K-1 that occur in its truth or prediction; an image with none in both
    scores 1, one that is ignored altogether leaves the mean. (Not the mIoU pooled over a test set.)

    Args:
        num_classes: K, background included.
        ignore_value: label of the pixels to leave out.
        name: name of the metric.
        dtype: dtype of the running sums.
    """

    def __init__(
        self, num_classes: int = 2, ignore_value: int = 255, name: str = "iou", dtype: str | None = None
    ) -> None:
        super().__init__(num_classes, ignore_value, name, dtype)

    def score(
        self, intersection: keras.KerasTensor, predicted: keras.KerasTensor, true: keras.KerasTensor
    ) -> keras.KerasTensor:
        """IoU of each image and class."""
        return intersection / (predicted + true - intersection)
