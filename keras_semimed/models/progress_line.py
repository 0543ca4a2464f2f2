"""What a training shows while it runs: one line an epoch that fits a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

SHOWN = ("loss", "dice", "accuracy")
KEPT = ("mask_selected", "label_selected")
VALIDATION = ("val_dice", "val_accuracy")
BAR = 10
INTERVAL = 0.1
"""Seconds between two states of the line."""


class ProgressLine(keras.callbacks.ProgbarLogger):
    """One line an epoch: loss, Dice and accuracy, the share of the pseudo-labels that is kept, and validation Dice.

    `fit` of the methods shows it wherever Keras would show its own bar. In a terminal and in a notebook the line moves
    with the steps; in a file there is one an epoch, when it is done:

    ```
    3/10 12s loss 1.234 dice 0.842 accuracy 0.910 kept 93%/88% val_dice 0.771
    ```

    `kept` is `mask_selected` of the logs, of a classifier `label_selected`, of a model of both the two in this order. A
    classifier has `val_accuracy` in the place of `val_dice`. Everything else is in `History`, `CSVLogger` and where
    else a callback takes the logs. To see more of it, give `fit` a line with other names, or Keras' own bar, which
    shows everything:

    ```python
    model.fit(train, callbacks=[ProgressLine(("loss", "mask_contrast", "tau", "val_dice"))])
    model.fit(train, callbacks=[keras.callbacks.ProgbarLogger()])
    ```

    Args:
        names: Of the logs, in the order of the line, those that are there; None for the line above.
    """

    # It writes what it is given and asks for nothing: the next step need not wait for it.
    async_safe = True

    def __init__(self, names: Sequence[str] | None = None) -> None:
        super().__init__()
        self.names = None if names is None else tuple(names)
        self._epoch = 0
        self._begun = self._shown_at = 0.0
        self._width = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the epoch's clock."""
        del logs
        self.seen, self._epoch, self._width = 0, epoch, 0
        self._begun, self._shown_at = time.perf_counter(), 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the line, where it can be moved."""
        now = time.perf_counter()
        if self.verbose != 1 or batch < self.seen or now - self._shown_at < INTERVAL or not _movable():
            return
        self.seen, self._shown_at = batch + 1, now
        columns = shutil.get_terminal_size().columns - 1  # a line that breaks cannot be moved
        self._write(f"{self._head()} {self._bar()} {self._seconds()} {self.text(logs or {})}"[:columns], "")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the epoch's line."""
        del epoch
        if self.verbose:
            self._write(f"{self._head()} {self._seconds()} {self.text(logs or {})}", "\n")

    def text(self, logs: Mapping[str, Any]) -> str:
        """The figures of the line.

        Args:
            logs: Of an epoch, or so far.
        """
        if self.names is not None:
            return " ".join(f"{name} {_number(logs[name])}" for name in self.names if name in logs)
        found = [f"{name} {_number(logs[name])}" for name in SHOWN if name in logs]
        kept = [f"{100 * float(logs[name]):.0f}%" for name in KEPT if name in logs]
        found += [f"kept {'/'.join(kept)}"] if kept else []
        found += [f"{name} {_number(logs[name])}" for name in VALIDATION if name in logs][:1]
        return " ".join(found)

    def _head(self) -> str:
        return f"{self._epoch + 1}/{self.epochs}"

    def _bar(self) -> str:
        if not self.target:
            return f"step {self.seen}"
        return f"[{'=' * (BAR * self.seen // self.target):<{BAR}}]"

    def _seconds(self) -> str:
        return f"{time.perf_counter() - self._begun:.0f}s"

    def _write(self, line: str, end: str) -> None:
        """Writes over what is left of the line before; where Keras' own messages go, if not to the screen."""
        if not keras.config.is_interactive_logging_enabled():
            from absl import logging

            logging.info(line)
            return
        start = "\r" if self._width else ""
        sys.stdout.write(f"{start}{line:<{self._width}}{end}")
        sys.stdout.flush()
        self._width = len(line)


def _number(value: Any) -> str:
    """Five characters for what is below 1000."""
    number = float(np.mean(value))
    return f"{number:.3f}" if abs(number) < 10 else f"{number:.4g}"


def _movable() -> bool:
    """Whether a line can be written over: in a terminal, in notebooks, and in PyCharm; not in a file."""
    if not keras.config.is_interactive_logging_enabled():
        return False
    return sys.stdout.isatty() or "ipykernel" in sys.modules or "PYCHARM_HOSTED" in os.environ
