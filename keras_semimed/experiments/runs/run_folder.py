"""The folder of one run: which experiment it belongs to, how far it got, and its files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_semimed.evaluation.sizes import RESULTS
from keras_semimed.experiments.command_line.config_file import NAME as FLAGS
from keras_semimed.experiments.command_line.settings import Settings
from keras_semimed.experiments.console import RecipeError
from keras_semimed.experiments.runs.checkpoints import Checkpoint, Checkpoints
from keras_semimed.experiments.runs.lock import LOCK, locked
from keras_semimed.experiments.termination import Terminated, Termination
from keras_semimed.files import (
    PARTIAL,
    check_digests,
    file_digest,
    read_sealed,
    read_table,
    whole_file,
    write_sealed,
    write_table,
)

METRICS = "metrics.csv"


@contextlib.contextmanager
def open_run(path: Path, description: dict[str, Any], resume: bool) -> Iterator[RunFolder]:
    """The folder of a run, which nobody else writes into meanwhile; the arguments are those of `RunFolder`.

    Raises:
        RecipeError: As `RunFolder` does, and where another run writes into the folder.
    """
    if path.exists() and not path.is_dir():
        raise RecipeError(f"--output {path} is a file, not the folder of a run; choose another")
    with locked(path):
        yield RunFolder(path, description, resume)


class RunFolder:
    """Files of a run. `config.json` says what it is; it is replaced as a whole whenever something is added.

    Args:
        path: The folder; it is made when the first file is written.
        description: JSON-ready content of config.json that is known before training. `configuration` tells
            experiments apart.
        resume: Go on with what is there.

    Raises:
        RecipeError: If the folder holds another experiment, or this one and `resume` is not set, or files that are not
            as the run wrote them.
    """

    def __init__(self, path: Path, description: dict[str, Any], resume: bool):
        self.path = path
        self.content = description
        self.checkpoints = Checkpoints(path)
        leftovers = list(path.glob(f"{PARTIAL}*"))
        if not path.exists() or {*path.iterdir()} <= {*leftovers, path / LOCK, path / FLAGS}:
            _remove(leftovers)
            return
        found = self._read()
        _check_same(path, found["configuration"], description["configuration"])
        if not resume:
            state = "a finished" if "result" in found else "an unfinished"
            raise RecipeError(
                f"--output {path} holds {state} run of this configuration; add --resume to "
                f"{'see its result' if 'result' in found else 'go on with it'}, or choose another --output"
            )
        _remove(leftovers)
        self.content = {
            **description,
            **{key: found[key] for key in (*RESULTS.values(), "cost", "files") if key in found},
        }

    def _read(self) -> dict[str, Any]:
        try:
            content = read_sealed(self.path / "config.json")
            if "configuration" not in content:
                raise ValueError("its config.json is not one of ours")
            files = content.get("files", {})
            check_digests(self.path, files, list(files))
            if gone := [name for name in files if not (self.path / name).exists()]:
                print(f"warning: {', '.join(gone)} of this run are gone from {self.path}", flush=True)
            return content
        except (OSError, ValueError) as error:
            raise RecipeError(
                f"--output {self.path} is not the folder of a run, or not as the run left it ({error}); choose another"
            ) from error

    @property
    def result(self) -> dict[str, Any] | None:
        """Scores of a finished run."""
        return self.content.get("result")

    def update(self, **content: Any) -> None:
        """Adds to config.json."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.content |= content
        write_sealed(self.path / "config.json", self.content)

    def newest(self) -> Checkpoint | None:
        """The state to go on from; what is damaged is named, and metrics.csv written again where it is."""
        found = self.checkpoints.newest(lambda sentence: print(f"warning: {sentence}", flush=True))
        rows = [] if found is None else found.rows
        table = self.path / METRICS
        if rows and not _holds(table, rows):
            print(
                f"warning: {table} does not hold the {len(rows)} epochs that are done; it is written again", flush=True
            )
            write_table(table, rows)
        return found

    def save_model(self, model: keras.Model) -> None:
        """Writes model.keras without the optimizer, whose state is larger than the model."""
        config = {**keras.saving.serialize_keras_object(model), "compile_config": None}
        bare = keras.saving.deserialize_keras_object(config)
        bare.set_weights(model.get_weights())
        with whole_file(self.path / "model.keras") as temporary:
            bare.save(temporary)

    def finish(self, files: list[str], **content: Any) -> None:
        """Notes the result, and digests of the files that it was made from.

        Args:
            files: Names of files; those that are not there are left out.
            content: For config.json.
        """
        written = [name for name in files if (self.path / name).exists()]
        self.update(files={name: file_digest(self.path / name) for name in written}, **content)


def _holds(table: Path, rows: list[dict[str, Any]]) -> bool:
    """Whether a table begins with these rows."""
    try:
        found = read_table(table)[: len(rows)]
    except (OSError, ValueError):
        return False
    written = [{key: str(value) for key, value in row.items()} for row in rows]
    return [{key: value for key, value in row.items() if value != ""} for row in found] == written


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


class RunRecord(keras.callbacks.Callback):
    """After each epoch: a row of metrics.csv, and the state of model, optimizer and random generators.

    Also looks after each step whether the loss is a number and whether the run was asked to end.

    Args:
        folder: Where to write.
        start: The state that the training goes on from, if any.
        termination: Says whether the run is to end.
    """

    def __init__(self, folder: RunFolder, start: Checkpoint | None, termination: Termination):
        super().__init__()
        self.folder = folder
        self.termination = termination
        self.rows: list[dict[str, Any]] = [] if start is None else list(start.rows)
        self.earlier = 0.0 if start is None else start.seconds
        self.unfinished = start if start is not None and start.metrics else None
        self.stage = self.first_stage = 0 if start is None else start.stage
        self.steps_before = self.epochs_before = 0
        self.named = False
        self.logs: dict[str, Any] = {}
        self.started: float | None = None

    def begin(self, stage: int, stages: Sequence[Settings]) -> None:
        """Says which training of a run comes next; epochs and steps are counted over all of them."""
        self.stage, self.named = stage, len(stages) > 1
        done = stages[:stage]
        self.steps_before = sum(each.steps for each in done)
        self.epochs_before = sum(each.steps // (each.epoch_steps or each.steps) for each in done)

    @property
    def seconds(self) -> float:
        """Training time so far, over all sittings."""
        return self.earlier + (0.0 if self.started is None else time.perf_counter() - self.started)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts the clock."""
        del logs
        if self.started is None:
            self.started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Takes up the figures of an epoch that was interrupted."""
        del epoch, logs
        self.logs = {}
        if self.unfinished is not None:
            self.unfinished.restore_metrics(self.model)
            self.unfinished = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Looks at the step before this one, which is done by now: waiting for this one would stop an accelerator."""
        self._check(self.logs, steps_ago=1)
        self.logs = dict(logs or {})
        if self.termination.asked and batch + 1 < self.params["steps"]:  # else the epoch's end saves
            self._check(self.logs)
            self._save(within=True)
            raise Terminated

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the epoch down."""
        self._check(self.logs)
        if not all(np.isfinite(keras.ops.convert_to_numpy(weight)).all() for weight in self.model.weights):
            raise self._diverged(self.steps_before + self._step(), "the model holds NaN or infinite weights")
        row: dict[str, Any] = {"epoch": epoch + 1, "step": self.steps_before + self._step()}
        row |= {"stage": self.stage + 1} if self.named else {}
        self.rows.append(row | {key: float(value) for key, value in (logs or {}).items()})
        write_table(self.folder.path / METRICS, self.rows)
        self._save(within=False)
        if self.termination.asked:
            raise Terminated

    def _save(self, within: bool) -> None:
        self.folder.checkpoints.save(
            self.model, self.stage, self.steps_before, self._step(), self.seconds, self.rows, within
        )

    def _step(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.step))

    def _check(self, logs: dict[str, Any], steps_ago: int = 0) -> None:
        if "loss" not in logs or np.isfinite(float(logs["loss"])) or self._recovers():
            return
        terms = [name for name in self.model.loss_weights if not np.isfinite(float(logs.get(name, 0)))]
        raise self._diverged(
            self.steps_before + self._step() - steps_ago,
            f"the loss is {float(logs['loss'])}, from {', '.join(terms) or 'none of its terms'}",
        )

    def _recovers(self) -> bool:
        """Whether steps that overflow in float16 are left out and the scale of the loss is falling."""
        optimizer = self.model.optimizer
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        return scaled and float(keras.ops.convert_to_numpy(optimizer.dynamic_scale)) >= 1

    def _diverged(self, step: int, what: str) -> RecipeError:
        kept = f"The state after step {self.rows[-1]['step']} is kept" if self.rows else "No state was kept before"
        half = keras.backend.standardize_dtype(self.model.compute_dtype) != "float32"
        more = ", or --mixed-precision none" if half else ""
        return RecipeError(
            f"the training diverged at step {step}: {what}. {kept}. Try a lower --learning-rate{more}, with another "
            "--output"
        )


def _check_same(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    keys = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
    if keys:
        differences = "; ".join(f"{key}: {found.get(key)!r} there, {expected.get(key)!r} now" for key in keys)
        raise RecipeError(
            f"--output {path} belongs to another configuration ({differences}); choose another --output, or the flags "
            "that this folder was made with"
        )
