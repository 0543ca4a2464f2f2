"""Layers that the methods are built from: one idea a file."""

from keras_semimed.layers.attention import InterTaskAttention
from keras_semimed.layers.confidence_filter import ConfidenceDynamicFilter
from keras_semimed.layers.cutmix import CutMix
from keras_semimed.layers.memory_bank import MemoryBank
from keras_semimed.layers.projection import ProjectionHead
from keras_semimed.layers.saliency import SaliencyMap
from keras_semimed.layers.views import WeakStrongViews

__all__ = [
    "ConfidenceDynamicFilter",
    "CutMix",
    "InterTaskAttention",
    "MemoryBank",
    "ProjectionHead",
    "SaliencyMap",
    "WeakStrongViews",
]
