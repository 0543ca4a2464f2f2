"""Streaming Keras metrics, and surface metrics of single images."""

from keras_semimed.metrics.balanced_accuracy import BalancedAccuracy
from keras_semimed.metrics.dice import Dice
from keras_semimed.metrics.iou import IoU
from keras_semimed.metrics.surface import hausdorff_distance_95, normalized_surface_distance

__all__ = ["BalancedAccuracy", "Dice", "IoU", "hausdorff_distance_95", "normalized_surface_distance"]
