"""Damages and kills small runs, goes on with them, and holds what comes out against a run in one go.

    python -m benchmarks.broken_runs damaged --cases 60     # a flipped bit, a zeroed page, a cut or lost file
    python -m benchmarks.broken_runs killed                 # SIGKILL at every file operation of a run
    python -m benchmarks.broken_runs killed --random 20     # SIGKILL after a random time, until the run has ended

A damaged run has to end with the same bits, or with exit code 2 and a sentence that names the file; a traceback, or
other bits without a word, is a failure. A killed run has to end with the same bits. What follows `--` goes to
`recipes.train`.
Each run is a process of its own (POSIX only): a fork of this one on PyTorch, a fresh one elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_semimed.data.progress import progress
from keras_semimed.files import file_digest

FLAGS = (
    "phantom_ultrasound --method fixmatch --image-size 32 --labeled 8 --batch-size 2 --steps 6 --epoch-steps 2 "
    "--encoder resnet_tiny --weights none --decoder-filters 8,8,8,8,8 --learning-rate 1e-3 --pseudo-labels 3"
).split()
COMPARED = ("metrics.csv", "images.csv", "split.txt")
DAMAGES = ("flip", "zero", "cut", "lose")


def damage(path: Path, how: str, chance: random.Random) -> None:
    """Does to a file what disks do."""
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


def kill_at(operation: int, folder: Path) -> None:
    """Counts what is written, renamed and removed below a folder; at the given number the process ends by SIGKILL.

    With 0 it is only counted, into a file beside the folder.
    """
    count = 0
    place = str(folder)

    def look(event: str, arguments: tuple) -> None:
        nonlocal count
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+")
        if (writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")) and place in str(arguments[0]):
            count += 1
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            if not operation:
                with contextlib.suppress(OSError):
                    os.truncate(counter, count)

    counter = folder.with_suffix(".count")
    if not operation:
        counter.touch()
    sys.addaudithook(look)


def child(folder: Path, flags: Sequence[str], operation: int | None, seconds: float | None, log: Path) -> int:
    """Runs in a process of its own; the exit code, negative for a signal."""
    words = [*flags, "--output", str(folder), "--resume"]
    if keras.backend.backend() == "torch":
        pid = os.fork()
        if pid == 0:
            with log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os._exit(_run(words, folder, operation))
        if seconds is not None:
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = (
        "from pathlib import Path; from benchmarks.broken_runs import _run; "
        f"raise SystemExit(_run({words!r}, Path({str(folder)!r}), {operation}))"
    )
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=file, stderr=file)
        if seconds is not None:
            time.sleep(seconds)
            process.kill()
        return process.wait()


def _run(words: list[str], folder: Path, operation: int | None) -> int:
    from recipes.train import main

    if operation is not None:
        kill_at(operation, folder)
    try:
        return main(words)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def digests(folder: Path) -> dict[str, str]:
    """What two runs are compared by: tables, and the weights of the model."""
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    weights = [keras.ops.convert_to_numpy(variable).tobytes() for variable in model.variables]
    found = {name: file_digest(folder / name) for name in COMPARED}
    return found | {"weights": hashlib.sha256(b"".join(weights)).hexdigest()}


def damaged(work: Path, flags: Sequence[str], cases: int, seed: int) -> int:
    """Damages copies of an unfinished and of a finished run."""
    whole, log = work / "whole", work / "log.txt"
    assert child(whole, flags, None, None, log) == 0, log.read_text()
    expected = digests(whole)
    unfinished = work / "unfinished"
    assert child(unfinished, flags, 10**9, None, log) == 0
    shutil.rmtree(unfinished)
    operation = 0
    while len(list(unfinished.glob("checkpoint-*.json"))) < 2:  # killed where two states are there
        shutil.rmtree(unfinished, ignore_errors=True)
        operation += 5
        child(unfinished, flags, operation, None, log)
    chance, outcomes, failures = random.Random(seed), Counter[str](), 0
    for case in progress(range(cases), "damaged runs"):
        source = (unfinished, whole)[case % 2]
        folder = Path(shutil.copytree(source, work / "case"))
        path = chance.choice(sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".html"))
        how = chance.choice(DAMAGES)
        damage(path, how, chance)
        code = child(folder, flags, None, None, log)
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
            print(f"{source.name}, {path.name}, {how}: exit code {code}\n{text[-1500:]}")
        outcomes[outcome] += 1
        shutil.rmtree(folder)
    print(dict(outcomes))
    return failures


def killed(work: Path, flags: Sequence[str], at_random: int, seed: int) -> int:
    """Kills runs at each file operation, or again and again after a random time, and goes on with them."""
    log, whole, failures = work / "log.txt", work / "whole", 0
    started = time.perf_counter()
    assert child(whole, flags, 0, None, log) == 0, log.read_text()
    took = time.perf_counter() - started
    operations, expected = whole.with_suffix(".count").stat().st_size, digests(whole)
    print(f"{operations} file operations, {took:.1f} s")
    chance, folder = random.Random(seed), work / "case"
    for case in progress(range(at_random or operations), "killed runs"):
        kills = 0
        if at_random:
            code = -9
            while code == -9:
                code, kills = child(folder, flags, None, chance.uniform(0.2, 1.0) * took, log), kills + 1
                if kills > 20:
                    code = child(folder, flags, None, None, log)
        else:
            assert child(folder, flags, case + 1, None, log) == -signal.SIGKILL, case
            code = child(folder, flags, None, None, log)
        if code != 0 or digests(folder) != expected:
            failures += 1
            print(f"case {case}: exit code {code}\n{log.read_text(errors='replace')[-1500:]}")
        shutil.rmtree(folder)
    print(f"{failures} of {at_random or operations} chains failed")
    return failures


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
    import recipes.experiment  # noqa: F401  read before forks

    with tempfile.TemporaryDirectory() as work:
        flags = [*FLAGS, "--data-dir", str(Path(work) / "data"), *more]
        if arguments.what == "damaged":
            return int(damaged(Path(work), flags, arguments.cases, arguments.seed) > 0)
        return int(killed(Path(work), flags, arguments.random, arguments.seed) > 0)


if __name__ == "__main__":
    sys.exit(main())
