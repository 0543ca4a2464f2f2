"""SIGTERM, which a scheduler sends before it takes the machine away."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


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
