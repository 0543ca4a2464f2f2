"""A sheet of images with truth and prediction beside each, drawn by keras-cv."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_semimed.evaluation.cases import Cases
from keras_semimed.evaluation.figures import rgb
from keras_semimed.evaluation.pictures import sheet_uri
from keras_semimed.layers.views import IGNORE

COLUMNS = 3
INCHES = 1.4
"""Side of one picture."""
GAP = 2
"""Pixels behind each picture."""


def mask_gallery(images: np.ndarray, truths: np.ndarray, predictions: np.ndarray, num_classes: int = 2) -> Any:
    """Draws image, truth and prediction side by side, three images a row, on any backend; it needs TensorFlow.

    Classes are grey levels, from black, the background, to white; pixels whose class is unknown (255) are black too.

    Args:
        images: 0..255. Shape: `(N, H, W)`, `(N, H, W, 1)` or `(N, H, W, 3)`.
        truths: Class indices. Shape: `(N, H, W)` or `(N, H, W, 1)`.
        predictions: Likewise.
        num_classes: Classes of the masks, background included.

    Returns:
        A Matplotlib figure of `matplotlib.pyplot`, which a notebook shows; `close` it elsewhere.

    Raises:
        ValueError: If there is no image, or shapes do not fit.
        ImportError: If keras-cv or TensorFlow is not installed.
    """
    masks = [np.reshape(mask, np.shape(mask)[:3])[..., None] for mask in (truths, predictions)]
    if not len(images) or any(mask.shape[:3] != np.shape(images)[:3] for mask in masks):
        raise ValueError(
            f"`images` must be at least one, with masks of their height and width, found images {np.shape(images)}, "
            f"truths {np.shape(truths)} and predictions {np.shape(predictions)}"
        )
    try:
        from keras_cv import visualization
    except ImportError as error:
        raise ImportError(
            f"mask_gallery needs keras-cv and TensorFlow ({error}): pip install keras-cv tensorflow"
        ) from error
    from matplotlib import pyplot

    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    # White: the gaps between pictures, and what fills the last row, as a grid has no holes.
    margin = ((0, rows * columns - len(images)), (0, 0), (0, GAP), (0, 0))
    highest = max(num_classes - 1, 1)
    levels = [np.where(mask == IGNORE, 0, mask).astype("float32") for mask in masks]
    true, predicted = (np.pad(level, margin, constant_values=highest) for level in levels)
    visualization.plot_segmentation_mask_gallery(
        np.pad(np.stack([rgb(image) for image in images]), margin, constant_values=255),
        value_range=(0, 255),
        num_classes=highest,  # the level that is white
        y_true=true,
        y_pred=predicted,
        rows=rows,
        cols=columns,
        scale=3 * INCHES,
    )
    figure = pyplot.gcf()  # keras-cv returns none
    height, width = np.shape(images)[1:3]
    figure.set_size_inches(3 * INCHES * columns, INCHES * rows * height / width)
    return figure


def sheet(cases: Cases) -> str | None:
    """All cases of a report at a glance, as a data URI; None without masks, and where TensorFlow is not installed."""
    if cases.truths is None or cases.predictions is None:
        return None
    known = np.concatenate([cases.truths[cases.truths != IGNORE], cases.predictions.ravel()])
    try:
        figure = mask_gallery(cases.images, cases.truths, cases.predictions, 1 + int(known.max()))
    except ImportError:
        return None
    return sheet_uri(figure)
