"""What a whole test set makes of the rows of its images: means, pooled scores, and 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from keras_semimed.evaluation.classes import class_scores, classified
from keras_semimed.evaluation.groups import GROUP
from keras_semimed.evaluation.images import Row
from keras_semimed.evaluation.intervals import jackknife_interval, without_each
from keras_semimed.evaluation.masks import HD95_MM, lesion_counts, mask_scores, surface_keys


def summarize(rows: Sequence[Row], intervals: bool = True) -> dict[str, float]:
    """Means over images, and what only a whole set has.

    Two ways lead from images to one number, and they differ: per image (`dice`, `iou`, ...: score each image, then take
    the mean, so that a small lesion weighs as much as a large one) and pooled (`pooled_...` and `miou_...`: add up the
    pixels of all images, then score, so that each pixel weighs the same).

    Args:
        rows: What `evaluate_images` returned. Those with equal `group` are of one patient, sequence or the like.
        intervals: False leaves the intervals out.

    Returns:
        `images` (their number), and `groups` where a group has several. Of masks: `dice`, `iou`, `nsd_at_2`, `hd95`,
        means over images, and `dice_std`, ..., standard deviations over images (n - 1); `pooled_iou_class_0`, ...,
        intersection over union of the pixels of all images, without the classes that occur nowhere; their means
        `miou_with_background` and `miou_foreground` (without class 0), and the same for Dice, `pooled_dice_foreground`;
        `lesion_images` and, of these, `missed_lesions` and their share `missed_rate`. Where rows have scores in mm,
        `nsd_at_1_mm` and `hd95_mm` are means over those rows, `images_in_mm` in number.

        Of classes: `accuracy`; `balanced_accuracy` (mean recall of the classes present); `sensitivity` and
        `specificity` (recall of class 1 and of class 0) and `auroc` (area under the ROC curve of the probability of
        class 1), which with more than two classes are means over the classes, each against the others;
        `expected_calibration_error` (15 bins of the most probable class' probability). What cannot be computed because
        a class is missing is left out, of means over classes that class.

        `..._low` and `..._high` of each but the counts: 95 % interval over images, those of one group together
        (`jackknife_interval`). A single image has neither interval nor standard deviation, nor has a score an interval
        that needs one certain image, or group.
    """
    scores = statistics(rows, np.ones((1, len(rows))))
    summary: dict[str, float] = {"images": len(rows)}
    if (groups := len(set(_clusters(rows)))) < len(rows):
        summary["groups"] = groups
    for key, value in scores.items():
        if np.isnan(value[0]):
            continue
        summary[key] = float(value[0])
        if key in ("dice", "iou", "hd95", HD95_MM, *surface_keys(rows)):
            values = np.array([row.get(key, np.nan) for row in rows], "float64")
            values = values[~np.isnan(values)]
            if len(values) > 1:
                summary[f"{key}_std"] = float(values.std(ddof=1))
    return summary | lesion_counts(rows) | (_intervals(rows, summary) if intervals else {})


def statistics(rows: Sequence[Row], weights: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of `summarize` for sets in which images occur several times or not at all.

    Args:
        rows: What `evaluate_images` returned.
        weights: How often each image occurs in each set. Shape: `(S, N)`.

    Returns:
        Arrays `(S,)`, NaN where a set has none of the images that a score needs.
    """
    scores = mask_scores(rows, weights)
    images = classified(rows)
    return scores if images is None else scores | class_scores(images, weights[:, images.positions])


def score_limits(key: str) -> tuple[float, float]:
    """Smallest and largest value that a score of `summarize` can have."""
    return (0.0, math.inf) if key in ("hd95", HD95_MM) else (0.0, 1.0)


def _clusters(rows: Sequence[Row]) -> list[Hashable]:
    return [(GROUP, row[GROUP]) if GROUP in row else index for index, row in enumerate(rows)]


def _intervals(rows: Sequence[Row], summary: dict[str, float]) -> dict[str, float]:
    """Ends of the intervals of the scores in `summary`."""
    found: dict[str, float] = {}
    for key, values in without_each(_clusters(rows), lambda weights: statistics(rows, weights)).items():
        if key in summary:
            low, high = jackknife_interval(summary[key], values, score_limits(key))
            if not math.isnan(low):
                found |= {f"{key}_low": low, f"{key}_high": high}
    return found
