"""Reads what finished runs left, and pairs them, for `semimed compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from keras_semimed.evaluation.images import Row, read_rows
from keras_semimed.evaluation.sizes import RESULTS, TABLES, Size
from keras_semimed.experiments.console import RecipeError
from keras_semimed.files import check_digests, read_sealed


class Run(NamedTuple):
    """What a finished run left: its data, seed and split, its rows by kind of weights, and what it was.

    Its rows are at the network's size. `own_rows` are those at the images' own size; empty where it has none.
    """

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
    image_size: int | None = None
    own_rows: Mapping[str, list[Row]] = MappingProxyType({})


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
        check_digests(path, config.get("files", {}), list(TABLES.values()))
        flags, rows = config["configuration"], _rows_by_weights(path / TABLES["network"])
        own = path / TABLES["own"]
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
            flags.get("image_size"),
            _rows_by_weights(own) if RESULTS["own"] in config and own.exists() else {},
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
                raise ValueError(f"its {path.name} has rows without {column!r}")
        rows.setdefault(str(row["weights"]), []).append(row)
    if not rows:
        raise ValueError(f"its {path.name} has no rows")
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


def common_size(groups: Groups) -> Size:
    """The images' own size where all runs have all of their weights scored there, else the network's."""
    runs = [run for group in groups.values() for run in group]
    return "own" if all(run.own_rows.keys() == run.rows.keys() for run in runs) else "network"


def at_size(groups: Groups, size: Size) -> Groups:
    """The same runs, with the rows of a size in `rows`.

    Raises:
        RecipeError: If a run has none at the images' own size.
    """
    if size == "network":
        return groups
    for run in (run for group in groups.values() for run in group):
        if not run.own_rows:
            raise RecipeError(
                f"--size own: {run.path} has no {TABLES['own']}, as older runs and those on arrays and packed files; "
                "compare with --size network"
            )
    return {name: [run._replace(rows=dict(run.own_rows)) for run in runs] for name, runs in groups.items()}


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
