"""Per-image evaluation, paired comparisons and figures."""

from keras_semimed.evaluation.compare import Difference, paired_bootstrap
from keras_semimed.evaluation.figures import overlay, save_overlays
from keras_semimed.evaluation.images import evaluate_images, summarize
from keras_semimed.evaluation.threshold_figure import save_threshold_figure

__all__ = [
    "Difference",
    "evaluate_images",
    "overlay",
    "paired_bootstrap",
    "save_overlays",
    "save_threshold_figure",
    "summarize",
]
