"""Paired comparison of two models on the same images."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from keras_semimed.evaluation.groups import clusters_of
from keras_semimed.evaluation.images import Row
from keras_semimed.evaluation.intervals import Scores, jackknife_interval, without_each
from keras_semimed.evaluation.masks import HD95_MM, surface_keys
from keras_semimed.evaluation.summary import score_limits, statistics


class Difference(NamedTuple):
    """Mean paired difference with its 95 % interval, NaN where there is none."""

    mean: float
    low: float
    high: float


def paired_difference(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Difference:
    """Mean of `first - second` with a 95 % interval, see `jackknife_interval`.

    Entries of one cluster count as one piece of evidence: several seeds' scores of one image are not independent, nor
    are images of one patient, and taking them one by one would make the interval too narrow. The interval covers the
    choice of test images, not the randomness of training; that is what the standard deviation over seeds shows.

    Args:
        first: One score an entry.
        second: Scores of the same entries in the same order.
        clusters: One key an entry; entries with equal keys stay together. None: every entry on its own.

    Returns:
        Mean and interval. An entry where a score is NaN is left out. A single cluster has no interval: NaN.

    Raises:
        ValueError: If the lengths differ or nothing is left to compare.
    """
    first_scores, second_scores = np.asarray(first, "float64"), np.asarray(second, "float64")
    keys = list(range(len(first_scores))) if clusters is None else list(clusters)
    if not len(first_scores) == len(second_scores) == len(keys):
        raise ValueError(
            f"first, second and clusters have {len(first_scores)}, {len(second_scores)} and {len(keys)} entries; "
            "pair them one to one"
        )
    differences = first_scores - second_scores
    kept = ~np.isnan(differences)
    if not kept.any():
        raise ValueError("there is no pair of scores to compare")
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    members = np.array([numbers[key] for key in keys])[kept]
    sums = np.bincount(members, differences[kept])
    counts = np.bincount(members)
    sums, counts = sums[counts > 0], counts[counts > 0]
    mean = float(differences[kept].mean())
    if len(sums) < 2:
        return Difference(mean, math.nan, math.nan)
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    return Difference(mean, *jackknife_interval(mean, left_out, (-math.inf, math.inf)))


def paired_scores(pairs: Sequence[tuple[Sequence[Row], Sequence[Row]]]) -> dict[str, Difference]:
    """Differences with 95 % intervals (`jackknife_interval`), also of scores of a whole set, such as a pooled IoU.

    The differences are averaged over the pairs, with all images and without each of them.

    Args:
        pairs: Rows of `evaluate_images` of two models on the same images, one pair a seed. Images with one name are
            left out together, and so are those with one `group`, such as a patient.

    Returns:
        `first - second` by the keys of `summarize`, of those that all runs have. Ends are NaN where there is no
        interval: of a single image or group, and of a score that needs one certain image or group.

    Raises:
        ValueError: If there is no pair, or two models of a pair did not score the same images.
    """
    _check_pairs(pairs)
    clusters = clusters_of(_rows(pairs))
    numbers = {name: number for number, name in enumerate(clusters)}

    def gains(weights: np.ndarray) -> Scores:
        found: list[Scores] = []
        for pair in pairs:
            mine, other = (statistics(rows, weights[:, [numbers[row["name"]] for row in rows]]) for rows in pair)
            found.append({key: mine[key] - other[key] for key in mine if key in other})
        return {key: np.mean([gain[key] for gain in found], axis=0) for key in found[0] if all(key in g for g in found)}

    left_out = without_each(list(clusters.values()), gains)
    found = {}
    for key, (mean,) in gains(np.ones((1, len(numbers)))).items():
        if not np.isnan(mean):
            largest = score_limits(key)[1]
            nothing = np.full(len(set(clusters.values())), np.nan)
            interval = jackknife_interval(float(mean), left_out.get(key, nothing), (-largest, largest))
            found[key] = Difference(float(mean), *interval)
    return found


def paired_p_values(
    pairs: Sequence[tuple[Sequence[Row], Sequence[Row]]], samples: int = 9999, seed: int = 0
) -> dict[str, float]:
    """Two-sided p-values of the differences of `paired_scores`, by a paired sign-flip permutation test over images.

    What the pairs (seeds) say about one image is averaged first, each as it enters the difference, and flips its sign
    as one; images with one `group`, such as a patient, flip together. So p speaks about the choice of images, not about
    training. It is not corrected for several comparisons.

    Args:
        pairs: Rows of `evaluate_images` of two models on the same images, one pair a seed.
        samples: Number of random flips; with fewer possible ones than that, all of them (13 images or less).
        seed: Seed of the flips.

    Returns:
        P-values by the keys of `summarize`, of the scores that are means over images and that all runs have: `dice`,
        `iou`, `nsd_at_2`, `hd95`, the same in mm, `missed_rate`, `accuracy`. Pooled scores and AUROC are not of this
        kind, and a single image or group has none.

    Raises:
        ValueError: If there is no pair, or two models of a pair did not score the same images.
    """
    from scipy.stats import permutation_test

    _check_pairs(pairs)
    runs = [rows for pair in pairs for rows in pair]
    clusters = clusters_of(_rows(pairs))
    found = {}
    for key in ("dice", "iou", *surface_keys(runs[0]), "hd95", HD95_MM, "missed_rate", "accuracy"):
        values = [_image_scores(rows, key) for rows in runs]
        if not all(values):
            continue
        most = max(map(len, values))
        gains: dict[Hashable, float] = defaultdict(float)
        for number, scores in enumerate(values):
            # A common factor does not matter to the test; this one leaves whole numbers whole, so that ties stay ties.
            factor = (-1) ** number * most / len(scores)
            for name, value in scores:
                gains[clusters[name]] += factor * value
        if len(gains) < 2:
            continue
        found[key] = float(
            permutation_test(
                (np.array(list(gains.values())),),
                lambda flipped, axis: flipped.sum(axis=axis),
                permutation_type="samples",
                vectorized=True,
                n_resamples=samples,
                batch=1000,
                rng=np.random.default_rng(seed),
            ).pvalue
        )
    return found


def _rows(pairs: Sequence[tuple[Sequence[Row], Sequence[Row]]]) -> Iterator[Row]:
    return (row for pair in pairs for rows in pair for row in rows)


def _check_pairs(pairs: Sequence[tuple[Sequence[Row], Sequence[Row]]]) -> None:
    if not pairs:
        raise ValueError("there is no pair of runs to compare")
    for first, second in pairs:
        if {row["name"] for row in first} != {row["name"] for row in second}:
            raise ValueError("two runs scored different images; they cannot be paired")


def _image_scores(rows: Sequence[Row], key: str) -> list[tuple[str, float]]:
    """Name and score of the images that enter a mean over images, `key` of `summarize`."""
    if key == "accuracy":
        return [
            (row["name"], row["label"] == row["prediction"]) for row in rows if {"label", "prediction"} <= row.keys()
        ]
    column = "missed" if key == "missed_rate" else key
    return [(row["name"], row[column]) for row in rows if column in row and not np.isnan(row[column])]
