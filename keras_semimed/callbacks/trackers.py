"""Sends the figures of a training to where experiments are followed: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import os
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from keras_semimed.callbacks.event_file import EventFile
from keras_semimed.files import whole_file
from keras_semimed.text import install

PROJECT = "keras_semimed"


class Tracker(keras.callbacks.Callback):
    """Sends all figures of each epoch, and the learning rates, somewhere. It changes nothing.

    A training does not depend on it: what fails is warned about once, and from then on nothing is sent.

    Args:
        folder: It writes into a folder of its name below this one. A folder is one run: a later training there goes on
            with it.
        config: What the run is, such as arguments of the model; plain values by name.

    Raises:
        ImportError: If its package is not installed.
    """

    NAME: ClassVar[str]
    """Of its folder, its package and its extra."""

    def __init__(self, folder: str | Path, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.place = self.folder / self.NAME
        self.config = dict(config or {})
        self.failed = False
        try:
            self.prepare()
        except ImportError as error:
            raise ImportError(f"{type(self).__name__} needs the package {self.NAME}: {install(self.NAME)}") from error

    def prepare(self) -> None:
        """Imports what it needs."""
        raise NotImplementedError

    def begin(self) -> None:
        """Opens the run, unless it is open."""
        raise NotImplementedError

    def send(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Sends the figures of an epoch, the first of which is 1."""
        raise NotImplementedError

    def end(self) -> None:
        """Closes the run."""
        raise NotImplementedError

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the run."""
        del logs
        self._attempt(self.begin)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sends the epoch's figures."""
        self._attempt(lambda: self.send(epoch + 1, {**_numbers(logs or {}), **_learning_rates(self.model.optimizer)}))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the run."""
        del logs
        self._attempt(self.end)

    def _attempt(self, action: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            action()
        except Exception as error:
            self.failed = True
            warnings.warn(
                f"{type(self).__name__} failed ({type(error).__name__}: {error}); the training goes on and is not "
                f"tracked there any more. `History` and CSV files have all figures.",
                stacklevel=3,
            )

    def _kept_id(self) -> str | None:
        """The name that an earlier training gave the run."""
        file = self.place / "id.txt"
        return file.read_text(encoding="utf-8").strip() if file.exists() else None

    def _keep_id(self, name: str) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        with whole_file(self.place / "id.txt") as temporary:
            temporary.write_text(name, encoding="utf-8")


class TensorBoardTracker(Tracker):
    """Curves for `tensorboard --logdir FOLDER`, named as Keras' `TensorBoard` names them, without TensorFlow.

    Those of training and validation lie over each other. It has no place for `config`. Arguments: see `Tracker`.
    """

    NAME = "tensorboard"

    def prepare(self) -> None:
        """Takes TensorBoard's writer."""
        self._files = {part: EventFile(self.place / part) for part in ("train", "validation")}

    def begin(self) -> None:
        """Makes the folder: what is wrong with it shall show before the training."""
        self.place.mkdir(parents=True, exist_ok=True)

    def send(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Adds a point to each curve."""
        validation = {name: value for name, value in figures.items() if name.startswith("val_")}
        training = {name: value for name, value in figures.items() if name not in validation}
        for part, values in (("train", training), ("validation", validation)):
            if values:
                named = {f"epoch_{name.removeprefix('val_')}": value for name, value in values.items()}
                self._files[part].scalars(named, epoch)

    def end(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()


class WandbTracker(Tracker):
    """A run of Weights & Biases, on this machine alone (`wandb sync` sends it) unless WANDB_MODE says otherwise.

    Other settings come from wandb's environment variables too (WANDB_PROJECT, WANDB_ENTITY). Its own Keras callback
    needs TensorFlow, this one does not. Arguments: see `Tracker`.
    """

    NAME = "wandb"

    def prepare(self) -> None:
        """Imports wandb."""
        import wandb

        self._wandb: Any = wandb
        self._run: Any = None

    def begin(self) -> None:
        """Starts the run, or goes on with it."""
        if self._run is not None:
            return
        name = self._kept_id()
        if name is None:
            self._keep_id(name := uuid.uuid4().hex[:12])
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self.folder.resolve().name,
            id=name,
            resume="allow",
            dir=str(self.folder),
            config=self.config,
            allow_val_change=True,
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings={"console": "off"},  # what is printed is the terminal's
        )

    def send(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Logs them with `epoch` among them: a run that goes on may do an epoch again."""
        self._run.log({"epoch": epoch, **figures})

    def end(self) -> None:
        """Finishes the run."""
        run, self._run = self._run, None
        if run is not None:
            run.finish()


class MlflowTracker(Tracker):
    """A run of MLflow: in the database FOLDER/mlflow/mlflow.db, or where MLFLOW_TRACKING_URI says.

    `mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow/mlflow.db` shows it. Runs that the caller has open are left
    alone. Arguments: see `Tracker`.
    """

    NAME = "mlflow"
    MOST = 100
    """Parameters in one request."""

    def prepare(self) -> None:
        """Imports mlflow."""
        import mlflow
        from mlflow import entities

        self._client_class: Any = mlflow.MlflowClient
        self._entities: Any = entities
        self._client: Any = None
        self._run = ""

    def begin(self) -> None:
        """Starts the run with `config` as its parameters, or goes on with it."""
        if self._client is None:
            self.place.mkdir(parents=True, exist_ok=True)
            address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(self.place / 'mlflow.db').resolve()}"
            self._client = self._client_class(tracking_uri=address)
        kept = self._kept_id()
        if kept is not None:
            self._run = kept
            self._client.update_run(kept, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(PROJECT)
        number = self._client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
        self._run = self._client.create_run(number, run_name=self.folder.resolve().name).info.run_id
        self._keep_id(self._run)
        parameters = [self._entities.Param(name, str(value)) for name, value in self.config.items()]
        for start in range(0, len(parameters), self.MOST):
            self._client.log_batch(self._run, params=parameters[start : start + self.MOST])

    def send(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Logs them, the epoch as their step."""
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(name, value, now, epoch) for name, value in figures.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def end(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self._run)


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}
"""Every tracker by the name of its package."""


def track(names: str | Sequence[str], folder: str | Path, config: Mapping[str, Any] | None = None) -> list[Tracker]:
    """The callbacks that send a training's figures to `"tensorboard"`, `"wandb"` or `"mlflow"`.

    ```python
    model.fit(train, epochs=epochs, callbacks=track(["tensorboard", "mlflow"], "runs/first", {"labeled": 72}))
    ```

    Args:
        names: One of them, or several.
        folder: Of the run; each writes into a folder of its name there.
        config: See `Tracker`.

    Raises:
        ValueError: For another name.
        ImportError: If a package is not installed; the message says how to get it.
    """
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if unknown := [name for name in names if name not in TRACKERS]:
        raise ValueError(f"`names` must be of {', '.join(TRACKERS)}, found {', '.join(map(repr, unknown))}")
    return [TRACKERS[name](folder, config) for name in names]


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """The logs; of a metric that is an array, its mean."""
    return {name: float(np.mean(keras.ops.convert_to_numpy(value))) for name, value in logs.items()}


def _learning_rates(optimizer: Any) -> dict[str, float]:
    """`learning_rate`, or one of each part of an optimizer that is made of several."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    several = getattr(optimizer, "optimizers", None)
    parts = {"": optimizer} if several is None else {f"_{part.name}": part for part in several}
    return {
        f"learning_rate{name}": float(keras.ops.convert_to_numpy(part.learning_rate)) for name, part in parts.items()
    }
