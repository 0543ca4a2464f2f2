"""Scores of predicted image classes over a whole test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_semimed.evaluation.masks import mean_of_known

CALIBRATION_BINS = 15


class Classified(NamedTuple):
    """The images with a true and a predicted class.

    Attributes:
        labels: true classes. Shape: `(N,)`.
        predictions: predicted classes. Shape: `(N,)`.
        probabilities: of each class; None where the rows have none. Shape: `(N, C)`.
        positions: which of the rows they are. Shape: `(N,)`.
    """

    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray | None
    positions: np.ndarray


class CalibrationBins(NamedTuple):
    """Images by confidence, the probability of the predicted class, in bins of equal width.

    Attributes:
        edges: limits of the bins, `(lower, upper]`: each one holds its upper limit, and the first one 0 as well. Shape:
            `(bins + 1,)`.
        counts: images. Shape: `(bins,)`.
        confidence: mean confidence, NaN without images. Shape: `(bins,)`.
        accuracy: share that is right, NaN without images. Shape: `(bins,)`.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def classified(rows: Sequence[dict[str, Any]]) -> Classified | None:
    """Takes the classes out of rows of `evaluate_images`; None if no image has a true and a predicted one."""
    positions = [index for index, row in enumerate(rows) if "label" in row and "prediction" in row]
    if not positions:
        return None
    found = [rows[index] for index in positions]
    columns = [key for key in found[0] if key.startswith("probability_")]
    columns.sort(key=lambda key: int(key.removeprefix("probability_")))
    probabilities = None
    if columns and all(key in row for row in found for key in columns):
        probabilities = np.array([[row[key] for key in columns] for row in found], "float64")
    labels, predictions = (np.array([row[key] for row in found]) for key in ("label", "prediction"))
    return Classified(labels, predictions, probabilities, np.array(positions))


def calibration_bins(rows: Sequence[dict[str, Any]], bins: int = CALIBRATION_BINS) -> CalibrationBins:
    """Compares confidence with accuracy, for a calibration plot.

    Bins are `(lower, upper]`. Confidences and edges are compared in single precision, in which networks predict: what
    is k / bins but for rounding is on the edge.

    Args:
        rows: What `evaluate_images` returned.
        bins: Number of bins between 0 and 1.

    Raises:
        ValueError: If the rows have no true classes or no probabilities.
    """
    images = classified(rows)
    if images is None or images.probabilities is None:
        raise ValueError("rows have no true classes with probabilities; there is nothing to calibrate")
    confidence, correct, place = _binned(images, bins)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, values, minlength=bins) / counts for values in (confidence, correct)]
    return CalibrationBins(np.linspace(0, 1, bins + 1), counts, *means)


def confusion_matrix(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """How many images of each class (rows) were taken for each class (columns). Shape: `(C, C)`, int64.

    Args:
        rows: What `evaluate_images` returned.

    Raises:
        ValueError: If the rows have no true classes.
    """
    images = classified(rows)
    if images is None:
        raise ValueError("rows have no true and predicted classes; there is nothing to count")
    highest = int(max(images.labels.max(), images.predictions.max())) + 1
    count = highest if images.probabilities is None else images.probabilities.shape[1]
    counts = np.zeros((count, count), "int64")
    np.add.at(counts, (images.labels.astype("int64"), images.predictions.astype("int64")), 1)
    return counts


def class_scores(images: Classified, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Scores for each row of weights; see `summarize` for the keys. NaN where a class that is needed has no weight.

    Args:
        images: N images.
        weights: How often each image counts. Shape: `(S, N)`.
    """
    labels, correct = images.labels, (images.labels == images.predictions).astype("float64")
    classes = np.unique(labels)
    recalls = {c: _ratio(weights, correct * (labels == c), labels == c) for c in classes}
    scores = {
        "accuracy": _ratio(weights, correct, np.ones(len(labels))),
        "balanced_accuracy": mean_of_known(list(recalls.values())),
    }
    count = int(max(labels.max(), images.predictions.max())) + 1
    if images.probabilities is not None:
        count = images.probabilities.shape[1]
    positives = [1] if count == 2 else list(range(count))
    rejected = [_ratio(weights, (labels != c) & (images.predictions != c), labels != c) for c in positives]
    nothing = np.full(len(weights), np.nan)
    scores["sensitivity"] = mean_of_known([recalls.get(c, nothing) for c in positives])
    scores["specificity"] = mean_of_known(rejected)
    if images.probabilities is not None:
        scores["auroc"] = mean_of_known([auroc(labels == c, images.probabilities[:, c], weights) for c in positives])
        scores["expected_calibration_error"] = _calibration_error(images, weights)
    return scores


def auroc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """scikit-learn's `roc_auc_score`, for all rows of weights at once; a loop would take seconds."""
    _, place = np.unique(scores, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    above, below = (
        np.add.reduceat(np.where(members, weights, 0)[:, order], starts, axis=1, dtype="float64")
        for members in (positive, ~positive)
    )
    # Ties count half.
    wins = above * (np.cumsum(below, axis=1) - below / 2)
    with np.errstate(invalid="ignore"):
        return wins.sum(axis=1) / (above.sum(axis=1) * below.sum(axis=1))


def _calibration_error(images: Classified, weights: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Mean distance of confidence and accuracy over the bins, each weighing as much as its images."""
    confidence, correct, place = _binned(images, bins)
    members = place[:, None] == np.arange(bins)  # (N, bins)
    gaps = np.abs(weights @ (members * (confidence - correct)[:, None]))
    with np.errstate(invalid="ignore"):
        return gaps.sum(axis=1) / weights.sum(axis=1)


def _binned(images: Classified, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, right (1) or wrong (0), and the bin of each image."""
    assert images.probabilities is not None
    confidence = images.probabilities.max(axis=1)
    inner = np.linspace(0, 1, bins + 1)[1:-1].astype("float32")
    place = np.searchsorted(inner, confidence.astype("float32"))  # the edges below it
    return confidence, (images.labels == images.predictions).astype("float64"), place


def _ratio(weights: np.ndarray, values: np.ndarray, members: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (weights @ values.astype("float64")) / (weights @ members.astype("float64"))
