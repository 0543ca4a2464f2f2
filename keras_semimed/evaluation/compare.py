"""Paired comparison of two models on the same images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from keras_semimed.evaluation.images import Row
from keras_semimed.evaluation.masks import surface_keys
from keras_semimed.evaluation.summary import resampled, statistics


class Difference(NamedTuple):
    """Mean paired difference with its 95 % interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    samples: int = 10000,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> Difference:
    """Mean of `first - second` with a 95 % percentile bootstrap interval.

    Entries of one cluster are drawn together: several seeds' scores of one image are not independent, and drawing them
    one by one would make the interval too narrow. The interval covers the choice of test images, not the randomness of
    training; that is what the standard deviation over seeds shows.

    Args:
        first: One score an entry.
        second: Scores of the same entries in the same order.
        samples: Number of bootstrap samples.
        seed: Seed of the resampling.
        clusters: One key an entry; entries with equal keys stay together. None: every entry on its own.

    Returns:
        Mean and interval. An entry where a score is NaN is left out.

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
    low, high = np.percentile(_resampled_means(sums, counts, samples, seed), [2.5, 97.5])
    return Difference(float(differences[kept].mean()), float(low), float(high))


def paired_scores(
    pairs: Sequence[tuple[Sequence[Row], Sequence[Row]]], samples: int = 2000, seed: int = 0
) -> dict[str, Difference]:
    """Differences, with 95 % percentile bootstrap intervals, of scores that only a whole set has, such as a pooled IoU.

    Each bootstrap sample draws images; each pair of runs is scored on those of the drawn images that it has, and the
    differences are averaged over the pairs.

    Args:
        pairs: Rows of `evaluate_images` of two models on the same images, one pair a seed. Images with one name are
            drawn together.
        samples: Number of bootstrap samples.
        seed: Seed of the resampling.

    Returns:
        `first - second` by the keys of `summarize`, of those that all runs have.

    Raises:
        ValueError: If there is no pair, or two models of a pair did not score the same images.
    """
    _check_pairs(pairs)
    numbers: dict[str, int] = {}
    for first, _ in pairs:
        for row in first:
            numbers.setdefault(row["name"], len(numbers))
    drawn = np.concatenate([np.ones((1, len(numbers)), int), resampled(len(numbers), samples, seed)])
    gains: list[dict[str, np.ndarray]] = []
    for pair in pairs:
        mine, other = (statistics(rows, drawn[:, [numbers[row["name"]] for row in rows]]) for rows in pair)
        gains.append({key: mine[key] - other[key] for key in mine if key in other})
    found = {}
    for key in gains[0]:
        if not all(key in gain and not np.isnan(gain[key][0]) for gain in gains):
            continue
        means = np.mean([gain[key] for gain in gains], axis=0)
        low, high = np.nanpercentile(means[1:], [2.5, 97.5])
        found[key] = Difference(float(means[0]), float(low), float(high))
    return found


def paired_p_values(
    pairs: Sequence[tuple[Sequence[Row], Sequence[Row]]], samples: int = 9999, seed: int = 0
) -> dict[str, float]:
    """Two-sided p-values of the differences of `paired_scores`, by a paired sign-flip permutation test over images.

    What the pairs (seeds) say about one image is averaged first, each as it enters the difference, and flips its sign
    as one. So p speaks about the choice of images, not about training. It is not corrected for several comparisons.

    Args:
        pairs: Rows of `evaluate_images` of two models on the same images, one pair a seed.
        samples: Number of random flips; with fewer possible ones than that, all of them (13 images or less).
        seed: Seed of the flips.

    Returns:
        P-values by the keys of `summarize`, of the scores that are means over images and that all runs have: `dice`,
        `iou`, `nsd_at_2`, `hd95`, `missed_rate`, `accuracy`. Pooled scores and AUROC are not of this kind, and a single
        image has none.

    Raises:
        ValueError: If there is no pair, or two models of a pair did not score the same images.
    """
    from scipy.stats import permutation_test

    _check_pairs(pairs)
    runs = [rows for pair in pairs for rows in pair]
    found = {}
    for key in ("dice", "iou", *surface_keys(runs[0]), "hd95", "missed_rate", "accuracy"):
        values = [_image_scores(rows, key) for rows in runs]
        if not all(values):
            continue
        most = max(map(len, values))
        gains: dict[str, float] = defaultdict(float)
        for number, scores in enumerate(values):
            # A common factor does not matter to the test; this one leaves whole numbers whole, so that ties stay ties.
            factor = (-1) ** number * most / len(scores)
            for name, value in scores:
                gains[name] += factor * value
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


def _resampled_means(sums: np.ndarray, counts: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Means of `samples` draws, with replacement, of as many clusters as there are."""
    generator = np.random.default_rng(seed)
    means = []
    for start in range(0, samples, 1000):
        drawn = generator.integers(0, len(sums), (min(1000, samples - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)
