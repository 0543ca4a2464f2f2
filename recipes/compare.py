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
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_semimed.evaluation.compare import paired_scores
from keras_semimed.evaluation.files import whole_file, write_table
from keras_semimed.evaluation.images import Row, read_rows
from keras_semimed.evaluation.masks import NSD
from keras_semimed.evaluation.published_results import PAPERS, published_results
from keras_semimed.evaluation.summary import summarize
from keras_semimed.evaluation.tables import titles
from recipes.comparison_tables import as_latex, as_markdown, comparison_sections
from recipes.console import RecipeError, run_main

SHOWN = (
    "dice",
    "miou_with_background",
    "miou_foreground",
    NSD,
    "nsd",
    "missed_rate",
    "accuracy",
    "balanced_accuracy",
    "auroc",
)
"""Scores in the printed table; the CSV file has all of them."""
DATA_SETS = {"polyp": ("kvasir_seg", "cvc_clinicdb")}
"""What the data sets of a recipe are called in the papers' tables, if otherwise."""


class Run(NamedTuple):
    """What a finished run left: its data, its seed, its split and its rows by kind of weights."""

    path: Path
    data: str | None
    labels: int | float | None
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
        table = read_rows(path / "images.csv")
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} is not the output folder of a run ({error})") from error
    rows: dict[str, list[Row]] = {}
    for line in table:
        rows.setdefault(line["weights"], []).append(line)
    flags, split = config["configuration"], config["split"]
    return Run(path, flags.get("data"), flags.get("labeled"), flags["seed"], split["hash"], split["scored"], rows)


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
        Dicts with `group`, `weights`, `seeds` and the scores of `summarize`, `dice`, `dice_std` (over seeds), ...;
        `dice_difference`, `dice_low`, `dice_high`, ... for groups other than the baseline, where that has the same kind
        of weights.

    Raises:
        RecipeError: If runs to be paired differ in seed, split or scored part.
    """
    table = []
    for name, runs in groups.items():
        pairs = [] if name == baseline else pair_runs(runs, groups[baseline], name, baseline)
        for weights in sorted(set.intersection(*(set(run.rows) for run in runs))):
            row: dict[str, Any] = {"group": name, "weights": weights, "seeds": len(runs)}
            row |= _over_seeds([summarize(run.rows[weights], samples=0) for run in runs])
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


def published_rows(paper: str, runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[str]]:
    """What a paper reports on the data of the runs, with as many labels where it has them, and notes on it.

    On data that it does not have, such as phantoms, all of its rows.
    """
    rows = published_results(paper)
    data = {name for run in runs for name in DATA_SETS.get(run.data or "", (run.data,))}
    of_data = [row for row in rows if row["data"] in data]
    rows = [row for row in of_data if row["labels"] in {run.labels for run in runs}] or of_data or rows
    table, notes = [], []
    for row in rows:
        source = f"{row['method']} ({PAPERS[paper]}, {row['table']}: {row['data']}, {row['labels']:g} labelled)"
        notes += [f"{source}: {note}." for note in row["notes"]]
        scores = {key: value for key, value in row.items() if key not in ("table", "data", "labels", "method", "notes")}
        table.append({"group": source, "weights": "published", **scores, "notes": "; ".join(row["notes"])})
    return table, list(dict.fromkeys(notes))


def _differences(pairs: Sequence[tuple[list[Row], list[Row]]]) -> dict[str, float]:
    for pair in pairs:
        mine, other = ({row["name"] for row in rows} for rows in pair)
        if mine != other:
            raise RecipeError(
                f"image {min(mine ^ other)!r} is in the images.csv of one run only; run the other one again"
            )
    return {
        f"{metric}_{name}": value
        for metric, found in paired_scores(pairs).items()
        for name, value in zip(("difference", "low", "high"), found, strict=True)
    }


def _over_seeds(summaries: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean over seeds and, from two seeds on, the standard deviation (n - 1)."""
    row: dict[str, float] = {}
    for metric in titles(dict.fromkeys(key for summary in summaries for key in summary)):
        values = [summary[metric] for summary in summaries if metric in summary]
        row[metric] = statistics.fmean(values)
        if len(values) > 1:
            row[f"{metric}_std"] = statistics.stdev(values)
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the comparison and returns the exit code: 0, or 2 for runs that cannot be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("groups", nargs="+", metavar="RUN", help="a run's folder, or NAME=RUN,RUN,... (its seeds)")
    parser.add_argument("--baseline", help="name of the group to compare with (default: the first one)")
    parser.add_argument("--published", choices=PAPERS, help="also show what this paper reports on the same data")
    parser.add_argument("--csv", type=Path, help="also write all scores, unrounded, to this file")
    parser.add_argument("--markdown", type=Path, help="also write the printed tables to this file")
    parser.add_argument("--latex", type=Path, help="also write the printed tables to this file, for booktabs")
    options = parser.parse_args(arguments)
    return run_main(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    groups = read_groups(options.groups)
    baseline = options.baseline or next(iter(groups))
    if baseline not in groups:
        raise RecipeError(f"--baseline {baseline!r} is none of the groups {', '.join(groups)}")
    table = compare(groups, baseline)
    notes: list[str] = []
    if options.published:
        runs = [run for group in groups.values() for run in group]
        rows, notes = published_rows(options.published, runs)
        table += rows
    sections = comparison_sections(table, baseline, SHOWN, notes)
    text = as_markdown(sections)
    print(text)
    if options.csv:
        write_table(options.csv, table)
    for path, content in ((options.markdown, text), (options.latex, as_latex(sections))):
        if path:
            with whole_file(path) as temporary:
                temporary.write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
