"""The folder of one run: which experiment it belongs to, how far it got, and its files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import keras

from keras_semimed.evaluation.files import PARTIAL, read_table, whole_file, write_json, write_table
from recipes.console import RecipeError

CHECKPOINT = "checkpoint.weights.h5"


class RunFolder:
    """Files of a run. `config.json` says what it is; it is replaced as a whole whenever something is added.

    Args:
        path: The folder; it is made when the first file is written.
        description: JSON-ready content of config.json that is known before training. `configuration` tells
            experiments apart.
        resume: Go on with what is there.

    Raises:
        RecipeError: If the folder holds another experiment, or this one and `resume` is not set.
    """

    def __init__(self, path: Path, description: dict[str, Any], resume: bool):
        self.path = path
        self.content = description
        if not path.exists() or path.is_dir() and not any(path.iterdir()):
            return
        found = self._read()
        _check_same(path, found["configuration"], description["configuration"])
        if not resume:
            state = "finished" if "result" in found else "unfinished"
            raise RecipeError(
                f"--output {path} holds a {state} run of this configuration; add --resume to "
                f"{'see its result' if 'result' in found else 'go on with it'}, or choose another --output"
            )
        for leftover in path.glob(f"{PARTIAL}*"):
            leftover.unlink()
        self.content = {**description, **{key: found[key] for key in ("progress", "result", "cost") if key in found}}

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            if not isinstance(content, dict) or "configuration" not in content:
                raise ValueError("its config.json is not one of ours")
            return content
        except (OSError, ValueError) as error:
            raise RecipeError(f"--output {self.path} is not the folder of a run ({error}); choose another") from error

    @property
    def result(self) -> dict[str, Any] | None:
        """Scores of a finished run."""
        return self.content.get("result")

    @property
    def seconds(self) -> float:
        """Training time so far, over all sittings."""
        return self.content.get("progress", {}).get("seconds", 0.0)

    def update(self, **content: Any) -> None:
        """Adds to config.json."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.content |= content
        write_json(self.path / "config.json", self.content)

    def restore(self, model: keras.Model) -> bool:
        """Loads the state after the last finished epoch into a compiled model; False if there is none."""
        checkpoint = self.path / CHECKPOINT
        if not checkpoint.exists():
            return False
        model.optimizer.build(model.trainable_variables)
        model.load_weights(checkpoint)
        return True

    def save_model(self, model: keras.Model) -> None:
        """Writes model.keras without the optimizer, whose state is larger than the model."""
        config = {**keras.saving.serialize_keras_object(model), "compile_config": None}
        bare = keras.saving.deserialize_keras_object(config)
        bare.set_weights(model.get_weights())
        with whole_file(self.path / "model.keras") as temporary:
            bare.save(temporary)

    def finish(self, **content: Any) -> None:
        """Notes the result; the state to resume from is not needed any more."""
        self.update(**content)
        (self.path / CHECKPOINT).unlink(missing_ok=True)


class RunRecord(keras.callbacks.Callback):
    """After each epoch: a row of metrics.csv, then the state of model, optimizer and random generators.

    The state is written last and holds the step counter, so that it alone says which epochs are done; rows of an epoch
    that it does not contain are dropped when a run resumes.

    Args:
        folder: Where to write.
        epochs_done: Finished epochs to keep.
    """

    def __init__(self, folder: RunFolder, epochs_done: int):
        super().__init__()
        self.folder = folder
        table = folder.path / "metrics.csv"
        self.rows: list[dict[str, Any]] = list(read_table(table))[:epochs_done] if epochs_done else []
        self.earlier = folder.seconds if epochs_done else 0.0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the epoch down."""
        step = int(keras.ops.convert_to_numpy(self.model.step))
        self.rows.append(
            {"epoch": epoch + 1, "step": step, **{key: float(value) for key, value in (logs or {}).items()}}
        )
        write_table(self.folder.path / "metrics.csv", self.rows)
        seconds = self.earlier + time.perf_counter() - self.started
        self.folder.update(progress={"epochs": epoch + 1, "seconds": round(seconds, 1)})
        with whole_file(self.folder.path / CHECKPOINT) as temporary:
            self.model.save_weights(temporary)


def _check_same(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    keys = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
    if keys:
        differences = "; ".join(f"{key}: {found.get(key)!r} there, {expected.get(key)!r} now" for key in keys)
        raise RecipeError(
            f"--output {path} belongs to another configuration ({differences}); choose another --output, or the flags "
            "that this folder was made with"
        )
