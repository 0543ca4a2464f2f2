"""How often 95 % intervals hold what they are made for, by simulation.

    python -m benchmarks.interval_coverage

Cases: `gains`, mean of Dice differences of which five in six are noise around 0 (normal, standard deviation 0.02) and
one in six is a gain (exponential, mean 0.25, at most 1), skewness 4; `both`, likewise, but one in four is a gain or a
loss (Laplace, mean 0.05, scale 0.2), hardly skewed; `lognormal`, skewness 6; `exponential`, skewness 2; `accuracy`,
mean of differences of right and wrong (0.08 of the images gained, 0.02 lost); `pooled`, ratio of lognormal pixel
counts; `auroc`, a third of the images positive, true value 0.80; `patients`, mean gain over the images of so many
patients, with 1, 2, ... images each (geometric, mean 3), which share half of what they gain.

Methods: quantiles of bootstrap samples (`percentile`), the same at the levels of Student's t (`expanded`), BCa, the
studentised bootstrap (`bootstrap t`, errors by the jackknife's influences), `estimate ± t * error` (`Student`), Hall's
transformation of it (`Hall`), and the package's, of which each end is the farther one of these two (`package`,
`keras_semimed.evaluation.intervals`). All methods see the same data, and all data of one size the same bootstrap
samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from keras_semimed.evaluation.classes import auroc
from keras_semimed.evaluation.intervals import jackknife_interval, untransformed

SIZES = (30, 60, 100, 300)
PATIENTS = (20, 40, 60)
LEVELS = np.array([0.025, 0.975])
METHODS = ("percentile", "expanded", "BCa", "bootstrap t", "Student", "Hall", "package")


class Case(NamedTuple):
    """Data (n, columns) of n images or patients, their score for weights (S, n), and that of all there could be."""

    draw: Callable[[np.random.Generator, int], np.ndarray]
    score: Callable[[np.ndarray, np.ndarray], np.ndarray]
    true: float | None = None
    sizes: tuple[int, ...] = SIZES


def ratio(data: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of the first column over that of the second one."""
    return (weights @ data[:, 0]) / (weights @ data[:, 1])


def of_mean(draw: Callable[[np.random.Generator, int], np.ndarray], true: float | None = None) -> Case:
    """The mean of independent values."""
    return Case(lambda random, n: np.stack([draw(random, n), np.ones(n)], axis=1), ratio, true)


def gains(random: np.random.Generator, n: int) -> np.ndarray:
    """Dice differences: mostly near 0, some large."""
    large = np.minimum(random.exponential(0.25, n), 1)
    return np.where(random.random(n) < 1 / 6, large, random.normal(0, 0.02, n))


def both(random: np.random.Generator, n: int) -> np.ndarray:
    """Dice differences: mostly near 0, some large ones of either sign."""
    return np.where(random.random(n) < 1 / 4, random.laplace(0.05, 0.2, n), random.normal(0, 0.02, n))


def pooled(random: np.random.Generator, n: int) -> np.ndarray:
    """Common pixels and all pixels of a class."""
    union = random.lognormal(0, 1, n)
    return np.stack([union * random.beta(3, 1, n), union], axis=1)


def patients(random: np.random.Generator, n: int) -> np.ndarray:
    """Sum of the gains of a patient's images, and their number."""
    images = random.geometric(1 / 3, n)
    own = np.array([gains(random, count).sum() for count in images])
    return np.stack([(own + images * gains(random, n)) / 2, images], axis=1)


def classes(random: np.random.Generator, n: int) -> np.ndarray:
    """Class 1 or 0 and the score of class 1; at least two images of each."""
    positive = random.random(n) < 1 / 3
    positive[:2], positive[2:4] = True, False
    return np.stack([positive, random.normal(positive * np.sqrt(2) * norm.ppf(0.8))], axis=1)


CASES = {
    "gains": of_mean(gains),
    "both": of_mean(both, 0.0125),
    "lognormal": of_mean(lambda random, n: random.lognormal(size=n), float(np.exp(0.5))),
    "exponential": of_mean(lambda random, n: random.exponential(size=n), 1.0),
    "accuracy": of_mean(lambda random, n: random.choice([1.0, 0.0, -1.0], n, p=[0.08, 0.9, 0.02]), 0.06),
    "pooled": Case(pooled, ratio, 0.75),
    "auroc": Case(classes, lambda data, weights: auroc(data[:, 0] == 1, data[:, 1], weights), 0.8),
    "patients": Case(patients, ratio, sizes=PATIENTS),
}


def intervals(case: Case, data: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Both ends by each of the methods: `(methods, 2)`.

    Args:
        case: What the data are of.
        data: Of n images or patients.
        drawn: How often each is in each bootstrap sample. Shape: `(S, n)`.
    """
    n = len(data)
    (estimate,) = case.score(data, np.ones((1, n)))
    left_out = case.score(data, 1 - np.eye(n))
    samples = case.score(data, drawn)
    samples = samples[~np.isnan(samples)]
    influence = (n - 1) * (left_out.mean() - left_out)
    variance = (influence**2).mean()
    if variance == 0:
        return np.full((len(METHODS), 2), estimate)
    error = np.sqrt(variance / (n - 1))
    students = t.ppf(LEVELS, n - 1)
    expanded = norm.cdf(students * np.sqrt(n / (n - 1)))
    skewness = (influence**3).mean() / variance**1.5 * np.sqrt(n * (n - 1)) / (n - 2)
    hall = untransformed(students, skewness / np.sqrt(n))
    found = [
        np.quantile(samples, LEVELS),
        np.quantile(samples, expanded),
        bca(estimate, samples, (influence**3).sum() / (variance * n) ** 1.5 / 6),
        estimate - error * studentized(influence, drawn)[::-1],
        estimate + error * students,
        estimate - error * hall[::-1],
        jackknife_interval(float(estimate), left_out, (-np.inf, np.inf)),
    ]
    return np.array(found)


def bca(estimate: float, samples: np.ndarray, acceleration: float) -> np.ndarray:
    """Quantiles of the samples at levels that are corrected for bias and acceleration."""
    below = (samples < estimate).mean() + (samples == estimate).mean() / 2
    shift = norm.ppf(np.clip(below, 1 / len(samples), 1 - 1 / len(samples)))
    z = shift + norm.ppf(LEVELS)
    return np.quantile(samples, norm.cdf(shift + z / (1 - acceleration * z)))


def studentized(influence: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Quantiles of the samples' (mean - estimate) / error; infinite where a sample without error decides."""
    n = len(influence)
    means = drawn @ influence / n
    errors = np.sqrt(np.maximum(drawn @ influence**2 / n - means**2, 0) / (n - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.quantile(
            np.nan_to_num(means / errors, nan=0.0, posinf=np.inf, neginf=-np.inf), LEVELS, method="inverted_cdf"
        )


def coverage(case: Case, n: int, true: float, repeats: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of the intervals that hold the true value, and their median width, by method."""
    random = np.random.default_rng(n)
    drawn = random.multinomial(n, np.full(n, 1 / n), samples).astype("float64")
    ends = np.array([intervals(case, case.draw(random, n), drawn) for _ in range(repeats)])
    held = (ends[..., 0] <= true) & (true <= ends[..., 1])
    with np.errstate(invalid="ignore"):
        return held.mean(axis=0), np.median(ends[..., 1] - ends[..., 0], axis=0)


def true_value(case: Case) -> float:
    """What the score is of a million images."""
    data = case.draw(np.random.default_rng(0), 10**6)
    return float(case.score(data, np.ones((1, len(data))))[0])


def line(cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints a table: coverage in per cent and, relative to the percentile's, median width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="cases (default: all)")
    parser.add_argument("--repeats", type=int, default=1000, help="data sets of each size (1000)")
    parser.add_argument("--samples", type=int, default=500, help="bootstrap samples of each data set (500)")
    arguments = parser.parse_args()
    print(f"In per cent (width, that of percentile is 1); {arguments.repeats} data sets, {arguments.samples} samples\n")
    print(line(("case", "n", *METHODS)))
    print(line(["---"] * (2 + len(METHODS))))
    for name in arguments.cases:
        case = CASES[name]
        true = true_value(case) if case.true is None else case.true
        for n in case.sizes:
            held, widths = coverage(case, n, true, arguments.repeats, arguments.samples)
            cells = [f"{100 * share:.1f} ({width:.2f})" for share, width in zip(held, widths / widths[0], strict=True)]
            print(line((name, str(n), *cells)), flush=True)


if __name__ == "__main__":
    main()
