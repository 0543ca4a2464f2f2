"""Tables of docs/protocol.md from what its draws left, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.evaluation.compare import Difference
from keras_semimed.evaluation.images import Row, rows_of
from keras_semimed.evaluation.intervals import few_behind
from keras_semimed.evaluation.masks import surface_keys
from keras_semimed.evaluation.summary import statistics
from keras_semimed.experiments.comparison.headroom import TOO_SHORT
from recipes.packed_tables import unpack_table

SAMPLES = 2000
TITLES = {"dice": "Dice", "pooled_dice_foreground": "pooled Dice", "accuracy": "accuracy", "auroc": "AUROC"}

Printed = tuple[str, list[str], list[list[str]]]
Runs = Mapping[str, Sequence[Mapping[str, list[Row]]]]
"""Rows by arm, draw and weights."""


def read_draws(draws: Sequence[Path], arms: Sequence[str]) -> Runs:
    """What the draws left.

    Args:
        draws: Folders of draws; all arms are in each.
        arms: Names.
    """
    return {arm: [_by_weights(draw / arm / "images.csv") for draw in draws] for arm in arms}


def overview(read: Runs, primary: str, decided: str, times: Mapping[str, float] | None = None) -> list[Printed]:
    """What decides, in two tables: scores, and the primary score's differences; another hospital's beside.

    Args:
        read: What `read_draws` returned; the first arm is what the others are compared with, beside `control` where
            there is one.
        primary: The score that decides.
        decided: The weights that decide, `last` or `teacher`.
        times: What a step of each arm costs, as a multiple of the first one's.

    Returns:
        Title, header and rows of each table.
    """
    arms = list(read)
    kinds = [kind for kind in read[arms[0]][0] if kind == decided or kind.startswith(f"{decided} on ")]
    scores: list[list[str]] = [[arm] for arm in arms]
    changes: list[list[str]] = [[arm] for arm in arms[1:]]
    header, titles = ["arm"], ["arm"]
    if times is not None:
        header.append("a step costs")
        for line in scores:
            line.append(f"{times[line[0]]:.2f}")
    for kind in sorted(kinds, key=len):
        rows = {arm: [run[kind] for run in read[arm]] for arm in arms}
        keys = _keys(rows[arms[0]][0], primary)
        place = kind.removeprefix(decided)
        header += [f"{_title(key)}{place}" for key in keys]
        for line in scores:
            line += _scores(line[0], rows[line[0]], keys)[1:]
        for other in (arm for arm in dict.fromkeys((arms[0], "control")) if arm in arms):
            titles.append(f"{_title(primary)}{place} - {other}")
            for line in changes:
                same = line[0] == other
                line.append("" if same else _shown(crossed_difference(rows[line[0]], rows[other], primary)))
            if not place:
                titles.append("draw by draw")
                for line in changes:
                    line.append("" if line[0] == other else _by_draw(rows[line[0]], rows[other], primary))
    images = min(len(read[arms[0]][0][kind]) for kind in kinds)
    return [
        (f"{decided} weights, mean over draws ± standard deviation", header, scores),
        (_over(images, len(read[arms[0]])), titles, changes),
    ]


def asked(read: Runs, pairs: Sequence[tuple[str, str]], primary: str, decided: str) -> list[Printed]:
    """Paired differences of the arms that the question is about, in every score; another hospital's below.

    Args:
        read: As in `overview`.
        pairs: Names of two arms each.
        primary: The score that decides, which comes first, and is also shown draw by draw.
        decided: The weights that decide, `last` or `teacher`.

    Returns:
        Title, header and rows of one table, or none without pairs.
    """
    if not pairs:
        return []
    runs = read[pairs[0][0]]
    kinds = sorted((kind for kind in runs[0] if kind == decided or kind.startswith(f"{decided} on ")), key=len)
    keys = list(dict.fromkeys(key for kind in kinds for key in _keys(runs[0][kind], primary)))
    rows = []
    for first, second in pairs:
        for kind in kinds:
            one, other = ([run[kind] for run in read[arm]] for arm in (first, second))
            known = _keys(one[0], primary)
            found = [_shown(crossed_difference(one, other, key)) if key in known else "" for key in keys]
            by_draw = _by_draw(one, other, primary) if primary in known else ""
            rows.append([f"{first} - {second}{kind.removeprefix(decided)}", *found, by_draw])
    header = ["what is asked", *map(_title, keys), f"{_title(primary)}, draw by draw"]
    return [(_over(min(len(runs[0][kind]) for kind in kinds), len(runs)), header, rows)]


def lengths(read: Runs, first: Sequence[Mapping[str, list[Row]]], primary: str, decided: str) -> list[str]:
    """Sentences on whether the trainings are long enough: what the truth would gain, and what going on gained.

    Args:
        read: As in `overview`.
        first: The training that the arms of each draw start from.
        primary: The score that decides.
        decided: The weights that decide; of `first` the last ones, where it has no others.
    """
    base, *_ = read
    found = []
    if "oracle" in read:
        gain = _gain(read["oracle"], read[base], primary, decided)
        short = f"; {TOO_SHORT}" if gain.low <= 0 else ""
        found.append(f"headroom, oracle - {base}: {_shown(gain)} {_title(primary)}{short}")
    gain = _gain(read[base], first, primary, decided if decided in first[0] else "last")
    return [*found, f"saturation, {base} - what it started from: {_shown(gain)} {_title(primary)}"]


def tables(read: Runs, primary: str) -> list[Printed]:
    """A table of scores, and one of paired differences, for each kind of weights.

    Args:
        read: As in `overview`.
        primary: The score that decides, which comes first.

    Returns:
        Title, header and rows of each table.
    """
    arms = list(read)
    found: list[Printed] = []
    kinds = list(dict.fromkeys(kind for runs in read.values() for run in runs for kind in run))
    for kind in kinds:
        having = [arm for arm in arms if all(kind in run for run in read[arm])]
        rows = {arm: [run[kind] for run in read[arm]] for arm in having}
        keys = _keys(rows[having[0]][0], primary)
        header = [kind, *(_title(key) for key in keys)]
        found.append(
            ("Mean over draws ± standard deviation", header, [_scores(arm, rows[arm], keys) for arm in having])
        )
        baselines = [arm for arm in dict.fromkeys((arms[0], "control")) if arm in having]
        pairs = [(arm, other) for other in baselines for arm in having if arm not in (other, arms[0])]
        differences = [
            [f"{arm} - {other}", *(_shown(crossed_difference(rows[arm], rows[other], key)) for key in keys)]
            for arm, other in pairs
        ]
        found.append((_over(len(rows[having[0]][0]), len(read[arms[0]])), header, differences))
    return found


def crossed_difference(
    first: Sequence[Sequence[Row]], second: Sequence[Sequence[Row]], key: str, samples: int = SAMPLES, seed: int = 0
) -> Difference:
    """Mean over draws of the difference of a score, with a bootstrap interval over images and draws.

    All draws score the same images, so both are drawn with replacement, independently of each other: what is said holds
    for other images and for other choices of labelled ones.

    Args:
        first: Rows of `evaluate_images`, of one draw after the other.
        second: Those of the other arm.
        key: A key of `summarize`.
        samples: Number of bootstrap samples.
        seed: Seed of the resampling.
    """
    random = np.random.default_rng(seed)
    images, draws = len(first[0]), len(first)
    counts = random.multinomial(images, np.full(images, 1 / images), samples)
    counts = np.concatenate([np.ones((1, images), int), counts])
    gains = np.array(
        [statistics(a, counts)[key] - statistics(b, counts)[key] for a, b in zip(first, second, strict=True)]
    )
    chosen = random.integers(0, draws, (samples, draws))
    means = np.array([gains[chosen[index], index + 1].mean() for index in range(samples)])
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return Difference(float(gains[:, 0].mean()), float(low), float(high))


def _gain(
    first: Sequence[Mapping[str, list[Row]]], second: Sequence[Mapping[str, list[Row]]], key: str, weights: str
) -> Difference:
    return crossed_difference([run[weights] for run in first], [run[weights] for run in second], key)


def _over(images: int, draws: int) -> str:
    """Title of a table of differences, with a warning where little stands behind them."""
    few = few_behind(images, draws, "draws")
    return f"Paired differences, 95 % intervals over images and draws. {few}".strip()


def _by_weights(path: Path) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows_of(unpack_table(path)):
        found.setdefault(str(row["weights"]), []).append(row)
    return {kind: sorted(rows, key=lambda row: row["name"]) for kind, rows in found.items()}


def _keys(rows: list[Row], primary: str) -> list[str]:
    known: dict[str, Any] = statistics(rows, np.ones((1, len(rows)), int))
    wanted = (primary, "dice", "pooled_dice_foreground", *surface_keys(rows), "accuracy", "auroc")
    return [key for key in dict.fromkeys(wanted) if key in known]


def _title(key: str) -> str:
    return TITLES.get(key, "NSD at 2 px" if key.startswith("nsd") else key)


def _scores(arm: str, runs: Sequence[list[Row]], keys: Sequence[str]) -> list[str]:
    whole = [statistics(rows, np.ones((1, len(rows)), int)) for rows in runs]
    values = {key: 100 * np.array([float(scores[key][0]) for scores in whole]) for key in keys}
    deviation = {key: f" ± {value.std(ddof=1):.1f}" if len(value) > 1 else "" for key, value in values.items()}
    return [arm, *(f"{values[key].mean():.1f}{deviation[key]}" for key in keys)]


def _by_draw(first: Sequence[list[Row]], second: Sequence[list[Row]], key: str) -> str:
    """The difference of each draw."""
    gains = []
    for one, other in zip(first, second, strict=True):
        a, b = (float(statistics(rows, np.ones((1, len(rows)), int))[key][0]) for rows in (one, other))
        gains.append(f"{100 * (a - b):+.1f}")
    return " ".join(gains)


def _shown(difference: Difference) -> str:
    mean, low, high = (100 * value for value in difference)
    return f"{mean:+.1f} [{low:.1f}, {high:.1f}]"
