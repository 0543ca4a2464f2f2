"""Runs a table of one of the papers, or a grid of your own, over seeds, and ends in the comparison table.

    semimed sweep hermes_table_3 --seeds 0 1 2 --output runs/table_3 -- --manual-dir Dataset_BUSI_with_GT
    semimed sweep hermes --grid alpha=0.2,0.8 selection=dual,none --output runs/grid -- --demo
    semimed sweep list

What follows `--` goes to every run. Each run is a process and a folder of its own, OUTPUT/ROW/SEED; finished ones are
not repeated and an interrupted one goes on, so the same command continues a sweep that was stopped. The table compares
every row with the first one (`semimed compare`), shows the published rows of a paper's table beside them, and is also
written to OUTPUT/table.md, OUTPUT/table.csv and OUTPUT/table.tex.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_semimed.experiments.command_line.bundles import RUNGS
from keras_semimed.experiments.command_line.settings import PLACES
from keras_semimed.experiments.console import GO_ON, RecipeError, input_errors, run_main
from keras_semimed.experiments.termination import Termination, run_child
from keras_semimed.files import read_sealed, write_json
from keras_semimed.parsing import command_parser
from keras_semimed.text import one_line, shortened

Flags = tuple[str, ...]
RECORD = "sweep.json"
MOVED = tuple(f"--{name.replace('_', '-')}" for name in PLACES)
"""Flags that may differ when a sweep goes on."""
OWN = {
    "--seed": "name the seeds with the sweep's --seeds",
    "--output": "name the folder with the sweep's --output, before `--`",
    "--resume": "leave it out: the same command always goes on with a sweep",
}
"""Flags that a sweep sets for each run, and what to do instead of giving them."""
FILES = {"csv": "table.csv", "markdown": "table.md", "latex": "table.tex"}

# Table 3 of the Hermes paper: DTCL is the whole unlabelled part, SM/ITA the exchange, ITCL the consistency.
_NO_DTCL = ("--unlabeled-weight", "0", "--alpha", "0", "--beta", "0")
_NO_EXCHANGE = ("--exchange", "none")
_NO_ITCL = ("--gamma", "0")
_SINGLE = {"segmentation": ("--tasks", "segmentation"), "classification": ("--tasks", "classification")}


def _one_flag(flag: str, values: Sequence[object], common: Flags = ()) -> dict[str, Flags]:
    return {f"{flag}_{value}": (f"--{flag}", str(value), *common) for value in values}


def _table_3() -> dict[str, Flags]:
    rows = {
        "1": (*_NO_DTCL, *_NO_EXCHANGE, *_NO_ITCL),
        "2_dtcl": (*_NO_EXCHANGE, *_NO_ITCL),
        "3_exchange": (*_NO_DTCL, *_NO_ITCL),
        "4_exchange_itcl": _NO_DTCL,
        "5_dtcl_exchange": _NO_ITCL,
        "6_all": (),
    }
    for row in ("1", "2_dtcl"):
        rows |= {f"{row}_{task}": (*rows[row], *flags) for task, flags in _SINGLE.items()}
    return rows


class Table(NamedTuple):
    """A table or figure of a paper: its recipe, what it is about, flags by row, and which published rows to show."""

    recipe: str
    text: str
    rows: dict[str, Flags]
    published: tuple[str, str] | None = None


_144 = ("--labeled", "144")
TABLES = {
    "hermes_table_3": Table("hermes_busi", "components, 72 labels", _table_3(), ("hermes", "Table 3")),
    "hermes_table_4": Table(
        "hermes_busi",
        "learning rate, 72 labels",
        _one_flag("learning-rate", ("8e-5", "9e-5", "1e-4", "2e-4", "3e-4")),
        ("hermes", "Table 4"),
    ),
    "hermes_table_5": Table(
        "hermes_busi",
        "level of the pixel contrast, 144 labels",
        _one_flag("contrast-level", ("P2", "P3", "P4", "P5"), _144),
        ("hermes", "Table 5"),
    ),
    "hermes_table_6": Table(
        "hermes_busi",
        "level that the saliency map enters, 144 labels",
        _one_flag("saliency-level", ("P4", "P3", "P2", "P1"), _144),
        ("hermes", "Table 6"),
    ),
    "hermes_fig_5": Table(
        "hermes_busi",
        "weights of the branches, 72 labels",
        {
            **_one_flag("lambda-cls", (0.5, 1.0, 1.5, 2.0)),
            **_one_flag("lambda-seg", (0.5, 1.0, 1.5, 2.0)),
        },
    ),
    # The values on the axes of Fig. 8 and 9 are not in the text; these hold those that it names.
    "hermes_fig_8": Table(
        "hermes_busi", "weight alpha, 144 labels", _one_flag("alpha", (0.2, 0.4, 0.6, 0.8, 1.0), _144)
    ),
    "hermes_fig_9": Table("hermes_busi", "weight beta, 144 labels", _one_flag("beta", (0.1, 0.2, 0.4, 0.6, 0.8), _144)),
    "loco_table_4": Table(
        "loco_kvasir",
        "rungs M1 to M7, on Kvasir-SEG; the paper's Table IV is on its private FAHSYU-LC",
        {rung: ("--rung", rung) for rung in RUNGS},
        ("loco", "Table IV"),
    ),
}
RECIPES = {
    "hermes": "hermes_busi",
    "hermes_udiat": "hermes_udiat",
    "loco": "loco_kvasir",
    "loco_cvc": "loco_cvc",
    "loco_polyp": "loco_polyp",
    "train": "train",
}


def grid_rows(grid: Sequence[str]) -> dict[str, Flags]:
    """Turns `["alpha=0.2,0.8", "selection=dual,none"]` into a row for each combination.

    Raises:
        RecipeError: If an entry has another form, or one flag stands there twice.
    """
    axes: dict[str, list[str]] = {}
    for entry in grid:
        name, equals, values = entry.partition("=")
        name = name.strip("-").replace("_", "-")
        if not equals or not name or not all(values.split(",")):
            raise RecipeError(f"--grid {shortened(entry)}: expected FLAG=VALUE,VALUE,...")
        if one_line(entry) != entry or ".." in entry.replace("=", "/").replace(",", "/").split("/"):
            raise RecipeError(f"--grid {shortened(entry)}: no folder of --output can be called so; write it otherwise")
        if name in axes:
            raise RecipeError(f"--grid names {name} twice; list all its values once")
        axes[name] = values.split(",")
    rows = {}
    for chosen in itertools.product(*axes.values()):
        pairs = list(zip(axes, chosen, strict=True))
        rows["_".join(f"{name}-{value}" for name, value in pairs)] = tuple(
            part for name, value in pairs for part in (f"--{name}", value)
        )
    return rows


def run_rows(
    recipe: str, rows: Mapping[str, Flags], seeds: Sequence[int], output: Path, common: Flags
) -> dict[str, list[Path]]:
    """Runs what is not finished, seed by seed, and returns the runs' folders by row.

    Raises:
        RecipeError: If a run fails; what is finished stays. Before any run: if a seed stands there twice, finished runs
            of a row were made with other flags, or what is in `output` cannot be read.
        KeyboardInterrupt: If it came, `Terminated` by SIGTERM; the run that it came to has saved and ended.
    """
    twice = [seed for seed, count in Counter(seeds).items() if count > 1]
    if twice:
        raise RecipeError(f"the seed {twice[0]} stands there twice; give each seed once")
    if strange := [seed for seed in seeds if not 0 <= seed < 2**32]:
        raise RecipeError(f"--seeds must be within 0 and 2^32 - 1, found {strange[0]}")
    with input_errors():
        made = _same_flags(recipe, rows, output, common)
        todo = [(seed, row) for seed in seeds for row in rows]
        finished = {(seed, row) for seed, row in todo if _finished(output / row / str(seed))}
        output.mkdir(parents=True, exist_ok=True)
    for number, (seed, row) in enumerate(todo, start=1):
        folder = output / row / str(seed)
        if (seed, row) in finished:
            continue
        print(f"run {number} of {len(todo)}: {row}, seed {seed}", flush=True)
        own = ("--seed", str(seed), "--output", str(folder), "--resume")
        command = [sys.executable, "-m", "keras_semimed.experiments", recipe, *common, *rows[row], *own]
        code = None
        try:
            code = run_child(command)
        finally:
            if code == 0 or (folder / "images.csv").exists():  # it is done, even where SIGTERM came at its end
                write_json(output / RECORD, made := {**made, row: _flags(recipe, common, rows[row])})
        if code:
            raise RecipeError(f"{row}, seed {seed} ended with exit code {code}; mend it and start the sweep again")
    return {row: [output / row / str(seed) for seed in seeds] for row in rows}


def _same_flags(recipe: str, rows: Mapping[str, Flags], output: Path, common: Flags) -> dict[str, list[str]]:
    """The flags that finished runs were made with, by row; refuses to mix them with others."""
    record = output / RECORD
    made = read_sealed(record, sealed=False) if record.exists() else {}
    if not all(isinstance(flags, list) for flags in made.values()):
        raise ValueError(f"{record} is not the record of a sweep: flags by row are expected")
    for row in rows:
        now = _flags(recipe, common, rows[row])
        if made.get(row, now) != now:
            raise RecipeError(
                f"{output} holds runs of {row} made with {' '.join(made[row])!r}, now it is {' '.join(now)!r}; give "
                "another --output, or the same flags in the same order"
            )
    return made


def _flags(recipe: str, common: Flags, own: Flags) -> list[str]:
    """What decides about a run: where the data lie does not."""
    given, kept = iter((*common, *own)), [recipe]
    for flag in given:
        if flag in MOVED:
            next(given, None)
        elif flag.partition("=")[0] not in MOVED:
            kept.append(flag)
    return kept


def _finished(folder: Path) -> bool:
    config = folder / "config.json"
    return config.exists() and "result" in read_sealed(config, sealed=False)


def _refuse_own(flags: Flags) -> None:
    """Refuses flags that the sweep sets, also where they are shortened, as the recipes' parsers allow."""
    for flag in flags:
        name = flag.partition("=")[0]
        for own, remedy in OWN.items():
            if len(name) > len("--") and own.startswith(name):
                raise RecipeError(f"{own} belongs to the sweep, neither in --grid nor after `--`; {remedy}")


def main(arguments: Sequence[str] | None = None, prog: str = "semimed sweep") -> int:
    """Runs the command and returns the exit code: 0, 2 for bad input or a failed run, 130 or 143 when interrupted."""
    parser = command_parser(prog, "semimed sweep", __doc__)
    parser.add_argument("table", help="a table of a paper, a recipe (with --grid), or list", metavar="TABLE")
    parser.add_argument("--grid", nargs="+", metavar="FLAG=V,V", help="flags of the recipe with their values")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="seeds (default: 0)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these rows of the table")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the sweep (default: runs/TABLE)")
    own, common = _cut(list(sys.argv[1:] if arguments is None else arguments))
    options = parser.parse_args(own)
    if options.table == "list":
        for name, table in TABLES.items():
            print(f"{name:16s} {table.recipe:12s} {table.text}: {', '.join(table.rows)}")
        return 0
    with Termination().watched():
        return run_main(lambda: _run(options, tuple(common)), GO_ON)


def _cut(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The sweep's own arguments and those behind `--`."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def _run(options: argparse.Namespace, common: Flags) -> None:
    if options.grid:
        if options.table not in RECIPES:
            raise RecipeError(f"{options.table!r} is no recipe for --grid; choose among {', '.join(RECIPES)}")
        table = Table(RECIPES[options.table], "grid", grid_rows(options.grid))
    elif options.table in TABLES:
        table = TABLES[options.table]
    else:
        raise RecipeError(f"{options.table!r} is no table; choose among {', '.join(TABLES)}, or a recipe with --grid")
    unknown = [row for row in options.rows or () if row not in table.rows]
    if unknown:
        raise RecipeError(f"--rows {unknown[0]!r} is no row; choose among {', '.join(table.rows)}")
    rows = {row: flags for row, flags in table.rows.items() if not options.rows or row in options.rows}
    _refuse_own((*common, *(flag for flags in rows.values() for flag in flags[::2])))
    output = options.output or Path("runs") / options.table
    folders = run_rows(table.recipe, rows, options.seeds, output, common)
    paper, published = table.published or (None, None)
    files = {kind: output / name for kind, name in FILES.items()}
    # Imported late: Keras comes with it, for which help and typing errors should not wait.
    from keras_semimed.experiments.comparison import compare

    # A grid over flags such as `labeled` gives each row a split of its own: means then, without differences.
    compare.compare_folders(folders, published=paper, published_table=published, files=files, require_pairs=False)


if __name__ == "__main__":
    sys.exit(main())
