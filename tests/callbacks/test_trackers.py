"""Trackers: what each is sent, that runs go on with themselves, and that no training depends on one."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import keras
import numpy as np
import pytest

from keras_semimed.callbacks import Tracker, track
from keras_semimed.optimizers import branch_optimizer

LOGS = [{"loss": 2.0, "dice": 0.5, "val_dice": 0.25}, {"loss": 1.0, "dice": 0.75, "val_dice": 0.5}]


def watched(trackers: list[Tracker], optimizer: keras.optimizers.Optimizer | None = None, start: int = 0) -> None:
    """Calls trackers as `fit` does, for the two epochs of `LOGS`."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer or keras.optimizers.SGD(0.5), "mse")
    model.optimizer.build(model.trainable_variables)
    for tracker in trackers:
        tracker.set_model(model)
        tracker.on_train_begin()
        for epoch, logs in enumerate(LOGS, start):
            tracker.on_epoch_end(epoch, logs)
        tracker.on_train_end()


def curves(folder) -> dict[str, list[tuple[int, float]]]:
    """The points of the event files in a folder, by tag."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.iterdir()):
        for event in loader.LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_reads_the_curves(tmp_path):
    pytest.importorskip("tensorboard")
    watched(track("tensorboard", tmp_path))
    train = curves(tmp_path / "tensorboard" / "train")
    assert train == {
        "epoch_loss": [(1, 2.0), (2, 1.0)],
        "epoch_dice": [(1, 0.5), (2, 0.75)],
        "epoch_learning_rate": [(1, 0.5), (2, 0.5)],
    }
    assert curves(tmp_path / "tensorboard" / "validation") == {"epoch_dice": [(1, 0.25), (2, 0.5)]}


def test_each_part_of_an_optimizer_has_its_learning_rate(tmp_path):
    pytest.importorskip("tensorboard")
    watched(track("tensorboard", tmp_path), branch_optimizer(10, learning_rate=0.25, classifier="adam"))
    rates = {tag: points for tag, points in curves(tmp_path / "tensorboard" / "train").items() if "rate" in tag}
    assert sorted(rates) == ["epoch_learning_rate_adam_classification", "epoch_learning_rate_adam_segmentation"]
    assert all(points == [(1, 0.25), (2, 0.25)] for points in rates.values())


class Wandb(ModuleType):
    """Stands in for wandb: keeps what its runs are given."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[SimpleNamespace] = []

    def init(self, **arguments):
        run = SimpleNamespace(arguments=arguments, rows=[], open=True)
        run.log = run.rows.append
        run.finish = lambda: setattr(run, "open", False)
        self.runs.append(run)
        return run


def test_wandb_stays_on_this_machine_and_goes_on_with_its_run(tmp_path, monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    config = {"labeled": 72}
    watched(track("wandb", tmp_path / "first", config))
    (run,) = module.runs
    assert run.rows == [{"epoch": e, **logs, "learning_rate": 0.5} for e, logs in enumerate(LOGS, 1)] and not run.open
    given = run.arguments
    assert (given["mode"], given["name"], given["config"]) == ("offline", "first", config)
    assert given["dir"] == str(tmp_path / "first") and given["resume"] == "allow"

    monkeypatch.setenv("WANDB_MODE", "online")
    watched(track("wandb", tmp_path / "first", config), start=2)
    watched(track("wandb", tmp_path / "second"))
    first, again, other = (run.arguments["id"] for run in module.runs)
    assert first == again != other and module.runs[1].arguments["mode"] == "online"


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Mlflow(ModuleType):
    """Stands in for mlflow: one store of runs by the address."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.entities = SimpleNamespace(Metric=Metric, Param=lambda key, value: (key, value))
        self.runs: dict[str, SimpleNamespace] = {}
        self.addresses: list[str] = []
        self.experiments: dict[str, str] = {}

    def MlflowClient(self, tracking_uri):  # noqa: N802
        self.addresses.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name):
        self.experiments[name] = "7"
        return "7"

    def create_run(self, experiment_id, run_name):
        assert experiment_id == "7"
        name = f"{run_name}-{len(self.runs)}"
        self.runs[name] = SimpleNamespace(metrics=[], params=[], status="RUNNING", batches=0)
        return SimpleNamespace(info=SimpleNamespace(run_id=name))

    def update_run(self, run_id, status):
        self.runs[run_id].status = status

    def set_terminated(self, run_id):
        self.runs[run_id].status = "FINISHED"

    def log_batch(self, run_id, metrics=(), params=()):
        run = self.runs[run_id]
        assert run.status == "RUNNING" and len(params) <= 100
        run.metrics += metrics
        run.params += params


def test_mlflow_has_one_run_a_folder_with_its_parameters(tmp_path, monkeypatch):
    module = Mlflow()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = {f"flag_{index}": index for index in range(150)}
    tracker = track("mlflow", tmp_path / "first", config)
    watched(tracker)
    watched(tracker, start=2)  # as `fit` twice
    watched(track("mlflow", tmp_path / "first", config), start=4)  # as another process
    watched(track("mlflow", tmp_path / "second"))
    first, second = module.runs.values()
    assert first.params == [(name, str(value)) for name, value in config.items()] and second.params == []
    assert [(m.step, m.value) for m in first.metrics if m.key == "dice"] == [
        (epoch, LOGS[(epoch - 1) % 2]["dice"]) for epoch in range(1, 7)
    ]
    assert first.status == second.status == "FINISHED"
    assert set(module.addresses[:2]) == {f"sqlite:///{tmp_path / 'first' / 'mlflow' / 'mlflow.db'}"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    watched(track("mlflow", tmp_path / "third"))
    assert module.addresses[-1] == "http://there"


class Broken(Tracker):
    """Fails from one call on."""

    NAME = "broken"
    FAILS = "send"
    calls = 0

    def prepare(self) -> None:
        pass

    def _call(self, name: str) -> None:
        self.calls += 1
        if name == self.FAILS:
            raise OSError("no space left on device")

    def begin(self) -> None:
        self._call("begin")

    def send(self, epoch, figures) -> None:
        self._call("send")

    def end(self) -> None:
        self._call("end")


@pytest.mark.parametrize(("fails", "calls"), [("begin", 1), ("send", 2), ("end", 5)])
def test_what_fails_is_said_once_and_the_training_goes_on(fails, calls, tmp_path, monkeypatch):
    monkeypatch.setattr(Broken, "FAILS", fails)
    tracker = Broken(tmp_path)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="Broken failed .OSError: no space left on device.; the training goes on") as w:
        history = model.fit(np.ones((4, 1)), np.ones(4), epochs=3, verbose=0, callbacks=[tracker]).history
    assert len(history["loss"]) == 3 and tracker.calls == calls
    assert len([each for each in w if "Broken" in str(each.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(np.ones((4, 1)), np.ones(4), verbose=0, callbacks=[tracker])


def test_a_name_that_is_none_and_a_package_that_is_missing_are_said(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`names` must be of tensorboard, wandb, mlflow, found 'aim'"):
        track(["tensorboard", "aim"], tmp_path)
    assert track([], tmp_path) == []
    for name in ("wandb", "mlflow", "tensorboard.summary.writer.event_file_writer"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("wandb", "mlflow", "tensorboard"):
        with pytest.raises(ImportError, match=rf'needs the package {name}: pip install "\.\[{name}\]" in a clone'):
            track(name, tmp_path)
