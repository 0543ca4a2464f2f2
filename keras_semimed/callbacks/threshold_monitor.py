"""Watches thresholds and the use of pseudo-labels while a model trains."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_semimed.evaluation.threshold_figure import (
    epoch_columns,
    save_threshold_figure,
    share_names,
    threshold_names,
)
from keras_semimed.models import SemiSupervisedModel


class ThresholdMonitor(keras.callbacks.Callback):
    """Collects thresholds and shares of pseudo-labels used, and draws both over the epochs (LoCo's Fig. 6).

    It reads the logs of any semi-supervised method: kappa and tau of Hermes, global and class-wise thresholds of LoCo,
    the selected shares of all pixels or images and of each predicted class, and what a fixed threshold would select. It
    changes nothing.

    ```python
    monitor = ThresholdMonitor("thresholds.png")
    model.fit(train, epochs=epochs, callbacks=[monitor])
    monitor.history["mask_selected_class_1"]  # one value an epoch
    ```

    For a finished run, `keras_semimed.evaluation.save_threshold_figure` draws the same from its `metrics.csv`.

    Args:
        path: PNG file to draw into when the training ends; None: no picture. Its folder is made where it is missing.
        every_epoch: Draw after each epoch too, so that a training that is cut off leaves its picture.
        class_names: Names of the mask's classes in the picture, background included.

    Attributes:
        history: `epoch`, counted from 1, and the values of each name, as Keras logs them: means over the epoch's steps.
            A `fit` that goes on at an `initial_epoch` is appended; epochs that are trained again take the place of the
            earlier ones.
    """

    def __init__(
        self, path: str | Path | None = None, every_epoch: bool = False, class_names: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.path = None if path is None else Path(path)
        self.every_epoch = every_epoch
        self.class_names = class_names
        self._rows: list[dict[str, float]] = []

    @property
    def history(self) -> dict[str, list[float]]:
        """Values by name."""
        return epoch_columns(self._rows)

    @property
    def _found(self) -> bool:
        return any(len(row) > 1 for row in self._rows)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes the picture's folder: what is wrong with it shall show before the training, not after."""
        del logs
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes down the epoch's values."""
        logs = logs or {}
        row = {name: float(logs[name]) for name in (*threshold_names(logs), *share_names(logs))}
        self._rows = [earlier for earlier in self._rows if earlier["epoch"] <= epoch]
        self._rows.append({"epoch": epoch + 1, **row})
        if self.every_epoch:
            self._draw()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Draws."""
        del logs
        if not self._found:
            warnings.warn(
                "ThresholdMonitor found neither thresholds nor selected shares in the logs; the model selects no "
                "pseudo-labels.",
                stacklevel=2,
            )
        self._draw()

    def _draw(self) -> None:
        if self.path is None or not self._found:
            return
        fixed = self.model.fixed_threshold if isinstance(self.model, SemiSupervisedModel) else None
        save_threshold_figure(self.path, self.history, fixed, self.class_names)
