"""Feeds damaged and odd files to the readers of folders and zips.

Every file must be read rightly, its pixels compared with the right ones, or be reported by name. Nothing may be written
meanwhile, and memory stays bounded. Prints a row for each kind of file; the exit status is 1 if a file failed.

    python -m benchmarks.fuzz_files --files 500 --seed 0
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import os
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import benchmarks.fuzz_archives
import benchmarks.fuzz_images
import benchmarks.fuzz_reported  # noqa: F401  registers its kinds, as those above
from benchmarks.fuzz_cases import MAKERS, Case
from keras_semimed.data import read_folder
from keras_semimed.data.check import check_folder
from keras_semimed.data.images import read_image
from keras_semimed.data.readers.kvasir_seg import KvasirSegSource

SECONDS = 60  # for one file, at most
_written: list[str] | None = None


def _note_writing(event: str, arguments: tuple) -> None:
    """An audit hook that notes what is opened for writing, made, moved or removed."""
    if _written is None:
        return
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        _written.append(f"{event} {arguments[0]}")
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"):
        _written.append(f"{event} {arguments[0]}")


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Collects what is written."""
    global _written
    _written = []
    try:
        yield _written
    finally:
        _written = None


sys.addaudithook(_note_writing)


def outcome(case: Case) -> str:
    """Reads one case; returns `read`, `reported` or what went wrong."""
    with watched() as written, contextlib.redirect_stdout(io.StringIO()):
        result = _read_zip(case) if case.path.suffix == ".zip" else _read_folder(case)
    return f"wrote {written[0]}" if written else result


def _read_zip(case: Case) -> str:
    try:
        list(KvasirSegSource(case.path))
    except (ValueError, FileNotFoundError) as error:
        return _reported(case, str(error))
    return "was read and should have been reported"


def _read_folder(case: Case) -> str:
    problems = check_folder(case.path).problems
    try:
        folder = read_folder(case.path, image_size=16)
    except (ValueError, FileNotFoundError) as error:
        if not problems:
            return f"the check finds nothing, reading says {error}"
        return _reported(case, str(error))
    if problems:
        return f"was read, and the check finds {problems[0]}"
    if case.expected is None:
        return "was read and should have been reported"
    found = read_image(case.file) if case.file is not None else folder.labeled.masks[0]
    if case.either or np.array_equal(found, case.expected):
        return "read"
    return f"was read wrongly: {found.shape}, expected {case.expected.shape}"


def _reported(case: Case, message: str) -> str:
    if case.name not in message:
        return f"was reported without its name: {message}"
    if case.expected is not None and not case.either:
        return f"should have been read: {message}"
    return "reported"


def run_case(index: int, seed: int, folder: Path) -> tuple[str, str]:
    """Makes the case of an index, reads it and returns its kind and the outcome."""
    kinds = list(MAKERS)
    kind = kinds[index % len(kinds)]
    case = MAKERS[kind](np.random.default_rng([seed, index]), folder)
    try:
        return kind, outcome(case)
    except Exception as error:  # what the benchmark looks for
        return kind, f"crashed: {error!r}"


def _peak_mib() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Runs all cases and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    table: dict[str, Counter[str]] = defaultdict(Counter)
    failures, slowest, loaded = [], (0.0, ""), 0.0
    with tempfile.TemporaryDirectory() as root:
        for index in range(given.files):
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            place = Path(root) / str(index)
            place.mkdir()
            start = time.perf_counter()
            kind, result = run_case(index, given.seed, place / "folder")
            slowest = max(slowest, (time.perf_counter() - start, kind))
            table[kind][result if result in ("read", "reported") else "failed"] += 1
            if result not in ("read", "reported"):
                failures.append(f"file {index} ({kind}): {result}")
            loaded = loaded or _peak_mib()
        faulthandler.cancel_dump_traceback_later()
    print(f"{'kind':44}{'files':>6}{'read':>6}{'reported':>10}{'failed':>8}")
    for kind, counts in table.items():
        print(f"{kind:44}{counts.total():6}{counts['read']:6}{counts['reported']:10}{counts['failed']:8}")
    print(
        f"{given.files} files, {len(failures)} failed; peak memory {_peak_mib():.0f} MiB, {loaded:.0f} after the first"
    )
    print(f"slowest file: {slowest[0]:.1f} s ({slowest[1]})")
    print("\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
