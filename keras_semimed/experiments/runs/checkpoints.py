"""States of a run to go on from: whole files that show when they were damaged; the last two are kept."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_semimed.files import file_digest, read_sealed, whole_file, write_sealed

KEPT = 2
NAME = "checkpoint-"
WEIGHTS = ".weights.h5"

Row = dict[str, Any]


class InMemory(io.BytesIO):
    """A file of weights that Keras writes into memory: HDF5 can take the process down where a disk is full."""

    def __str__(self) -> str:
        return WEIGHTS  # Keras looks at how the name ends


class Checkpoint(NamedTuple):
    """How far a run had got.

    Attributes:
        stage: number of the training of the run, from 0.
        step: steps of it that are done.
        seconds: training time so far, over all sittings.
        rows: those of metrics.csv, an epoch each.
        metrics: values of the metrics' variables within an epoch that is not finished; empty after a whole one.
        weights: file with the state of model, optimizer and random generators.
    """

    stage: int
    step: int
    seconds: float
    rows: list[Row]
    metrics: list[Any]
    weights: Path

    def restore(self, model: keras.Model) -> None:
        """Gives the state to a compiled model."""
        model.optimizer.build(model.trainable_variables)
        model.load_weights(self.weights)

    def restore_metrics(self, model: keras.Model) -> None:
        """Gives the metrics of an epoch that was not finished back to a model that begins with the rest of it."""
        for variable, value in zip(model.metrics_variables, self.metrics, strict=True):
            variable.assign(np.asarray(value, variable.dtype).reshape(variable.shape))


class Checkpoints:
    """The states in a run's folder.

    Each is a file of weights, and beside it a sealed JSON file with its digest and all else. The JSON is written last,
    so that it alone says that the state is whole.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(
        self, model: keras.Model, stage: int, before: int, step: int, seconds: float, rows: Sequence[Row], within: bool
    ) -> None:
        """Writes a state, and drops all but it and the one before.

        Args:
            model: What is trained.
            stage: Number of the training.
            before: Steps of the trainings before it.
            step: Steps of it that are done.
            seconds: Training time so far.
            rows: Those of the finished epochs.
            within: Whether an epoch is not finished.

        Raises:
            OSError: If there is no room; the states before are still there.
        """
        stem = self.folder / f"{NAME}{before + step:08d}"
        weights = Path(f"{stem}{WEIGHTS}")
        state = InMemory()
        model.save_weights(state)
        with whole_file(weights) as temporary:
            temporary.write_bytes(state.getbuffer())
        values = [keras.ops.convert_to_numpy(variable) for variable in model.metrics_variables] if within else []
        content = {
            "stage": stage,
            "step": step,
            "seconds": round(seconds, 1),
            "rows": list(rows),
            "metrics": [value.tolist() for value in values],
            "weights": file_digest(weights),
        }
        write_sealed(f"{stem}.json", content)
        for earlier in self._records()[KEPT:]:
            self._remove(earlier)

    def newest(self, report: Callable[[str], None]) -> Checkpoint | None:
        """The last state that is whole; None without any.

        Args:
            report: is told of each one that is not, in a sentence.
        """
        for record in self._records():
            weights = record.with_name(f"{record.stem}{WEIGHTS}")
            try:
                content = read_sealed(record)
                if file_digest(weights) != content.pop("weights"):
                    raise ValueError(f"{weights} is damaged: it is not as it was written")
                return Checkpoint(weights=weights, **content)
            except (OSError, ValueError) as error:
                report(f"{error}; the state before it is taken")
        return None

    def clear(self) -> None:
        """Removes all of them."""
        for record in self._records():
            self._remove(record)
        for weights in self.folder.glob(f"{NAME}*{WEIGHTS}"):  # killed before its record was written
            weights.unlink(missing_ok=True)

    def _records(self) -> list[Path]:
        """The last one first."""
        return sorted(self.folder.glob(f"{NAME}*.json"), reverse=True)

    def _remove(self, record: Path) -> None:
        record.unlink(missing_ok=True)
        record.with_name(f"{record.stem}{WEIGHTS}").unlink(missing_ok=True)
