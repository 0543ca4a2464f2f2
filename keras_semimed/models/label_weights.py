"""Factors of the image classes in the supervised loss, for classes of which some are rare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_semimed.configuration import is_number
from keras_semimed.layers.views import IGNORE

BALANCED = "balanced"


def checked_label_weights(given: Any, num_labels: int, classifies: bool) -> Any:
    """The argument `label_weights` of a model: None, `"balanced"`, or a tuple of numbers.

    Args:
        given: what was given.
        num_labels: image classes, C.
        classifies: whether the model learns them.

    Raises:
        ValueError: for anything but None, `"balanced"` and C finite numbers of at least 0, not all of them 0; and where
            no image classes are learnt.
    """
    if given is None:
        return None
    if not classifies:
        raise ValueError(f"`label_weights` must be None where no image classes are learnt, found {given!r}.")
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if isinstance(given, str):
        if given == BALANCED:
            return given
    elif isinstance(given, Sequence) and len(given) == num_labels:
        numbers = [value for value in given if is_number(value) and 0 <= value < math.inf]
        if len(numbers) == num_labels and any(numbers):
            return tuple(float(value) for value in numbers)
    raise ValueError(
        f"`label_weights` must be None, 'balanced' or a number of at least 0 for each of the {num_labels} image "
        f"classes, found {given!r}."
    )


def balancing(labels: Any, num_labels: int) -> np.ndarray:
    """N / (C n_c) for each class: as if all of them had as many images. Shape: `(C,)`, float32.

    Args:
        labels: classes of the labelled images; 255: unknown. Shape: `(N,)`.
        num_labels: C.
    """
    labels = np.asarray(labels).reshape(-1)
    counts = np.bincount(labels[labels != IGNORE].astype("int64"), minlength=num_labels)[:num_labels]
    return (counts.sum() / (num_labels * np.maximum(counts, 1))).astype("float32")
