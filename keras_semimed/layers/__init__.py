"""Layers that the methods are built from: one idea a file."""

from keras_semimed.layers.adaptive_cutmix import AdaptiveBoxes, AdaptiveCutMix, image_confidence
from keras_semimed.layers.attention import InterTaskAttention
from keras_semimed.layers.confidence_filter import ConfidenceDynamicFilter
from keras_semimed.layers.cutmix import CutMix, clipped_boxes, neighbour
from keras_semimed.layers.feature_dropout import FeatureDropout
from keras_semimed.layers.intensity import INTENSITIES, intensity, intensity_strength
from keras_semimed.layers.latent_diffusion import LatentDiffusion
from keras_semimed.layers.margin_labels import margin_labels, paint
from keras_semimed.layers.memory_bank import MemoryBank
from keras_semimed.layers.mlp_head import MLPHead
from keras_semimed.layers.noise import add_clipped_noise
from keras_semimed.layers.projection import ProjectionHead
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.layers.random_intensity import IntensityDraw, RandomIntensity
from keras_semimed.layers.running_mean import RunningMean
from keras_semimed.layers.saliency import SaliencyMap
from keras_semimed.layers.sinusoidal_code import sinusoidal_code
from keras_semimed.layers.views import WeakStrongViews

__all__ = [
    "AdaptiveBoxes",
    "AdaptiveCutMix",
    "ConfidenceDynamicFilter",
    "CutMix",
    "FeatureDropout",
    "INTENSITIES",
    "IntensityDraw",
    "InterTaskAttention",
    "LatentDiffusion",
    "MLPHead",
    "MemoryBank",
    "ProjectionHead",
    "PseudoLabels",
    "RandomIntensity",
    "RunningMean",
    "SaliencyMap",
    "WeakStrongViews",
    "add_clipped_noise",
    "clipped_boxes",
    "hard_labels",
    "image_confidence",
    "intensity",
    "intensity_strength",
    "margin_labels",
    "neighbour",
    "paint",
    "sinusoidal_code",
]
