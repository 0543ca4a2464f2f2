"""What the table says of one predicted image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def score_columns(num_classes: int, labels: Sequence[str]) -> list[str]:
    """Names of the values of `score_prediction`, for K mask classes and the named image classes (or none)."""
    columns = []
    if labels:
        columns += ["prediction", *(f"probability_{label}" for label in labels), "label_uncertainty"]
    if num_classes:
        for index in range(1, num_classes):
            columns += [f"area_class_{index}", f"share_class_{index}", f"regions_class_{index}"]
        columns.append("mask_uncertainty")
    return columns


def score_prediction(
    mask_probabilities: np.ndarray | None,
    mask: np.ndarray | None,
    label_probabilities: np.ndarray | None,
    labels: Sequence[str],
) -> dict[str, Any]:
    """Scores one image.

    Args:
        mask_probabilities: `(h, w, K)` at the model's size, without padding; or None.
        mask: `(H, W)` classes at the image's own size; or None.
        label_probabilities: `(C,)`; or None.
        labels: Names of the C image classes.

    Returns:
        `prediction` (the class' name), `probability_NAME` of each and `label_uncertainty`; for each lesion class
        `area_class_1` (pixels of the image), `share_class_1` (of the image's area) and `regions_class_1` (separate
        ones; pixels that touch at a corner are one); and `mask_uncertainty`. An uncertainty is the entropy divided by
        its maximum: 0 is certain, 1 is a coin toss; the mask's is its mean over the pixels.
    """
    scores: dict[str, Any] = {}
    if label_probabilities is not None:
        scores["prediction"] = labels[int(label_probabilities.argmax())]
        named = zip(labels, label_probabilities, strict=True)
        scores |= {f"probability_{label}": round(float(value), 6) for label, value in named}
        scores["label_uncertainty"] = round(float(_entropy(label_probabilities)), 6)
    if mask is not None and mask_probabilities is not None:
        from scipy import ndimage

        for index in range(1, mask_probabilities.shape[-1]):
            pixels = mask == index
            scores[f"area_class_{index}"] = int(pixels.sum())
            scores[f"share_class_{index}"] = round(float(pixels.mean()), 6)
            scores[f"regions_class_{index}"] = int(ndimage.label(pixels, np.ones((3, 3)))[1])
        scores["mask_uncertainty"] = round(float(_entropy(mask_probabilities).mean()), 6)
    return scores


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy over the last axis, as a share of its maximum."""
    clipped = np.clip(probabilities.astype("float64"), 1e-12, 1.0)
    return -(clipped * np.log(clipped)).sum(-1) / np.log(clipped.shape[-1])
