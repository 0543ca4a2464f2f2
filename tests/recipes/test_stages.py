"""Several trainings in one run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from keras_semimed.experiments.command_line.command import read_settings
from keras_semimed.experiments.console import RecipeError
from keras_semimed.files import read_sealed, read_table
from recipes.train import main
from tests.recipes.made import assert_same_run
from tests.recipes.test_runs_that_last import ending
from tests.recipes.test_runs_that_last import train as train_with

pytestmark = pytest.mark.usefixtures("made_images")

FLAGS = (
    "phantom_ultrasound --image-size 32 --labeled 8 --batch-size 2 --epoch-steps 2 --encoder resnet_tiny "
    "--weights none --decoder-filters 8,8,8,8,8 --learning-rate 1e-3 --pseudo-labels 3 "
    "--stages supervised:4,hermes:6@0.5"
).split()


def train(folder: Path, *more: str, **options) -> int:
    return train_with(folder, *more, flags=FLAGS, **options)


@pytest.fixture(scope="module")
def one_go(made_images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one_go"
    assert train(folder) == 0
    return folder


def test_epochs_and_steps_are_counted_over_all_stages(one_go):
    rows = read_table(one_go / "metrics.csv")
    assert [(row["epoch"], row["step"], row["stage"]) for row in rows] == [
        *(("1", "2", "1"), ("2", "4", "1"), ("3", "6", "2"), ("4", "8", "2"), ("5", "10", "2"))
    ]
    assert rows[0]["mask_unlabeled"] == "" != rows[-1]["mask_unlabeled"]
    config = json.loads((one_go / "config.json").read_text())
    assert config["configuration"]["stages"] == "supervised:4,hermes:6@0.5"
    assert config["configuration"]["steps"] == 6 == config["model"]["total_steps"]
    assert config["configuration"]["learning_rate"] == 5e-4


def test_gates_are_watched_in_the_stage_that_has_them(one_go):
    gates = read_sealed(one_go / "attention.json")
    assert [row["epoch"] for row in gates["history"]] == [3, 4, 5] and 0 < gates["images"] <= 8
    assert 0.9 < gates["history"][0]["P1_spatial_mean"] < 1
    assert '<section id="gates">' in (one_go / "report.html").read_text(encoding="utf-8")
    assert "attention.json" in read_sealed(one_go / "config.json")["files"]


@pytest.mark.parametrize("step", [3, 4, 5, 9])
def test_what_is_ended_in_any_stage_goes_on_to_the_same_bits(step, one_go, tmp_path):
    folder = tmp_path / "run"
    how = ending(step, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert train(folder, record=how) == 143
    assert train(folder, "--resume") == 0
    assert_same_run(folder, one_go)


def test_a_supervised_stage_takes_as_many_images_and_its_own_schedule():
    settings = read_settings("train", FLAGS)
    (first,) = settings.earlier
    assert (first.method, first.steps, first.labeled_batch_size) == ("supervised", 4, 4)
    assert (settings.method, settings.steps, settings.labeled_batch_size) == ("hermes", 6, None)
    assert first.optimizer["learning_rate"] == 1e-3 and settings.optimizer["learning_rate"] == 5e-4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--stages supervised:0,hermes:4", "'supervised:0' must have 1 to 2,147,483,647 steps"),
        ("--stages supervised:4,hermes:99999999999", "'hermes:99999999999' must have 1 to 2,147,483,647 steps"),
        ("--stages supervised:4,hermes:4,", "'' is not of the form METHOD:STEPS"),
        ("--stages supervised:4,hermse", "'hermse' is not of the form METHOD:STEPS"),
        ("--stages supervised:4,hermse:4", "--stages supervised:4,hermse:4: 'hermse' is none of .*did you mean hermes"),
        ("--stages supervised:4,hermes", "'hermes' is not of the form METHOD:STEPS"),
        ("--stages supervised:4,hermes:4@0", "a finite factor above 0"),
        ("--stages supervised:4,hermes:4 --steps 8", "--steps: the steps of a run in stages are those of --stages"),
        ("--stages supervised:4,hermes:4 --method loco", "ends with hermes, --method is loco"),
    ],
)
def test_stages_that_do_not_fit_are_refused_before_training(words, message):
    with pytest.raises(RecipeError, match=message):
        read_settings("train", ["busi", *words.split()])


def test_stages_changed_at_resume_are_refused(one_go, capsys):
    assert main([*FLAGS[:-1], "supervised:4,hermes:8@0.5", "--output", str(one_go), "--resume"]) == 2
    assert "stages: 'supervised:4,hermes:6@0.5' there" in capsys.readouterr().err
