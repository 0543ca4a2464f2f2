"""Streaming Keras metrics."""

from keras_semimed.metrics.dice import Dice
from keras_semimed.metrics.iou import IoU

__all__ = ["Dice", "IoU"]
