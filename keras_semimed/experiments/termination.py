"""SIGTERM, which a scheduler sends before it takes the machine away."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

GRACE = 5.0
"""Seconds in which a command ends by itself after Ctrl-C, which a terminal sends to it as well."""
LOOK = 0.5
"""So many seconds apart a command is looked after."""


class Terminated(KeyboardInterrupt):
    """The run was asked to end by SIGTERM."""


class Termination:
    """Ends a run at once with `Terminated`; where that is put off, it is only noted.

    Attributes:
        asked: whether SIGTERM has come.
    """

    def __init__(self) -> None:
        self.asked = False
        self._put_off = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Listens for the signal; outside the main thread, where Python does not let one, it does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._come)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextlib.contextmanager
    def put_off(self) -> Iterator[None]:
        """The block looks at `asked` itself, and ends where it can be gone on from."""
        self._put_off = True
        try:
            yield
        finally:
            self._put_off = False

    def _come(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked = True
        if not self._put_off:
            raise Terminated


def run_child(command: Sequence[str], seconds: float | None = None) -> int:
    """Runs a command that saves and ends when it gets SIGTERM, and does not leave it behind.

    It gets SIGTERM when this process does, when it is interrupted from the keyboard, and when time is up. It is waited
    for then; a second Ctrl-C kills it.

    Args:
        command: Program and arguments.
        seconds: How long it may run; None: until it ends.

    Returns:
        Its exit code.

    Raises:
        Terminated: If SIGTERM came.
        KeyboardInterrupt: If Ctrl-C came.
        TimeoutExpired: If time was up.
    """
    end = time.monotonic() + (math.inf if seconds is None else seconds)
    termination = Termination()
    with termination.watched(), termination.put_off():
        process = subprocess.Popen(command)
        try:
            while (code := _code(process, min(end - time.monotonic(), LOOK))) is None:
                if termination.asked or time.monotonic() >= end:
                    process.terminate()
                    process.wait()
                    break
        except KeyboardInterrupt:
            try:
                if _code(process, GRACE) is None:
                    process.terminate()
                    process.wait()
            finally:
                process.kill()
            raise
    if termination.asked:
        raise Terminated
    if code is None:
        raise subprocess.TimeoutExpired(command, seconds or 0.0)
    return code


def _code(process: subprocess.Popen, seconds: float) -> int | None:
    """The exit code; None where it has not ended within so many seconds."""
    try:
        return process.wait(max(seconds, 0.0))
    except subprocess.TimeoutExpired:
        return None
