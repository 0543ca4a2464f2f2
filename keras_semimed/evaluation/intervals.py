"""95 % intervals of scores of a whole set, from what they are without each of its images."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

FEWEST_IMAGES = 60
FEWEST_GROUPS = 20
# Weights of so many sets at once: the memory grows with the images, not with their square.
_CHUNK = 256

Scores = dict[str, np.ndarray]


def jackknife_interval(estimate: float, left_out: np.ndarray, limits: tuple[float, float]) -> tuple[float, float]:
    """A 95 % interval for a mean, or what behaves like one, that holds for skewed values too.

    `estimate ± t * error` covers too little where a few images on one side decide: of skewed values, a mean that is too
    small comes with an error that is too small. Hall's transformation takes the skewness out of the studentised mean T,
    `g(T) = T + a T^2 / 3 + a^2 T^3 / 27 + a / 6` with `a = skewness / sqrt(n)`, and makes an interval of the T for
    which `g(T)` lies between the quantiles of Student's t with n - 1 degrees of freedom. With few images the skewness
    is uncertain itself, so each end is the farther one of both intervals. Hall, "On the removal of skewness by
    transformation", Journal of the Royal Statistical Society B 54 (1992).

    Error and skewness are those of the jackknife, so that pooled scores and AUROC have intervals too; of a mean they
    are the ones of its values.

    Args:
        estimate: The score of the whole set.
        left_out: The score without each of the n images, or groups of images. Shape: `(n,)`.
        limits: Smallest and largest value that the score can have.

    Returns:
        Both ends; `estimate` twice where no image matters, NaN for a single one or where the score does not exist
        without one of them.
    """
    count = len(left_out)
    if count < 2 or np.isnan(left_out).any():
        return math.nan, math.nan
    from scipy.stats import t

    influence = (count - 1) * (left_out.mean() - left_out)
    variance = (influence**2).mean()
    if variance == 0:
        return estimate, estimate
    error = math.sqrt(variance / (count - 1))
    skewness = (influence**3).mean() / variance**1.5
    # Samples are less skewed than what they are drawn from. Two values have no skewness.
    skewness *= math.sqrt(count * (count - 1)) / max(count - 2, 1)
    student = t.ppf([0.025, 0.975], count - 1)
    hall = untransformed(student, skewness / math.sqrt(count))
    least, most = min(student[0], hall[0]), max(student[1], hall[1])
    low, high = np.clip([estimate - error * most, estimate - error * least], *limits)
    return float(low), float(high)


def without_each(clusters: Sequence[Hashable], score: Callable[[np.ndarray], Scores]) -> Scores:
    """Scores of a set without each of its clusters; NaN for those that do not exist without one of them.

    Args:
        clusters: The cluster that each of the N images is in: itself alone, or those of a patient.
        score: Scores `(S,)` for weights `(S, N)`.

    Returns:
        Arrays of as many scores as there are clusters.
    """
    parts = [(len(weights), score(weights)) for weights in _weights(clusters)]
    keys = dict.fromkeys(key for _, part in parts for key in part)
    return {key: np.concatenate([part.get(key, np.full(rows, np.nan)) for rows, part in parts]) for key in keys}


def few_behind(images: int, groups: int | None = None, kind: str = "groups") -> str:
    """A sentence that belongs below a table whose intervals have few images, or groups of images, behind them.

    Args:
        images: Images behind the interval that has the fewest.
        groups: Patients or other groups that are drawn as a whole; None where each image is its own.
        kind: What the groups are called.

    Returns:
        The sentence; empty with 60 images and 20 groups or more.
    """
    few = {f"{FEWEST_IMAGES} images": images} if images < FEWEST_IMAGES else {}
    if groups is not None and groups < FEWEST_GROUPS:
        few[f"{FEWEST_GROUPS} {kind}"] = groups
    if not few:
        return ""
    found = " and ".join(map(str, few.values()))
    return (
        f"Fewer than {' and '.join(few)} stand behind an interval ({found}): it can be too narrow, above all where a "
        "few of them decide."
    )


def untransformed(value: np.ndarray, bend: float) -> np.ndarray:
    """The T with `g(T) = value` for Hall's g with `a = bend`, see `jackknife_interval`."""
    if abs(bend) < 1e-6:
        return value
    return 3 / bend * (np.cbrt(1 + bend * (value - bend / 6)) - 1)


def _weights(clusters: Sequence[Hashable]) -> Iterator[np.ndarray]:
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    members = np.array([numbers[cluster] for cluster in clusters])
    for start in range(0, len(numbers), _CHUNK):
        left_out = np.arange(start, min(start + _CHUNK, len(numbers)))
        yield (members != left_out[:, None]).astype("float64")
