"""Damages and kills small runs, goes on with them, and holds what comes out against a run in one go.

    python -m benchmarks.broken_runs damaged --cases 60     # a flipped bit, a zeroed page, a cut or lost file
    python -m benchmarks.broken_runs killed                 # SIGKILL at every file operation of a run
    python -m benchmarks.broken_runs killed --random 20     # SIGKILL after a random time, up to three times a run

A damaged run has to end with the same bits, or with exit code 2 and a sentence that names the file; a traceback, or
other bits without a word, is a failure. A killed run has to end with the same bits. What follows `--` goes to
`recipes.train`; `--stages supervised:4,hermes:4@0.5` takes the place of method and steps.

What SIGKILL leaves at a file operation is taken from one run: a copy of its folder before each operation, of what the
system has of it, without what the process still holds. At every tenth operation a run is killed in earnest as well.
Each run is a process of its own (POSIX only): a fresh one, or on PyTorch a fork of this one, which has the images
already and leaves a report of one line and pictures of nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import h5py
import keras
from matplotlib.figure import Figure

from keras_semimed.data import loading
from keras_semimed.data.progress import progress
from keras_semimed.experiments.runs.lock import LOCK
from keras_semimed.files import file_digest, whole_file

FLAGS = (
    "phantom_ultrasound --image-size 32 --split random --labeled 8 --test 12 --batch-size 2 --epoch-steps 2 "
    "--encoder resnet_tiny --weights none --decoder-filters 8,8,8,8,8 --learning-rate 1e-3 --pseudo-labels 3"
).split()
METHOD = "--method fixmatch --steps 6".split()
COMPARED = ("metrics.csv", "images.csv", "split.txt")
DAMAGES = ("flip", "zero", "cut", "lose")
KILLS = 3
"""So often a run of `--random` is killed, at most."""
IN_EARNEST = 10
"""At every so many operations a run is killed, beside the copy of its folder."""


def damage(path: Path, how: str, chance: random.Random | None = None) -> None:
    """Does to a file what disks do."""
    chance = random.Random(0) if chance is None else chance
    content = bytearray(path.read_bytes())
    if how == "lose" or not content:
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: chance.randrange(len(content))])
    elif how == "flip":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
    else:
        pages = [start for start in range(0, len(content), 4096) if any(content[start : start + 4096])]
        start = chance.choice(pages)
        content[start : start + 4096] = bytes(len(content[start : start + 4096]))
        path.write_bytes(content)


def watch(folder: Path, kill: int | None, copies: Path | None) -> None:
    """Counts what is written, renamed and removed below a folder.

    Args:
        folder: Of a run in this process.
        kill: The operation before which the process ends by SIGKILL.
        copies: Where the folder is copied to before each operation.
    """
    count, place = 0, str(folder)

    def look(event: str, arguments: tuple) -> None:
        nonlocal count
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+")
        changes = writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        if not changes or not str(arguments[0]).startswith(place):
            return
        count += 1
        if count == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if copies is not None and folder.exists():
            shutil.copytree(folder, copies / f"{count:04d}")

    sys.addaudithook(look)


def child(
    folder: Path,
    flags: Sequence[str],
    log: Path,
    kill: int | None = None,
    copies: Path | None = None,
    seconds: float | None = None,
) -> int:
    """Runs in a process of its own; the exit code, negative for a signal.

    Args:
        folder: Of the run, which is gone on with.
        flags: Of the command.
        log: File for what it prints.
        kill: See `watch`.
        copies: See `watch`.
        seconds: SIGKILL so long after it has taken the folder.
    """
    words = [*flags, "--output", str(folder), "--resume"]
    started = time.time()
    if keras.backend.backend() == "torch":
        pid = os.fork()
        if pid == 0:
            with log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os._exit(_run(words, folder, kill, copies))
        if seconds is not None:
            _kill(pid, folder, started, seconds)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = f"from benchmarks.broken_runs import *; raise SystemExit(_run({words!r}, Path({str(folder)!r}), {kill}, "
    code = code.replace("import *", "import Path, _run") + (f"Path({str(copies)!r})))" if copies else "None))")
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=file, stderr=file)
        if seconds is not None:
            _kill(process.pid, folder, started, seconds)
        return process.wait()


def _kill(pid: int, folder: Path, started: float, seconds: float) -> None:
    """Waits until the process has locked the folder, and so long after that."""
    lock = folder / LOCK
    while not (lock.exists() and lock.stat().st_mtime >= started - 1):
        time.sleep(0.05)
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)


def _run(words: list[str], folder: Path, kill: int | None, copies: Path | None) -> int:
    from recipes.train import main

    watch(folder, kill, copies)
    try:
        return main(words)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def prepare(work: Path, flags: Sequence[str]) -> None:
    """Prepares the images; on PyTorch also what all forks of this process do alike: imports, reading, the report."""
    from keras_semimed.experiments.command_line.command import main, read_settings
    from keras_semimed.experiments.inputs import data_sets
    from keras_semimed.experiments.runs import experiment

    if keras.backend.backend() != "torch":
        data_sets.read(read_settings("train", flags))
        return

    def page(folder: Path) -> Path:
        with whole_file(folder / experiment.NAME) as temporary:
            temporary.write_text("a report\n")
        return folder / experiment.NAME

    def picture(figure: Figure, path: Path, **_: object) -> None:
        del figure
        Path(path).write_bytes(b"a picture")

    loading.load_image_set = functools.cache(loading.load_image_set)
    experiment.report = page
    Figure.savefig = picture
    with (work / "log.txt").open("w") as log, contextlib.redirect_stdout(log):
        assert main("train", [*flags, "--output", str(work / "prepared")], None) == 0


def digests(folder: Path) -> dict[str, str]:
    """What two runs are compared by: tables, the weights of the model, and that no state is left."""
    found = {name: file_digest(folder / name) for name in COMPARED}
    found |= {path.name: "left" for pattern in (".partial-*", "checkpoint-*") for path in folder.glob(pattern)}
    weights = hashlib.sha256()
    with zipfile.ZipFile(folder / "model.keras") as archive, h5py.File(archive.open("model.weights.h5")) as file:

        def take(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                weights.update(name.encode() + item[()].tobytes())

        file.visititems(take)
    return found | {"weights": weights.hexdigest()}


def undisturbed(work: Path, flags: Sequence[str]) -> tuple[Path, list[Path]]:
    """A run in one go, and another's folder before each file operation."""
    whole, log, copies = work / "whole", work / "log.txt", work / "copies"
    copies.mkdir()
    code = child(whole, flags, log) or child(work / "watched", flags, log, copies=copies)
    assert code == 0, log.read_text()
    return whole, sorted(copies.iterdir())


def different(folders: Sequence[Path]) -> list[Path]:
    """Those that hold other files than the one before."""
    held = [
        {path.relative_to(each): path.is_file() and file_digest(path) for path in each.rglob("*")} for each in folders
    ]
    return [folder for number, folder in enumerate(folders) if not number or held[number] != held[number - 1]]


def damaged(work: Path, flags: Sequence[str], cases: int, seed: int) -> int:
    """Damages copies of an unfinished and of a finished run."""
    whole, copies = undisturbed(work, flags)
    expected, log = digests(whole), work / "log.txt"
    unfinished = next(path for path in copies if len(list(path.glob("checkpoint-*.json"))) == 2)
    chance, outcomes, failures = random.Random(seed), Counter[str](), 0
    for case in progress(range(cases), "damaged runs"):
        source = (unfinished, whole)[case % 2]
        folder = Path(shutil.copytree(source, work / "case"))
        path = chance.choice(sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".html"))
        how = chance.choice(DAMAGES)
        damage(path, how, chance)
        code = child(folder, flags, log)
        text = log.read_text(errors="replace")
        gone = source is whole and not path.exists()
        if code == 0 and gone and path.name in text:
            outcome = "finished, named as gone"
        elif code == 0 and not gone and digests(folder) == expected:
            outcome = "same bits, named" if path.name in text else "same bits"
        elif code == 2 and path.name in text and "Traceback" not in text:
            outcome = "refused by name"
        else:
            outcome, failures = "FAILED", failures + 1
            print(f"{source.name}, {path.name}, {how}: exit code {code}\n{text[-1500:]}", flush=True)
        outcomes[outcome] += 1
        shutil.rmtree(folder)
    print(dict(outcomes))
    return failures


def killed(work: Path, flags: Sequence[str]) -> int:
    """Goes on with what SIGKILL leaves at each file operation of a run."""
    whole, copies = undisturbed(work, flags)
    expected, log, failures = digests(whole), work / "log.txt", 0
    states, operations = different(copies), int(copies[-1].name)
    earnest = range(1, operations + 1, IN_EARNEST)
    print(f"{operations} file operations, {len(states)} states, {len(earnest)} kills in earnest", flush=True)
    for case in progress([*states, *earnest], "killed runs"):
        folder = work / "case"
        if isinstance(case, Path):
            shutil.copytree(case, folder)
        else:
            assert child(folder, flags, log, kill=case) == -signal.SIGKILL, case
        what = f"operation {case.name if isinstance(case, Path) else case}"
        failures += _went_wrong(folder, expected, child(folder, flags, log), what, log)
    print(f"{failures} of {len(states) + len(earnest)} chains failed")
    return failures


def killed_at_random(work: Path, flags: Sequence[str], chains: int, seed: int) -> int:
    """Kills runs again and again after a random time, and goes on with them."""
    whole, log, chance, counts, failures = work / "whole", work / "log.txt", random.Random(seed), Counter[int](), 0
    started = time.perf_counter()
    assert child(whole, flags, log) == 0, log.read_text()
    took = time.perf_counter() - started
    expected = digests(whole)
    for case in progress(range(chains), "killed runs"):
        folder, code, kills = work / "case", -9, 0
        while code == -9 and kills < KILLS:
            code = child(folder, flags, log, seconds=chance.uniform(0, 0.6) * took)
            kills += code == -9
        if code == -9:
            code = child(folder, flags, log)
        counts[kills] += 1
        failures += _went_wrong(folder, expected, code, f"chain {case}, {kills} kills", log)
    print(f"{failures} of {chains} chains failed; {sum(kills * count for kills, count in counts.items())} kills")
    return failures


def _went_wrong(folder: Path, expected: dict[str, str], code: int, what: str, log: Path) -> bool:
    wrong = code != 0 or digests(folder) != expected
    if wrong:
        print(f"{what}: exit code {code}\n{log.read_text(errors='replace')[-1500:]}", flush=True)
    shutil.rmtree(folder)
    return wrong


def main() -> int:
    """Runs one of the two and returns 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("damaged", "killed"))
    parser.add_argument("--cases", type=int, default=60, help="damaged copies (60)")
    parser.add_argument("--random", type=int, default=0, help="so many chains of kills at random times")
    parser.add_argument("--seed", type=int, default=0, help="of what is damaged and when is killed (0)")
    words = sys.argv[1:]
    own, more = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    arguments = parser.parse_args(own)
    with tempfile.TemporaryDirectory() as work:
        flags = [*FLAGS, *(() if "--stages" in more else METHOD), "--data-dir", str(Path(work) / "data"), *more]
        prepare(Path(work), flags)
        if arguments.what == "damaged":
            failures = damaged(Path(work), flags, arguments.cases, arguments.seed)
        elif arguments.random:
            failures = killed_at_random(Path(work), flags, arguments.random, arguments.seed)
        else:
            failures = killed(Path(work), flags)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
