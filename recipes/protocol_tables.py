"""Tables of docs/protocol.md from what its draws left, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.evaluation.compare import Difference
from keras_semimed.evaluation.images import Row, rows_of
from keras_semimed.evaluation.intervals import few_behind
from keras_semimed.evaluation.masks import surface_keys
from keras_semimed.evaluation.summary import statistics
from keras_semimed.experiments.comparison.headroom import TOO_SHORT
from keras_semimed.files import read_sealed
from recipes.packed_tables import packed_table, unpack_table

REMEDY = "remove the draw that is at fault, and run it again"
SAMPLES = 2000
NEW_STATISTICS = ", new statistics"
TITLES = {"dice": "Dice", "pooled_dice_foreground": "pooled Dice", "accuracy": "accuracy", "auroc": "AUROC"}

Printed = tuple[str, list[str], list[list[str]]]
Draws = Sequence[Mapping[str, list[Row]]]
"""Rows by weights, of one draw after the other."""
Runs = Mapping[str, Draws]
"""The same by arm."""


def read_draws(draws: Sequence[Path], arms: Sequence[str], first: str, decided: str) -> tuple[Runs, Draws]:
    """What the draws left of all arms, and of the training that they start from.

    Args:
        draws: Folders of draws; all arms are in each.
        arms: Names.
        first: Name of that training.
        decided: The weights that decide, `last` or `teacher`; `first` may have the last ones alone.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If one is damaged, or its weights, images or scores are not those of the others; it names the file.
    """
    files = {arm: [draw / arm / "images.csv" for draw in draws] for arm in (*arms, first)}
    read = {arm: [_by_weights(path) for path in paths] for arm, paths in files.items()}
    deciding = [decided, *_deciding(read[arms[0]][0], decided)]
    known: dict[str, tuple[Path, list[Row]]] = {}
    for arm, runs in read.items():
        needed = [*(["last"] if arm == first else deciding), *(kind for run in runs for kind in run)]
        for path, run in zip(map(packed_table, files[arm]), runs, strict=True):
            _check_weights(path, run, needed)
            _check_pairs(path, run, known)
    started = read.pop(first)
    return read, started


def step_times(path: Path, arms: Iterable[str]) -> dict[str, float]:
    """What a step of each arm costs, as `benchmarks.protocol_steps` wrote it.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged or lacks an arm; it names the file.
    """
    times = read_sealed(path, sealed=False).get("times")
    known = times if isinstance(times, dict) else {}
    if lacking := [arm for arm in arms if not isinstance(known.get(arm), int | float)]:
        raise ValueError(f"{path} has no time of {lacking[0]}; run benchmarks.protocol_steps again")
    return known


def overview(read: Runs, primary: str, decided: str, times: Mapping[str, float] | None = None) -> list[Printed]:
    """What decides, in two tables: scores, and the primary score's differences; another hospital's beside.

    Args:
        read: What `read_draws` returned; the first arm is what the others are compared with, beside `control` where
            there is one.
        primary: The score that decides.
        decided: The weights that decide, `last` or `teacher`, or other ones, for a second look.
        times: What a step of each arm costs, as a multiple of the first one's.

    Returns:
        Title, header and rows of each table.
    """
    arms = list(read)
    kinds = _deciding(read[arms[0]][0], decided)
    header, scores = mean_scores(read, primary, decided)
    if times is not None:
        header.insert(1, "a step costs")
        for line in scores:
            line.insert(1, f"{times[line[0]]:.2f}")
    changes: list[list[str]] = [[arm] for arm in arms[1:]]
    titles = ["arm"]
    for kind in kinds:
        rows = {arm: [run[kind] for run in read[arm]] for arm in arms}
        place = kind.removeprefix(decided)
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
        (f"{_weights(decided)}, mean over draws ± standard deviation", header, scores),
        (_over(images, len(read[arms[0]])), titles, changes),
    ]


def mean_scores(read: Runs, primary: str, decided: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table with the mean scores of each arm, another hospital's beside.

    Args:
        read: As in `overview`.
        primary: The score that comes first.
        decided: The weights.
    """
    header, lines = ["arm"], [[arm] for arm in read]
    for kind in _deciding(read[next(iter(read))][0], decided):
        keys = _keys(read[lines[0][0]][0][kind], primary)
        header += [f"{_title(key)}{kind.removeprefix(decided)}" for key in keys]
        for line in lines:
            line += _scores([run[kind] for run in read[line[0]]], keys)
    return header, lines


def asked(read: Runs, pairs: Sequence[tuple[str, str]], primary: str, decided: str) -> list[Printed]:
    """Paired differences of the arms that the question is about, in every score; another hospital's below.

    Args:
        read: As in `overview`.
        pairs: Names of two arms each.
        primary: The score that decides, which comes first, and is also shown draw by draw.
        decided: The weights that decide, `last` or `teacher`, or other ones, for a second look.

    Returns:
        Title, header and rows of one table, or none without pairs.
    """
    if not pairs:
        return []
    lines = [(f"{one} - {other}", _places(read[one], decided), _places(read[other], decided)) for one, other in pairs]
    return [_differences(f"what is asked{''.join(decided.partition(',')[1:])}", lines, primary)]


def renewed(read: Runs, primary: str, decided: str) -> list[Printed]:
    """What BatchNorm statistics that are taken anew change, in every score; another hospital's below.

    Args:
        read: As in `overview`; all arms were scored with both.
        primary: The score that comes first.
        decided: The weights that decide.

    Returns:
        Title, header and rows of one table.
    """
    again = decided + NEW_STATISTICS
    lines = [(arm, _places(runs, again), _places(runs, decided)) for arm, runs in read.items()]
    return [_differences("new statistics - those of the training", lines, primary)]


def others(read: Runs, primary: str, shown: Sequence[str]) -> list[Printed]:
    """Mean scores of the weights that neither decide nor were looked at a second time.

    Args:
        read: As in `overview`.
        primary: The score that comes first.
        shown: The weights that have tables already.

    Returns:
        Title, header and rows of each table.
    """
    kinds = sorted({kind for runs in read.values() for run in runs for kind in run if " on " not in kind}, key=len)
    common = [kind for kind in kinds if all(kind in run for runs in read.values() for run in runs)]
    return [
        (
            f"{_weights(kind)}, which decide nothing, mean over draws ± standard deviation",
            *mean_scores(read, primary, kind),
        )
        for kind in common
        if kind not in shown
    ]


def lengths(read: Runs, first: Draws, primary: str, decided: str) -> list[str]:
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
            ("Mean over draws ± standard deviation", header, [[arm, *_scores(rows[arm], keys)] for arm in having])
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


def _places(runs: Draws, weights: str) -> dict[str, list[list[Row]]]:
    """Rows of each draw, on the test part (`""`) and on images of other hospitals (`" on ..."`)."""
    return {kind.removeprefix(weights): [run[kind] for run in runs] for kind in _deciding(runs[0], weights)}


def _differences(
    title: str, lines: Sequence[tuple[str, Mapping[str, list[list[Row]]], Mapping[str, list[list[Row]]]]], primary: str
) -> Printed:
    """A table of paired differences in every score.

    Args:
        title: Of the column of names.
        lines: Name and both sides, as `_places` returns them.
        primary: The score that comes first, and is also shown draw by draw.
    """
    _, example, _ = lines[0]
    keys = list(dict.fromkeys(key for runs in example.values() for key in _keys(runs[0], primary)))
    rows = []
    for name, ones, beside in lines:
        for place, one in ones.items():
            known = _keys(one[0], primary)
            found = [_shown(crossed_difference(one, beside[place], key)) if key in known else "" for key in keys]
            by_draw = _by_draw(one, beside[place], primary) if primary in known else ""
            rows.append([f"{name}{place}", *found, by_draw])
    header = [title, *map(_title, keys), f"{_title(primary)}, draw by draw"]
    images = min(len(runs[0]) for runs in example.values())
    return _over(images, len(example[""])), header, rows


def _gain(first: Draws, second: Draws, key: str, weights: str) -> Difference:
    return crossed_difference([run[weights] for run in first], [run[weights] for run in second], key)


def _deciding(kinds: Iterable[str], decided: str) -> list[str]:
    """Of kinds of weights those that decide: on the test part, then on images of other hospitals."""
    return sorted((kind for kind in kinds if kind == decided or kind.startswith(f"{decided} on ")), key=len)


def _weights(kind: str) -> str:
    name, comma, how = kind.partition(",")
    return f"{'Averaged' if name == 'teacher' else name.capitalize()} weights{comma}{how}"


def _over(images: int, draws: int) -> str:
    """Title of a table of differences, with a warning where little stands behind them."""
    few = few_behind(images, draws, "draws")
    return f"Paired differences, 95 % intervals over images and draws. {few}".strip()


def _by_weights(path: Path) -> dict[str, list[Row]]:
    table = unpack_table(path)
    if lacking := [key for key in ("name", "weights") if not all(cells.get(key) for cells in table)]:
        raise ValueError(f"{packed_table(path)} has rows without {lacking[0]!r}")
    try:
        rows = rows_of(table)
    except ValueError as error:
        raise ValueError(f"{packed_table(path)} holds what is no number ({error})") from error
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row["weights"]), []).append(row)
    return {kind: sorted(rows, key=lambda row: row["name"]) for kind, rows in found.items()}


def _check_weights(path: Path, run: Mapping[str, list[Row]], expected: Iterable[str]) -> None:
    if lacking := [kind for kind in expected if kind not in run]:
        raise ValueError(f"{path} has no scores of {lacking[0]!r} weights; {REMEDY}")


def _check_pairs(path: Path, run: Mapping[str, list[Row]], known: dict[str, tuple[Path, list[Row]]]) -> None:
    """Refuses rows that cannot be paired with those of other files, and notes them in `known` where they are the first.

    One test part belongs to all weights, and one part to each other hospital.
    """
    for kind, rows in run.items():
        other, expected = known.setdefault(kind.partition(" on ")[2], (path, rows))
        names, others = (Counter(row["name"] for row in each) for each in (rows, expected))
        if odd := sorted((names - others) + (others - names)):
            raise ValueError(
                f"{path} has scores of other images than {other}, such as {odd[0]!r} ({kind!r} weights); {REMEDY}"
            )
        scores, wanted = (
            {key for row in each for key, value in row.items() if not isinstance(value, str)}
            for each in (rows, expected)
        )
        if lacking := sorted(wanted - scores):
            raise ValueError(f"{path} has no {lacking[0]!r}, which {other} has ({kind!r} weights); {REMEDY}")


def _keys(rows: list[Row], primary: str) -> list[str]:
    known: dict[str, Any] = statistics(rows, np.ones((1, len(rows)), int))
    wanted = (primary, "dice", "pooled_dice_foreground", *surface_keys(rows), "accuracy", "auroc")
    return [key for key in dict.fromkeys(wanted) if key in known]


def _title(key: str) -> str:
    return TITLES.get(key, "NSD at 2 px" if key.startswith("nsd") else key)


def _scores(runs: Sequence[list[Row]], keys: Sequence[str]) -> list[str]:
    whole = [statistics(rows, np.ones((1, len(rows)), int)) for rows in runs]
    values = {key: 100 * np.array([float(scores[key][0]) for scores in whole]) for key in keys}
    deviation = {key: f" ± {value.std(ddof=1):.1f}" if len(value) > 1 else "" for key, value in values.items()}
    return [f"{values[key].mean():.1f}{deviation[key]}" for key in keys]


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
