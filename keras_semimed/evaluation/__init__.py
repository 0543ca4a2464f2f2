"""Evaluation of images and test sets, paired comparisons and figures."""

from keras_semimed.evaluation.classes import confusion_matrix
from keras_semimed.evaluation.compare import Difference, paired_difference, paired_p_values, paired_scores
from keras_semimed.evaluation.contrast import contrast_maps
from keras_semimed.evaluation.contrast_figures import (
    save_boundary_figure,
    save_class_similarity,
    save_similarity_curves,
)
from keras_semimed.evaluation.figures import overlay, save_overlays
from keras_semimed.evaluation.gallery import mask_gallery
from keras_semimed.evaluation.images import evaluate_images, evaluate_sizes
from keras_semimed.evaluation.published_results import published_results
from keras_semimed.evaluation.report import report
from keras_semimed.evaluation.summary import summarize
from keras_semimed.evaluation.threshold_figure import save_threshold_figure

__all__ = [
    "Difference",
    "confusion_matrix",
    "contrast_maps",
    "evaluate_images",
    "evaluate_sizes",
    "mask_gallery",
    "overlay",
    "paired_difference",
    "paired_p_values",
    "paired_scores",
    "published_results",
    "report",
    "save_boundary_figure",
    "save_class_similarity",
    "save_overlays",
    "save_similarity_curves",
    "save_threshold_figure",
    "summarize",
]
