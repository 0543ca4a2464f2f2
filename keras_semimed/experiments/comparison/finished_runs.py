"""Reads what finished runs left, and pairs them, for `semimed compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_semimed.evaluation.images import Row, read_rows
from keras_semimed.experiments.console import RecipeError
from keras_semimed.files import check_digests, read_sealed


class Run(NamedTuple):
    """What a finished run left: its data, seed and split, its rows by kind of weights, and what it was."""

    path: Path
    data: str | None
    labels: int | float | None
    seed: int
    split_hash: str
    scored: str
    rows: dict[str, list[Row]]
    method: str | None = None
    steps: int | None = None
    oracle: bool = False


Groups = dict[str, list[Run]]


def read_run(path: Path) -> Run:
    """Reads the output folder of a recipe.

    Raises:
        RecipeError: If it is none, or the run is not finished.
    """
    try:
        config = read_sealed(path / "config.json", sealed=False)
        seed, split = _entry(config, "configuration", "seed"), _entry(config, "split")
        if "result" not in config:
            raise RecipeError(f"{path} is not finished; go on with --resume, then compare")
        check_digests(path, config.get("files", {}), ["images.csv"])
        flags, rows = config["configuration"], _rows_by_weights(path / "images.csv")
        return Run(
            path,
            flags.get("data"),
            flags.get("labeled"),
            seed,
            _entry(split, "hash"),
            _entry(split, "scored"),
            rows,
            flags.get("method"),
            flags.get("steps"),
            flags.get("pseudo_labels_from") == "truth",
        )
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} is not the output folder of a run ({error})") from error


def _entry(content: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            raise ValueError(f"its config.json has no {key!r}")
        content = content[key]
    return content


def _rows_by_weights(path: Path) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    for row in read_rows(path):
        for column in ("name", "weights"):
            if column not in row:
                raise ValueError(f"its images.csv has rows without {column!r}")
        rows.setdefault(str(row["weights"]), []).append(row)
    if not rows:
        raise ValueError("its images.csv has no rows")
    return rows


def read_groups(folders: Mapping[str, Sequence[Path]]) -> Groups:
    """Reads the runs of each group.

    Raises:
        RecipeError: If a folder holds no finished run, or two runs of a group have one seed.
    """
    groups: Groups = {}
    for name, paths in folders.items():
        runs = [read_run(path) for path in paths]
        for run in runs:
            twin = next(other for other in runs if other.seed == run.seed)
            if twin is not run:
                raise RecipeError(f"{twin.path} and {run.path} in group {name!r} both have seed {run.seed}")
        groups[name] = runs
    return groups


def pair_runs(runs: Sequence[Run], baseline: Sequence[Run], name: str, baseline_name: str) -> list[tuple[Run, Run]]:
    """Pairs the runs with the baseline's of the same seeds, as far as both have them.

    Raises:
        RecipeError: If they have no seed in common, or two of one seed have other splits or scored other parts.
    """
    by_seed = {run.seed: run for run in baseline}
    pairs = [(run, by_seed[run.seed]) for run in runs if run.seed in by_seed]
    if not pairs:
        raise RecipeError(
            f"{name!r} has the seeds {sorted(run.seed for run in runs)} and {baseline_name!r} {sorted(by_seed)}; "
            "compare runs with at least one seed in common"
        )
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
