"""Hard labels by the margin of a prediction, and their picture (DiffRect)."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from keras import ops

from keras_semimed.losses.reductions import one_hot_and_valid


def passes_margin(probabilities: Any, margin: float = 0.8) -> Any:
    """Whether the lead of the most probable class is large: `(max - min) / max > margin`.

    Args:
        probabilities: of the classes. Shape: `(..., K)`.
        margin: tau; of two classes, the larger probability has to exceed `1 / (2 - margin)`.

    Returns:
        Shape: `(...)`, bool, without gradient.
    """
    probabilities = ops.stop_gradient(ops.cast(probabilities, "float32"))
    most, least = ops.max(probabilities, axis=-1), ops.min(probabilities, axis=-1)
    return (most - least) / ops.maximum(most, 1e-37) > margin


def margin_labels(probabilities: Any, margin: float = 0.8) -> Any:
    """The most probable class where it passes the margin, else the background (DiffRect, rule h).

    Args:
        probabilities: of the classes. Shape: `(N, H, W, K)`.
        margin: as in `passes_margin`.

    Returns:
        Shape: `(N, H, W)`, int32, without gradient.
    """
    probabilities = ops.stop_gradient(ops.cast(probabilities, "float32"))
    labels = ops.cast(ops.argmax(probabilities, axis=-1), "int32")
    return ops.where(passes_margin(probabilities, margin), labels, 0)


def paint(labels: Any, num_classes: int) -> Any:
    """Classes as colours: background black, one class white, two or three red, green and blue, more in as many hues.

    Args:
        labels: classes, 255 = none: black. Shape: `(N, H, W)`.
        num_classes: K, background included.

    Returns:
        RGB in 0..1. Shape: `(N, H, W, 3)`, float32.
    """
    one_hot, _ = one_hot_and_valid(labels, num_classes)
    return ops.matmul(one_hot, ops.convert_to_tensor(_colours(num_classes), "float32"))


def _colours(num_classes: int) -> np.ndarray:
    """`(K, 3)`."""
    if num_classes == 2:
        return np.array([[0, 0, 0], [1, 1, 1]], "float32")
    hues = [place / max(num_classes - 1, 3) for place in range(num_classes - 1)]
    return np.array([(0, 0, 0), *(colorsys.hsv_to_rgb(hue, 1, 1) for hue in hues)], "float32")
