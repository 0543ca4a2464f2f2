"""Compares finished runs on the same images: means over seeds, and paired differences with 95 % intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_semimed.evaluation.compare import paired_p_values, paired_scores
from keras_semimed.evaluation.groups import clusters_of, parts_of
from keras_semimed.evaluation.images import Row
from keras_semimed.evaluation.masks import NSD
from keras_semimed.evaluation.published_results import PAPERS, published_results
from keras_semimed.evaluation.sizes import Size, measured_in_mm, size_in_words
from keras_semimed.evaluation.summary import summarize
from keras_semimed.evaluation.tables import titles
from keras_semimed.experiments.command_line.bundles import DATA_SETS
from keras_semimed.experiments.comparison.comparison_tables import as_latex, as_markdown, comparison_sections
from keras_semimed.experiments.comparison.finished_runs import Groups, Run, at_size, common_size, pair_runs, read_groups
from keras_semimed.experiments.comparison.headroom import headroom
from keras_semimed.experiments.console import RecipeError, input_errors
from keras_semimed.files import whole_file, write_table
from keras_semimed.text import one_line, shortened

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
FEWEST_IN_PART = 2
"""Images that a part of them needs for differences of its own."""


def parse_groups(arguments: Sequence[str]) -> dict[str, list[Path]]:
    """Takes `RUN` and `NAME=RUN,RUN,...` apart: folders by the name of their group.

    Raises:
        RecipeError: If two groups have one name, or one has no run.
    """
    folders: dict[str, list[Path]] = {}
    for argument in arguments:
        name, separator, paths = argument.rpartition("=")
        words = paths.split(",") if separator else [argument]
        if "" in words:
            raise RecipeError(f"{argument!r} lacks a run's folder; write a folder, or NAME=RUN,RUN,...")
        runs = [Path(word) for word in words]
        name = name or runs[0].resolve().name
        if one_line(name) != name:
            raise RecipeError(f"the group {shortened(name)} holds control characters; name it otherwise")
        if name in folders:
            raise RecipeError(f"two groups are called {name!r}; name them: NAME=RUN,RUN,...")
        folders[name] = runs
    return folders


def compare_folders(
    folders: Mapping[str, Sequence[Path]],
    baseline: str | None = None,
    published: str | None = None,
    published_table: str | None = None,
    files: Mapping[str, Path] | None = None,
    require_pairs: bool = True,
    size: Size | None = None,
) -> list[dict[str, Any]]:
    """Compares the runs in folders, prints the tables and writes them to files.

    Args:
        folders: Output folders of runs by the name of their group.
        baseline: Name of the group that the others are compared with; None takes the first one.
        published: Paper whose rows to show beside.
        published_table: Its table, such as `"Table 3"`; None takes what fits the data of the runs.
        files: Files to write by `"csv"`, `"markdown"` and `"latex"`.
        require_pairs: See `compare`.
        size: At which masks were compared, `"network"` or `"own"`; None takes the images' own where all runs have it.

    Returns:
        The rows of the tables: what `compare` returns, with the size at which masks were compared, and published rows.

    Raises:
        RecipeError: If the runs cannot be compared or a file not be written.
    """
    files = files or {}
    for kind, path in files.items():
        if path.is_dir() or not path.parent.is_dir():
            wrong = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise RecipeError(f"--{kind} {path} cannot be written: {wrong}; give a file in a folder that is there")
    groups = read_groups(folders)
    baseline = baseline or next(iter(groups))
    if baseline not in groups:
        raise RecipeError(f"--baseline {baseline!r} is none of the groups {', '.join(groups)}")
    size = size or common_size(groups)
    groups = at_size(groups, size)
    table = compare(groups, baseline, require_pairs)
    masks = any("dice" in row for row in table)
    words = size_in_words(size, (run.image_size for runs in groups.values() for run in runs)) if masks else ""
    table = [{**row, "size": size} if masks else row for row in table]
    if published:
        table += published_rows(published, [run for group in groups.values() for run in group], published_table)
    sections = comparison_sections(table, baseline, SHOWN, words)
    texts = {"markdown": as_markdown(sections), "latex": as_latex(sections)}
    print(texts["markdown"])
    for sentence in headroom(groups):
        print(f"\n{sentence}")
    with input_errors():
        for kind, path in files.items():
            if kind == "csv":
                write_table(path, [line for row in table for line in _csv_lines(row)])
            else:
                with whole_file(path) as temporary:
                    temporary.write_text(texts[kind] + "\n", encoding="utf-8")
    return table


def _csv_lines(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A row with its notes as one text, and one line more for each part of the images, called as in a run's result."""
    row = dict(row)
    parts = row.pop("parts", {})
    if "notes" in row:
        row["notes"] = "; ".join(row["notes"])
    same = {key: row[key] for key in ("group", "size", "paired_seeds") if key in row}
    return [row, *({**same, "weights": f"{row['weights']}, {part}", **found} for part, found in parts.items())]


def compare(groups: Groups, baseline: str, require_pairs: bool = True) -> list[dict[str, Any]]:
    """One row a group and kind of weights: mean and standard deviation over seeds, paired differences.

    Args:
        groups: Runs by group.
        baseline: Name of the group that the others are compared with.
        require_pairs: Refuse runs that cannot be paired with the baseline's; False shows their means, with a note.

    Returns:
        Dicts with `group`, `weights`, `seeds` (how many have such weights) and the scores of `summarize`, `dice`,
        `dice_std` (over seeds), ...; `notes`, if there are any; and for groups other than the baseline
        `paired_seeds`, `paired_images`, `dice_difference`, `dice_low`, `dice_high`, `dice_p`, ..., over the seeds that
        both have, where the baseline has the same kind of weights. `paired_groups` where a group, such as a patient,
        has several of the images. `parts`, where their rows say what images have in common: the same by the title of
        each part of the images, such as `benign`, without p-values.

    Raises:
        RecipeError: If runs to be paired have no seed in common, or differ in split or scored part.
    """
    table = []
    for name, runs in groups.items():
        pairs, unpaired = [], []
        try:
            pairs = [] if name == baseline else pair_runs(runs, groups[baseline], name, baseline)
        except RecipeError as error:
            if require_pairs:
                raise
            unpaired = [f"no differences: {error}"]
        for weights in sorted({weights for run in runs for weights in run.rows}):
            scored = [run for run in runs if weights in run.rows]
            row: dict[str, Any] = {"group": name, "weights": weights, "seeds": len(scored)}
            notes = list(unpaired)
            if len(scored) < len(runs):
                notes.append(f"of {name}, only these seeds have the weights {weights!r}: {_seeds(scored)}")
            summaries = [summarize(run.rows[weights], intervals=False) for run in scored]
            notes += filter(None, dict.fromkeys(map(measured_in_mm, summaries)))
            if notes:
                row["notes"] = notes
            row |= _over_seeds(summaries)
            both = [(run, other) for run, other in pairs if weights in run.rows and weights in other.rows]
            if both:
                row["paired_seeds"] = _seeds([run for run, _ in both])
                tables = [(run.rows[weights], other.rows[weights]) for run, other in both]
                row |= _differences(tables)
                if parts := _part_differences(tables):
                    row["parts"] = parts
            table.append(row)
    return table


def published_rows(paper: str, runs: Sequence[Run], only: str | None = None) -> list[dict[str, Any]]:
    """What a paper reports on the data of the runs, with as many labels where it has them.

    On data that it does not have, such as phantoms, all of its rows; of the table `only`, all rows whatever the data.
    """
    parts = {name: data_set.parts or (name,) for name, data_set in DATA_SETS.items()}
    data = sorted({name for run in runs if run.data for name in parts.get(run.data, (run.data,))})
    rows = [row for row in published_results(paper) if only in (None, row["table"])]
    if only is None:
        of_data = [row for row in rows if row["data"] in data]
        rows = [row for row in of_data if row["labels"] in {run.labels for run in runs}] or of_data or rows
    table = []
    for row in rows:
        source = f"{row['method']} ({PAPERS[paper]}, {row['table']}: {row['data']}, {row['labels']:g} labelled)"
        notes = row["notes"]
        if row["data"] not in data:
            notes = [*notes, f"on other data than the runs ({', '.join(data) or 'not named'})"]
        scores = {key: value for key, value in row.items() if key not in ("table", "data", "labels", "method", "notes")}
        table.append({"group": source, "weights": "published", **scores, "notes": notes})
    return table


def _seeds(runs: Sequence[Run]) -> str:
    return ", ".join(str(run.seed) for run in runs)


def _differences(pairs: Sequence[tuple[list[Row], list[Row]]], tested: bool = True) -> dict[str, float]:
    for pair in pairs:
        mine, other = map(_names, pair)
        if mine != other:
            raise RecipeError(
                f"image {min(mine ^ other)!r} is in the images.csv of one run only; run the other one again"
            )
    clusters = clusters_of(row for pair in pairs for rows in pair for row in rows)
    found: dict[str, float] = {"paired_images": len(clusters)}
    if (groups := len(set(clusters.values()))) < len(clusters):
        found["paired_groups"] = groups
    p_values = paired_p_values(pairs) if tested else {}
    for metric, (mean, low, high) in paired_scores(pairs).items():
        found[f"{metric}_difference"] = mean
        if not math.isnan(low):
            found |= {f"{metric}_low": low, f"{metric}_high": high}
        if metric in p_values:
            found[f"{metric}_p"] = p_values[metric]
    return found


def _part_differences(pairs: Sequence[tuple[list[Row], list[Row]]]) -> dict[str, dict[str, float]]:
    """Differences by the title of each part of the images that all runs know, with the same images and enough."""
    parts = [(parts_of(rows), parts_of(others)) for rows, others in pairs]
    found = {}
    for title in parts[0][0]:
        same = [(mine.get(title, []), other.get(title, [])) for mine, other in parts]
        if all(len(rows) >= FEWEST_IN_PART and _names(rows) == _names(others) for rows, others in same):
            found[title] = _differences(same, tested=False)
    return found


def _names(rows: Sequence[Row]) -> set[str]:
    return {row["name"] for row in rows}


def _over_seeds(summaries: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean over seeds and, from two seeds on, the standard deviation (n - 1)."""
    row: dict[str, float] = {}
    for metric in titles(dict.fromkeys(key for summary in summaries for key in summary)):
        values = [summary[metric] for summary in summaries if metric in summary]
        row[metric] = statistics.fmean(values)
        if len(values) > 1:
            row[f"{metric}_std"] = statistics.stdev(values)
    return row
