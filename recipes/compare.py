"""Compares finished runs on the same images: means over seeds, and paired differences with 95 % intervals.

    python -m recipes.compare supervised=runs/s0,runs/s1,runs/s2 hermes=runs/h0,runs/h1,runs/h2 --baseline supervised

A run is the output folder of a recipe; a group NAME=RUN,RUN,... holds the seeds of one configuration; a run on its own
is a group called like its folder. Runs are paired by seed, images by name, weights by kind (last with last, teacher
with teacher). The interval resamples images: what all seeds scored on one image is drawn together. It says how far the
choice of test images moves the difference; the standard deviation over seeds says how far training does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_semimed.evaluation.compare import Difference, paired_bootstrap
from keras_semimed.evaluation.files import read_table, write_table
from keras_semimed.evaluation.images import Row, summarize
from recipes.console import RecipeError, print_table, run_main

METRICS = {"dice": "Dice", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
PAIRED = {"dice": "Dice", "accuracy": "accuracy"}


class Run(NamedTuple):
    """What a finished run left: its seed, its split and its rows by kind of weights."""

    path: Path
    seed: int
    split_hash: str
    scored: str
    rows: dict[str, list[Row]]


Groups = dict[str, list[Run]]


def read_run(path: Path) -> Run:
    """Reads the output folder of a recipe.

    Raises:
        RecipeError: If it is none, or the run is not finished.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if "result" not in config:
            raise RecipeError(f"{path} is not finished; go on with --resume, then compare")
        table = read_table(path / "images.csv")
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} is not the output folder of a run ({error})") from error
    rows: dict[str, list[Row]] = {}
    for line in table:
        rows.setdefault(line["weights"], []).append(_typed(line))
    return Run(path, config["configuration"]["seed"], config["split"]["hash"], config["split"]["scored"], rows)


def read_groups(arguments: Sequence[str]) -> Groups:
    """Reads `RUN` and `NAME=RUN,RUN,...`.

    Raises:
        RecipeError: If two groups have one name, or two runs of a group one seed.
    """
    groups: Groups = {}
    for argument in arguments:
        name, separator, paths = argument.rpartition("=")
        runs = [read_run(Path(path)) for path in (paths.split(",") if separator else [argument])]
        name = name or runs[0].path.resolve().name
        if name in groups:
            raise RecipeError(f"two groups are called {name!r}; name them: NAME=RUN,RUN,...")
        for run in runs:
            twin = next(other for other in runs if other.seed == run.seed)
            if twin is not run:
                raise RecipeError(f"{twin.path} and {run.path} in group {name!r} both have seed {run.seed}")
        groups[name] = runs
    return groups


def compare(groups: Groups, baseline: str) -> list[dict[str, Any]]:
    """One row a group and kind of weights: mean and standard deviation over seeds, paired differences.

    Args:
        groups: Runs by group.
        baseline: Name of the group that the others are compared with.

    Returns:
        Dicts with `group`, `weights`, `seeds`, `dice`, `dice_std`, ...; `dice_difference`, `dice_low`, `dice_high`, ...
        for groups other than the baseline, where that has the same kind of weights.

    Raises:
        RecipeError: If runs to be paired differ in seed, split or scored part.
    """
    table = []
    for name, runs in groups.items():
        pairs = [] if name == baseline else pair_runs(runs, groups[baseline], name, baseline)
        for weights in sorted(set.intersection(*(set(run.rows) for run in runs))):
            row: dict[str, Any] = {"group": name, "weights": weights, "seeds": len(runs)}
            row |= _over_seeds([summarize(run.rows[weights]) for run in runs])
            if pairs and all(weights in other.rows for _, other in pairs):
                row |= _differences([(run.rows[weights], other.rows[weights]) for run, other in pairs])
            table.append(row)
    return table


def pair_runs(runs: Sequence[Run], baseline: Sequence[Run], name: str, baseline_name: str) -> list[tuple[Run, Run]]:
    """Pairs each run with the baseline's run of the same seed.

    Raises:
        RecipeError: If there is none, or if it has another split or scored another part.
    """
    by_seed = {run.seed: run for run in baseline}
    if {run.seed for run in runs} != set(by_seed):
        raise RecipeError(
            f"{name!r} has the seeds {sorted(run.seed for run in runs)} and {baseline_name!r} {sorted(by_seed)}; "
            "compare runs with the same seeds"
        )
    pairs = [(run, by_seed[run.seed]) for run in runs]
    for run, other in pairs:
        for what, mine, theirs in (
            ("split hash", run.split_hash, other.split_hash),
            ("scored part", run.scored, other.scored),
        ):
            if mine != theirs:
                raise RecipeError(
                    f"{run.path} and {other.path} differ in their {what} ({mine}, {theirs}); "
                    "their images cannot be paired"
                )
    return pairs


def _differences(pairs: Sequence[tuple[list[Row], list[Row]]]) -> dict[str, float]:
    differences: dict[str, float] = {}
    for metric in PAIRED:
        names: list[str] = []
        first: list[float] = []
        second: list[float] = []
        for rows, other_rows in pairs:
            others = {row["name"]: row for row in other_rows}
            for row in rows:
                if row["name"] not in others:
                    raise RecipeError(
                        f"image {row['name']!r} is not in the baseline's images.csv; run the baseline again"
                    )
                score, other = _score(row, metric), _score(others[row["name"]], metric)
                if score is not None and other is not None:
                    names.append(row["name"])
                    first.append(score)
                    second.append(other)
        if names:
            found = paired_bootstrap(first, second, clusters=names)
            differences |= {f"{metric}_{key}": value for key, value in _named(found).items()}
    return differences


def _named(difference: Difference) -> dict[str, float]:
    return {"difference": difference.mean, "low": difference.low, "high": difference.high}


def _score(row: Row, metric: str) -> float | None:
    if metric == "accuracy":
        return float(row["prediction"] == row["label"]) if "label" in row else None
    return row.get(metric)


def _over_seeds(summaries: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean over seeds and, from two seeds on, the standard deviation (n - 1)."""
    row = {}
    for metric in METRICS:
        values = [summary[metric] for summary in summaries if metric in summary]
        if not values:
            continue
        row[metric] = mean = sum(values) / len(values)
        if len(values) > 1:
            row[f"{metric}_std"] = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return row


def _typed(line: dict[str, str]) -> Row:
    row: Row = {"name": line["name"]}
    for key in ("dice", "iou"):
        if line.get(key):
            row[key] = float(line[key])
    for key in ("label", "prediction"):
        if line.get(key):
            row[key] = int(line[key])
    return row


def print_comparison(table: Sequence[dict[str, Any]], baseline: str) -> None:
    """Prints a Markdown table in per cent."""
    header = [
        "group",
        "weights",
        "seeds",
        *METRICS.values(),
        *(f"{title} - {baseline} [95 %]" for title in PAIRED.values()),
    ]
    lines = []
    for row in table:
        means = [_percent(row.get(metric), row.get(f"{metric}_std")) for metric in METRICS]
        differences = [
            _interval(*(row.get(f"{metric}_{key}") for key in ("difference", "low", "high"))) for metric in PAIRED
        ]
        lines.append([row["group"], row["weights"], str(row["seeds"]), *means, *differences])
    print_table(header, lines)
    print("\nIn per cent: mean ± standard deviation over seeds; paired difference with a 95 % interval over images.")


def _percent(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}" + (f" ± {100 * deviation:.1f}" if deviation is not None else "")


def _interval(mean: float | None, low: float | None, high: float | None) -> str:
    if mean is None or low is None or high is None:
        return "-"
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the comparison and returns the exit code: 0, or 2 for runs that cannot be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("groups", nargs="+", metavar="RUN", help="a run's folder, or NAME=RUN,RUN,... (its seeds)")
    parser.add_argument("--baseline", help="name of the group to compare with (default: the first one)")
    parser.add_argument("--csv", type=Path, help="also write the table, unrounded, to this file")
    options = parser.parse_args(arguments)
    return run_main(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    groups = read_groups(options.groups)
    baseline = options.baseline or next(iter(groups))
    if baseline not in groups:
        raise RecipeError(f"--baseline {baseline!r} is none of the groups {', '.join(groups)}")
    table = compare(groups, baseline)
    print_comparison(table, baseline)
    if options.csv:
        write_table(options.csv, table)


if __name__ == "__main__":
    sys.exit(main())
