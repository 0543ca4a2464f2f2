"""One run writes into a folder at a time."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_semimed.experiments.console import RecipeError
from keras_semimed.files import PARTIAL

LOCK = "lock.json"
# So long a lock without its content is taken for one that is just being written.
WRITING_SECONDS = 10.0


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a run's folder, which is made, and taken away afterwards where nothing was written into it.

    The lock is a file that names process and host. One that a process of this host left behind when it was killed is
    recognised and replaced; where several do so at once, one of them gets it.

    Args:
        folder: The run's.

    Raises:
        RecipeError: If another run holds it, or the folder cannot be written.
    """
    lock = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock)
    except OSError as error:
        raise RecipeError(f"--output {folder} cannot be written: {error}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
            folder.rmdir()  # stays unless it is empty


def _acquire(lock: Path) -> None:
    """Makes the file of a lock, which on every file system only one can do, where need be after one left behind."""
    while True:
        try:
            with lock.open("x", encoding="utf-8") as file:
                json.dump({"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}, file)
            return
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # its holder has just taken it away
                if (holder := _holder(lock)) is not None:
                    raise RecipeError(
                        f"--output {lock.parent} is being written by another run ({holder}); wait for it, or choose "
                        f"another --output. If that run is gone, delete {lock}"
                    ) from None
                _remove(lock)


def _remove(lock: Path) -> None:
    """Removes a lock that was left behind, unless another process has replaced it meanwhile.

    Whoever does so holds a lock for that, so that nobody else does between the look and the removal. Where it was left
    behind itself, it is removed in the same way.
    """
    inner = lock.with_name(f"{PARTIAL}{lock.name}")
    _acquire(inner)
    try:
        if _holder(lock) is None:
            lock.unlink()
    finally:
        inner.unlink(missing_ok=True)  # a run that has the folder clears such files away


def _holder(lock: Path) -> str | None:
    """Who holds a lock, in words; None for one that was left behind.

    Raises:
        FileNotFoundError: If nobody does.
    """
    if lock.is_symlink() and not lock.exists():
        return None  # a link to nothing
    try:
        content = json.loads(lock.read_text(encoding="utf-8"))
        pid, host, started = content["pid"], content["host"], content["started"]
        if not isinstance(pid, int) or pid < 1:
            raise ValueError(f"found {pid}, which is the number of no process")
    except (ValueError, KeyError, TypeError):  # cut off, or not written yet
        return "it starts just now" if time.time() - lock.stat().st_mtime < WRITING_SECONDS else None
    if host == socket.gethostname() and not _runs(pid, started):
        return None
    return f"process {pid} on {host}"


def _runs(pid: int, started: Any) -> bool:
    """Whether the process is still that one; numbers of processes are given out again."""
    if os.name == "nt":  # where asking with signal 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return started in (None, _started(pid))


def _started(pid: int) -> int | None:
    """When a process was started, in ticks since the machine was; None where the system does not tell."""
    try:
        behind_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        return int(behind_name.split()[19])
    except (OSError, ValueError, IndexError):
        return None
