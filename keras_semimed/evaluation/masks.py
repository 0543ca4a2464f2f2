"""Scores of one predicted mask, and what a whole test set makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_semimed.metrics.surface import surface_distances

NSD = "nsd_at_"
"""Begin of the key of the normalised surface distance; the tolerance follows, and `_mm` where it is in mm."""
MM = "_mm"
HD95_MM = f"hd95{MM}"


def score_mask(
    truth: np.ndarray,
    prediction: np.ndarray,
    num_classes: int,
    ignore_value: int = 255,
    surface_tolerance: float | None = 2.0,
    spacing: tuple[float, float] = (1.0, 1.0),
    present: Sequence[bool] | None = None,
    spacing_mm: tuple[float, float] | None = None,
    tolerance_mm: float | None = 1.0,
) -> dict[str, Any]:
    """Scores the mask of one image; see `evaluate_images` for what the keys mean.

    Args:
        truth: Class indices. Shape: `(H, W)`.
        prediction: Class indices. Shape: `(H, W)`.
        num_classes: K, background included.
        ignore_value: Value of `truth` where pixels are left out; to the surface metrics they are background in both.
        surface_tolerance: Tolerance of the normalised surface distance; None leaves the surface metrics out.
        spacing: Height and width of a pixel, the unit of `surface_tolerance`.
        present: Whether the image has each class, though resizing may have left no pixel of it; None: as `truth` says.
        spacing_mm: Height and width of a pixel in mm; None where they are not known.
        tolerance_mm: Tolerance of the normalised surface distance in mm; None leaves what is in mm out.

    Returns:
        `dice`, `iou`, `intersection_0`, `union_0`, ..., `lesion_size`; `missed` where there is a lesion; `nsd_at_2` and
        `hd95`; `nsd_at_1_mm` and `hd95_mm` where `spacing_mm` is known.

    Raises:
        ValueError: If the truth holds a class that the prediction cannot have or no whole numbers, a tolerance is
            negative or a spacing is not positive.
    """
    for name, tolerance in (("surface_tolerance", surface_tolerance), ("tolerance_mm", tolerance_mm)):
        if tolerance is not None and not tolerance >= 0:
            raise ValueError(f"`{name}` must be a distance of at least 0, found {tolerance}")
    for name, sides in (("spacing", spacing), ("spacing_mm", spacing_mm)):
        if sides is not None and not min(sides) > 0:
            raise ValueError(f"`{name}` must be the positive height and width of a pixel, found {sides}")
    valid = truth != ignore_value
    counts = _confusion(truth[valid], prediction[valid], num_classes)
    common = counts.diagonal()
    sizes = counts.sum(axis=0) + counts.sum(axis=1)
    known = np.zeros(num_classes, bool) if present is None else np.asarray(present, bool)
    occurring = [index for index in range(1, num_classes) if sizes[index] or known[index]]
    row: dict[str, Any] = {}
    if occurring:
        row["dice"] = float(np.mean([2 * common[c] / max(sizes[c], 1) for c in occurring]))
        row["iou"] = float(np.mean([common[c] / max(sizes[c] - common[c], 1) for c in occurring]))
    else:
        row["dice"] = row["iou"] = 1.0 if valid.any() else float("nan")
    for index in range(num_classes):
        row |= {f"intersection_{index}": int(common[index]), f"union_{index}": int(sizes[index] - common[index])}
    row["lesion_size"] = float(counts[1:].sum() * spacing[0] * spacing[1])
    if counts[1:].any() or known[1:].any():
        row["missed"] = int(not counts[1:, 1:].any())
    masks = [(valid & (truth == c), valid & (prediction == c)) for c in occurring]
    if surface_tolerance is not None:
        row |= _surface_scores(masks, bool(valid.any()), surface_tolerance, spacing)
    if tolerance_mm is not None and spacing_mm is not None:
        found = _surface_scores(masks, bool(valid.any()), tolerance_mm, spacing_mm)
        row |= {f"{key}{MM}": value for key, value in found.items()}
    return row


def mask_scores(rows: Sequence[dict[str, Any]], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Means over images and scores pooled over all pixels, for each row of weights; see `summarize` for the keys.

    Args:
        rows: One an image, not all with masks.
        weights: How often each image counts. Shape: `(S, N)`.
    """
    scores = {}
    for key in ("dice", "iou", *surface_keys(rows), "hd95", HD95_MM, "missed"):
        values = np.array([row.get(key, np.nan) for row in rows], "float64")
        known = ~np.isnan(values)
        if known.any():
            with np.errstate(invalid="ignore"):
                scores[key if key != "missed" else "missed_rate"] = (
                    weights[:, known] @ values[known] / weights[:, known].sum(axis=1)
                )
    return scores | _pooled(rows, weights)


def surface_keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Keys of normalised surface distances that occur, in pixels and in mm."""
    return [key for key in dict.fromkeys(key for row in rows for key in row) if key.startswith(NSD)]


def lesion_counts(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Images with a lesion, with a missed one and, if any, with scores in mm; empty where the rows are not of masks."""
    if not any("union_0" in row for row in rows):
        return {}
    missed = [row["missed"] for row in rows if "missed" in row]
    measured = sum(HD95_MM in row for row in rows)
    counts = {"lesion_images": len(missed), "missed_lesions": sum(missed)}
    return counts | ({"images_in_mm": measured} if measured else {})


def _confusion(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels by true and predicted class: `(K, K)`."""
    if (truth % 1).any():
        raise ValueError(f"a mask holds {truth[truth % 1 != 0][0]}; class indices are whole numbers")
    truth = truth.astype("int64")
    strange = truth[(truth < 0) | (truth >= num_classes)]
    if strange.size:
        raise ValueError(
            f"a mask holds the class {strange[0]}, the predictions have the classes 0 to {num_classes - 1}; give the "
            "value of the pixels to leave out as ignore_value"
        )
    pairs = truth * num_classes + prediction
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def _surface_scores(
    masks: Sequence[tuple[np.ndarray, np.ndarray]], valid: bool, tolerance: float, spacing: tuple[float, float]
) -> dict[str, float]:
    """Means over the foreground classes that occur; 1 and 0 without any, NaN where all pixels are ignored."""
    key = f"{NSD}{tolerance:g}"
    if not masks:
        return {key: 1.0, "hd95": 0.0} if valid else {key: float("nan"), "hd95": float("nan")}
    found = [surface_distances(*pair, spacing) for pair in masks]
    return {
        # Both are empty only where a lesion vanished: it is missed.
        key: float(np.mean([distances.normalized(tolerance, both_empty=0.0) for distances in found])),
        "hd95": float(np.mean([distances.hausdorff_95(both_empty=distances.diagonal) for distances in found])),
    }


def _pooled(rows: Sequence[dict[str, Any]], weights: np.ndarray) -> dict[str, np.ndarray]:
    """IoU and Dice of each class over the pixels of all images, and the means with and without background."""
    scores: dict[str, np.ndarray] = {}
    dice: list[np.ndarray] = []
    index = 0
    while any(f"union_{index}" in row for row in rows):
        common, union = (
            weights @ np.array([row.get(f"{what}_{index}", 0) for row in rows], "float64")
            for what in ("intersection", "union")
        )
        if union.any():
            with np.errstate(invalid="ignore"):
                scores[f"pooled_iou_class_{index}"] = common / union
                dice += [2 * common / (union + common)] if index else []
        index += 1
    classes = list(scores.values())
    foreground = [value for key, value in scores.items() if key != "pooled_iou_class_0"]
    for key, values in (
        ("miou_with_background", classes),
        ("miou_foreground", foreground),
        ("pooled_dice_foreground", dice),
    ):
        if values:
            scores[key] = mean_of_known(values)
    return scores


def mean_of_known(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the first axis without NaN; NaN where all are."""
    stacked = np.array(values)
    known = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        return np.where(known, stacked, 0).sum(axis=0) / known.sum(axis=0)
