"""Evaluation of images and test sets, paired comparisons and figures."""

from keras_semimed.evaluation.compare import Difference, paired_bootstrap
from keras_semimed.evaluation.contrast import contrast_maps
from keras_semimed.evaluation.contrast_figures import (
    save_boundary_figure,
    save_class_similarity,
    save_similarity_curves,
)
from keras_semimed.evaluation.figures import overlay, save_overlays
from keras_semimed.evaluation.images import evaluate_images, summarize
from keras_semimed.evaluation.threshold_figure import save_threshold_figure

__all__ = [
    "Difference",
    "contrast_maps",
    "evaluate_images",
    "overlay",
    "paired_bootstrap",
    "save_boundary_figure",
    "save_class_similarity",
    "save_overlays",
    "save_similarity_curves",
    "save_threshold_figure",
    "summarize",
]
