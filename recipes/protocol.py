"""Runs and tabulates the experiments of docs/protocol.md, draw by draw; a draw that is there is not run again.

    python -m recipes.protocol S --manual-dir Dataset_BUSI_with_GT --test-on-dir BUSBRA --weights resnet18.npz
    python -m recipes.protocol S --draws 200 201 --weights resnet18.npz --manual-dir Dataset_BUSI_with_GT ...
    python -m recipes.protocol S --table
    python -m recipes.protocol S --table --page docs/hermes.md
    python -m recipes.protocol S_224 --minutes 25 --manual-dir busi_224.npz --test-on-dir bus_bra_224.npz ...

A draw is one choice of labelled images: a first training that all of its arms start from, then the arms. What is left
of each run (config.json, metrics.csv, images.csv.gz) goes to docs/measurements/TABLE/DRAW/ARM once all arms of the draw
are done. The same command goes on where it was stopped, within a run too; with --minutes it stops by itself, with exit
code 75 while there is something left to do. --trial runs a hundredth of all steps and keeps nothing.
"""

from __future__ import annotations

import contextlib
import io
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from keras_semimed.experiments.console import GO_ON, RecipeError, input_errors, naming_flags, print_table, run_main
from keras_semimed.experiments.runs.commits import source_commit
from keras_semimed.experiments.termination import Termination, run_child
from keras_semimed.files import whole_file
from keras_semimed.parsing import command_parser
from recipes.packed_tables import pack_table, packed_table
from recipes.protocol_plan import FIRST, TABLES

MEASUREMENTS = Path("docs/measurements")
KEPT = ("config.json", "metrics.csv")
SCORES = "images.csv"
COSTS = "steps.json"
"""What `benchmarks.protocol_steps` measured."""
TRIAL = 100
"""What a trial divides all numbers of steps by."""
UNFINISHED = 75
"""Exit code where time was up; EX_TEMPFAIL of sysexits.h."""


def split_path(table: str, draw: int, output: Path = MEASUREMENTS) -> Path:
    """Where the split of a draw lies."""
    return output / "splits" / f"{TABLES[table].data}_{draw}.txt"


def write_splits(table: str, draws: Sequence[int], place: Path | None, data_dir: Path | None, output: Path) -> None:
    """Writes the splits of the draws that have none: one test part for all, labelled images by the draw's seed.

    Raises:
        RecipeError: If there are no images to be read.
    """
    missing = [draw for draw in draws if not split_path(table, draw, output).exists()]
    if not missing:
        return
    from keras_semimed.data import loading
    from keras_semimed.data.cards import card
    from keras_semimed.data.splits.parts import leak_safe_split, members_of, split_rest

    of = TABLES[table]
    words = of.common.split()
    size = int(words[words.index("--image-size") + 1])
    with naming_flags(of.data, "--manual-dir"):
        images = loading.load_image_set(of.data, size, place, data_dir, card(of.data).study_classes or None)
    labels = [0] * len(images) if images.labels is None else images.labels.tolist()
    groups = images.names if images.groups is None else images.groups
    seed, share = of.test
    test = set(leak_safe_split(images.names, labels, groups, seed, of.labeled, share).test)
    classes = dict(zip(images.names, labels, strict=True))
    for draw in missing:
        split = split_rest(members_of(images.names, groups).values(), classes, test, draw, of.labeled, 0.0, False)
        path = split_path(table, draw, output)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            split.save(temporary)


class TimeIsUp(Exception):
    """A run was stopped because its time was over; everything is saved."""


def shorter(flags: Sequence[str]) -> list[str]:
    """Flags of a trial: a hundredth of the steps."""
    words = list(flags)
    for place, word in enumerate(words):
        if word in ("--steps", "--epoch-steps", "--unlabeled-ramp"):
            words[place + 1] = str(max(int(words[place + 1]) // TRIAL, 1))
    return words


def run_until(command: Sequence[str], end: float | None) -> int:
    """Runs a command and returns its exit code; one that is not done by then is asked to save and stop.

    Args:
        command: Program and arguments.
        end: When, by `time.monotonic`; None: never.

    Raises:
        TimeIsUp: If it was stopped.
        KeyboardInterrupt: As `run_child` does.
    """
    try:
        return run_child(command, None if end is None else max(end - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        raise TimeIsUp from None


def run_draw(
    table: str,
    draw: int,
    places: Sequence[str],
    work: Path,
    output: Path,
    end: float | None = None,
    trial: bool = False,
) -> None:
    """Runs what a draw lacks, and keeps what is left of its runs when all are done.

    Args:
        table: A key of `TABLES`.
        draw: Its seed.
        places: Flags that say where data and weights lie.
        work: Folder of unfinished runs.
        output: Folder of what is kept.
        end: As in `run_until`.
        trial: A hundredth of all steps, of which nothing is kept.

    Raises:
        RecipeError: If a run fails; what it printed has gone to the terminal.
        TimeIsUp: If there was not enough of it.
    """
    kept = output / table / str(draw)
    of = TABLES[table]
    if not trial and all(packed_table(kept / arm / SCORES).exists() for arm in of.arms):
        print(f"{table} {draw} is done, {kept} holds it; another --output runs it again", flush=True)
        return
    folders = work / table / str(draw)
    common = ["--split-file", str(split_path(table, draw, output)), "--seed", str(draw), *of.common.split(), *places]
    for arm, flags in {FIRST: of.first, **of.arms}.items():
        start = [] if arm == FIRST else ["--start-from", str(folders / FIRST), "--weights", "none"]
        words = [*common, *start, *flags.split(), "--output", str(folders / arm), "--resume"]
        print(f"\n{table} {draw} {arm}", flush=True)
        command = [sys.executable, "-m", "recipes.train", of.data, *(shorter(words) if trial else words)]
        if code := run_until(command, end):
            raise RecipeError(f"{arm} of draw {draw} ended with exit code {code}; mend it, then {GO_ON}")
    if trial:
        return
    for arm in (FIRST, *of.arms):
        (kept / arm).mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copyfile(folders / arm / name, kept / arm / name)
        pack_table(folders / arm / SCORES, kept / arm / SCORES)
    shutil.rmtree(folders)


def print_tables(table: str, output: Path, everything: bool = False) -> None:
    """Scores and paired differences of the draws that are there.

    Args:
        table: A key of `TABLES`.
        output: Folder of what is kept.
        everything: All weights and scores, not only what decides.

    Raises:
        RecipeError: If there is none, or a file of one is damaged or does not belong to the others.
    """
    from keras_semimed.files import read_sealed
    from recipes.protocol_tables import (
        NEW_STATISTICS,
        asked,
        lengths,
        others,
        overview,
        read_draws,
        renewed,
        step_times,
        tables,
    )

    of = TABLES[table]
    done = [
        draw
        for draw in of.draws
        if all(packed_table(output / table / str(draw) / arm / SCORES).exists() for arm in of.arms)
    ]
    if not done:
        raise RecipeError(f"{output / table} holds no draw that is done")
    print(f"{of.question} {len(done)} of {len(of.draws)} draws")
    folders = [output / table / str(draw) for draw in done]
    costs = output / table / COSTS
    with input_errors():
        configs = [read_sealed(folder / arm / "config.json", sealed=False) for folder in folders for arm in of.arms]
        read, first = read_draws(folders, list(of.arms), FIRST, of.decided)
        times = step_times(costs, of.arms) if costs.exists() else None
    recorded = {config.get("commit") for config in configs}
    commits = {name and (source_commit(name) or name) for name in recorded}
    if len(commits) > 1:
        print(f"warning: the draws are of {len(commits)} commits: {', '.join(sorted(map(str, commits)))}")
    printed = overview(read, of.primary, of.decided, times) + asked(read, of.pairs, of.primary, of.decided)
    again = of.decided + NEW_STATISTICS
    if all(again in run for runs in read.values() for run in runs):
        printed += overview(read, of.primary, again) + asked(read, of.pairs, of.primary, again)
        printed += renewed(read, of.primary, of.decided)
    printed += others(read, of.primary, (of.decided, again))
    for title, header, rows in printed + (tables(read, of.primary) if everything else []):
        print(f"\n{title}\n")
        print_table(header, rows)
    for sentence in lengths(read, first, of.primary, of.decided):
        print(f"\n{sentence}")


def write_tables(table: str, output: Path, page: Path) -> None:
    """Puts what `print_tables` prints into a page, in the place of what stands between the marks of the table.

    Args:
        table: A key of `TABLES`.
        output: Folder of what is kept.
        page: Markdown, with the lines `<!-- table NAME -->` and `<!-- /table NAME -->`.

    Raises:
        RecipeError: If the page cannot be read or has no such lines.
    """
    with input_errors():
        text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- table {table} -->\n", f"<!-- /table {table} -->"
    if not 0 <= text.find(begin) < text.find(end):
        raise RecipeError(f"--page {page} has no lines {begin.strip()} and {end}")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        print_tables(table, output)
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    with whole_file(page) as temporary:
        temporary.write_text(f"{before}\n{printed.getvalue().strip()}\n\n{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the draws of a table, or prints it, and returns the exit code."""
    name = "python -m recipes.protocol"
    parser = command_parser(name, name, __doc__)
    questions = "; ".join(f"{key}: {of.question}" for key, of in TABLES.items())
    parser.add_argument("table", choices=tuple(TABLES), help=questions)
    parser.add_argument("--draws", nargs="+", type=int, help="only these draws (default: all)")
    parser.add_argument("--table", dest="show", action="store_true", help="run nothing, print what there is as tables")
    parser.add_argument("--page", type=Path, help="with --table: put them into this page, between the table's marks")
    parser.add_argument("--minutes", type=float, help="stop by then, with everything saved (default: when all is done)")
    parser.add_argument("--trial", action="store_true", help=f"run 1/{TRIAL} of all steps, keep nothing")
    parser.add_argument(
        "--all", action="store_true", help="with --table: all weights and scores, not only what decides"
    )
    parser.add_argument("--manual-dir", type=Path, help="where the images lie, or a file of recipes.pack")
    parser.add_argument("--test-on-dir", type=Path, help="the same of BUS-BRA")
    parser.add_argument("--data-dir", type=Path, help="where TFDS keeps prepared data")
    parser.add_argument("--weights", help="ImageNet weights of ResNet-18")
    parser.add_argument("--work", type=Path, default=Path("runs/protocol"), help="folder of unfinished runs")
    parser.add_argument("--output", type=Path, default=MEASUREMENTS, help=f"folder of what is kept ({MEASUREMENTS})")
    options = parser.parse_args(arguments)

    def run() -> None:
        if options.minutes is not None and not 0 <= options.minutes < math.inf:
            raise RecipeError(f"--minutes must be a finite number of at least 0, found {options.minutes}")
        if options.page is not None and (options.all or not options.show):
            raise RecipeError("--page goes with --table alone; leave out --all, or add --table")
        if options.page is not None:
            write_tables(options.table, options.output, options.page)
            return
        if options.show:
            print_tables(options.table, options.output, options.all)
            return
        of = TABLES[options.table]
        draws = options.draws or list(of.draws)
        if unknown := sorted(set(draws) - set(of.draws)):
            raise RecipeError(f"--draws: {unknown[0]} is not in {of.draws.start} to {of.draws.stop - 1}")
        write_splits(options.table, draws, options.manual_dir, options.data_dir, options.output)
        names = ("manual_dir", "data_dir", "weights", *(("test_on_dir",) if "--test-on" in of.common else ()))
        given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
        places = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        end = None if options.minutes is None else time.monotonic() + 60 * options.minutes
        work = options.work / "trial" if options.trial else options.work
        for draw in draws:
            run_draw(options.table, draw, places, work, options.output, end, options.trial)

    try:
        with Termination().watched():
            return run_main(run, GO_ON)
    except TimeIsUp:
        print(f"{options.minutes:g} minutes are over; {GO_ON}", flush=True)
        return UNFINISHED


if __name__ == "__main__":
    sys.exit(main())
