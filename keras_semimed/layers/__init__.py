"""Layers that the methods are built from: one idea a file."""

from keras_semimed.layers.adaptive_cutmix import AdaptiveBoxes, AdaptiveCutMix, image_confidence
from keras_semimed.layers.adaptive_threshold import AdaptiveThreshold
from keras_semimed.layers.alternating_turns import AlternatingTurns
from keras_semimed.layers.attention import InterTaskAttention
from keras_semimed.layers.class_selector import ClassSelector
from keras_semimed.layers.combat import Combat, combat_conflicts
from keras_semimed.layers.confidence_filter import ConfidenceDynamicFilter
from keras_semimed.layers.consistency_threshold import ConsistencyThreshold, mean_confidence
from keras_semimed.layers.correlation_map import CorrelationMap, propagate_logits
from keras_semimed.layers.cutmix import CutMix, clipped_boxes, neighbour
from keras_semimed.layers.decoupling import Decoupled, decouple
from keras_semimed.layers.displacement import BidirectionalDisplacement, Moves
from keras_semimed.layers.distribution_alignment import DistributionAlignment
from keras_semimed.layers.embedding_fusion import EmbeddingFusion
from keras_semimed.layers.ensemble import WeightedEnsemble, entropy_weighted_ensemble
from keras_semimed.layers.feature_dropout import FeatureDropout
from keras_semimed.layers.intensity import INTENSITIES, intensity, intensity_strength
from keras_semimed.layers.interleaving import deinterleave, interleave
from keras_semimed.layers.latent_diffusion import LatentDiffusion
from keras_semimed.layers.loss_mixture import LossMixture
from keras_semimed.layers.margin_labels import margin_labels, paint
from keras_semimed.layers.memory_bank import MemoryBank
from keras_semimed.layers.mixture import Mixture, fit_mixture, mixture_posterior
from keras_semimed.layers.mlp_head import MLPHead
from keras_semimed.layers.noise import add_clipped_noise
from keras_semimed.layers.projection import ProjectionHead
from keras_semimed.layers.prototypes import PrototypeMemory
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.layers.random_intensity import IntensityDraw, RandomIntensity
from keras_semimed.layers.region_propagation import correlation_region, propagate_regions
from keras_semimed.layers.running_mean import RunningMean
from keras_semimed.layers.saliency import SaliencyMap
from keras_semimed.layers.self_adaptive_threshold import SelfAdaptiveThreshold
from keras_semimed.layers.separation_heads import SeparationHeads
from keras_semimed.layers.sinusoidal_code import sinusoidal_code
from keras_semimed.layers.views import WeakStrongViews

__all__ = [
    "AdaptiveBoxes",
    "AdaptiveCutMix",
    "AdaptiveThreshold",
    "AlternatingTurns",
    "BidirectionalDisplacement",
    "ClassSelector",
    "Combat",
    "ConfidenceDynamicFilter",
    "ConsistencyThreshold",
    "CorrelationMap",
    "CutMix",
    "Decoupled",
    "DistributionAlignment",
    "EmbeddingFusion",
    "FeatureDropout",
    "INTENSITIES",
    "IntensityDraw",
    "InterTaskAttention",
    "LatentDiffusion",
    "LossMixture",
    "MLPHead",
    "MemoryBank",
    "Mixture",
    "Moves",
    "ProjectionHead",
    "PrototypeMemory",
    "PseudoLabels",
    "RandomIntensity",
    "RunningMean",
    "SaliencyMap",
    "SelfAdaptiveThreshold",
    "SeparationHeads",
    "WeakStrongViews",
    "WeightedEnsemble",
    "add_clipped_noise",
    "clipped_boxes",
    "combat_conflicts",
    "correlation_region",
    "decouple",
    "deinterleave",
    "entropy_weighted_ensemble",
    "fit_mixture",
    "hard_labels",
    "image_confidence",
    "intensity",
    "intensity_strength",
    "interleave",
    "margin_labels",
    "mean_confidence",
    "mixture_posterior",
    "neighbour",
    "paint",
    "propagate_logits",
    "propagate_regions",
    "sinusoidal_code",
]
