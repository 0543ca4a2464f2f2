from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_semimed.data import Split, loading
from keras_semimed.data.loading import load_image_set
from keras_semimed.evaluation.pseudo_masks import PseudoMasks
from keras_semimed.experiments.runs import experiment
from keras_semimed.files import read_table
from recipes.hermes_busi import main
from tests.recipes.made import Kept, assert_same_run, image_set

FLAGS = (
    "--data phantom --image-size 32 --labeled 8 --batch-size 2 --steps 4 --epoch-steps 2 --encoder resnet_tiny "
    "--weights none --decoder-filters 8,8,8,8,8 --exchange none --learning-rate 1e-3 --confidence 0.4 "
    "--pseudo-labels 0"
).split()
# They look on: runs with and without them are compared below.
OBSERVERS = ["--threshold-figure", "--track", "tensorboard", "--panels", "2", "--pseudo-labels", "5"]


pytestmark = pytest.mark.usefixtures("made_images")


class Interrupted(experiment.RunRecord):
    """Ctrl-C in the middle of the second epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if len(self.rows) == 1:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def one_go(made_images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one_go"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "RunRecord", Kept)
        assert main([*FLAGS, *OBSERVERS, "--output", str(folder)]) == 0
    return folder


def test_a_run_leaves_its_files(one_go):
    names = {path.name for path in one_go.iterdir()}
    files = {"config.json", "config.yaml", "split.txt", "metrics.csv", "images.csv", "model.keras", "overlays"}
    files |= {"cases.npz", "embeddings.npz", "pseudo_labels.json", "pseudo_labels.npz", "report.html"}
    assert names == files | {"thresholds.png", "tensorboard", "panels"}
    assert [path.name for path in (one_go / "panels").iterdir()] == ["epoch_0002.png"]
    watched = json.loads((one_go / "pseudo_labels.json").read_text())
    assert [row["epoch"] for row in watched["history"]] == [1, 2] and set(watched["first_epoch"]) == {"mask", "label"}
    masks = PseudoMasks.load(one_go / "pseudo_labels.npz").epochs()
    shown = ["none", "confidence", "uncertainty", "dual"]
    assert {epoch: list(kept) for epoch, kept in masks.items()} == dict.fromkeys((1, 2), shown)
    # The pictures, and the curves of the training.
    assert len(list((one_go / "tensorboard").glob("events.out.tfevents.*"))) == 1
    assert len(list((one_go / "tensorboard" / "train").glob("events.out.tfevents.*"))) == 1
    page = (one_go / "report.html").read_text(encoding="utf-8")
    assert "not a medical device" in page and Split.load(one_go / "split.txt").hash in page
    for part in ("result", "cases", "training", "pseudo", "data", "configuration"):
        assert f'<section id="{part}">' in page
    assert "image embeddings" in page
    config = json.loads((one_go / "config.json").read_text())
    split = Split.load(one_go / "split.txt")
    assert config["split"]["hash"] == split.hash
    assert config["configuration"]["gamma"] == 0.1  # the preset's
    assert config["model"]["bank_size"] == 256 and config["model"]["mask_combine"] == "all"
    assert config["runtime"]["backend"] == keras.backend.backend()
    metrics = read_table(one_go / "metrics.csv")
    assert [(row["epoch"], row["step"]) for row in metrics] == [("1", "2"), ("2", "4")]
    assert {"loss", "mask_contrast", "kappa", "tau", "mask_selected"} <= set(metrics[0])
    rows = read_table(one_go / "images.csv")
    assert [row["name"] for row in rows] == list(split.test)
    assert np.mean([float(row["dice"]) for row in rows]) == pytest.approx(config["result"]["last"]["dice"])
    assert 1 < len(list((one_go / "overlays").glob("*.png"))) <= 6
    model = keras.saving.load_model(one_go / "model.keras")
    probabilities = np.asarray(model.predict(image_set("", 32).select(split.test).images, verbose=0)["label"])
    expected = [[float(row["probability_0"]), float(row["probability_1"])] for row in rows]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_interrupted_and_resumed_equals_one_go(one_go, tmp_path, monkeypatch, capsys):
    command = [*FLAGS, "--output", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "RunRecord", Interrupted)
        assert main(command) == 130
    assert "--resume" in capsys.readouterr().err
    assert main(command) == 2
    assert "unfinished" in capsys.readouterr().err
    monkeypatch.setattr(experiment, "RunRecord", Kept)
    assert main([*command, "--resume"]) == 0
    printed = capsys.readouterr().out
    assert "resuming after epoch 1" in printed
    line = r"^2/2 \d+s loss \S+ dice \S+ accuracy \S+ kept \d+%/\d+%$"
    assert len(re.findall(r"^\d+/2 .*$", printed, re.M)) == len(re.findall(line, printed, re.M)) == 1
    assert_same_run(tmp_path / "run", one_go)


def test_a_finished_run_is_shown_again_and_not_overwritten(one_go, capsys):
    before = (one_go / "config.json").read_text()
    assert main([*FLAGS, "--output", str(one_go)]) == 2
    assert "finished" in capsys.readouterr().err
    assert main([*FLAGS, "--output", str(one_go), "--resume"]) == 0
    printed = capsys.readouterr().out
    assert "| last " in printed and "not a medical device" in printed
    assert re.search(r"leaks +\d+ pairs, \d+ of 12 scored images", printed)
    assert (one_go / "config.json").read_text() == before


def test_another_configuration_is_refused_by_name(one_go, capsys):
    assert main([*FLAGS, "--output", str(one_go), "--resume", "--alpha", "0.6"]) == 2
    message = capsys.readouterr().err
    assert "alpha: 0.8 there, 0.6 now" in message and "--output" in message and "beta" not in message


def test_supervised_with_a_teacher_scores_both_weights(tmp_path, capsys):
    folder = tmp_path / "run"
    flags = ["--method", "supervised", "--teacher-momentum", "0.9", "--validate", "--output", str(folder)]
    assert main([*FLAGS, *flags]) == 0
    config = json.loads((folder / "config.json").read_text())
    assert set(config["result"]) == {"last", "teacher"}
    assert config["configuration"]["alpha"] is None and config["configuration"]["exchange"] == "none"
    rows = read_table(folder / "images.csv")
    validation = Split.load(folder / "split.txt").validation
    assert [(row["name"], row["weights"]) for row in rows] == [(n, w) for w in ("last", "teacher") for n in validation]
    assert "on the validation part" in capsys.readouterr().out


def test_a_run_goes_on_with_the_network_of_another(one_go, tmp_path, capsys):
    folder = tmp_path / "run"
    command = [*FLAGS, "--learning-rate", "0", "--classifier-optimizer", "adam", "--start-from", str(one_go)]
    command += ["--teacher-momentum", "0.9", "--output", str(folder)]
    assert main(command) == 0
    # Nothing was learnt since, but for the batch statistics; the random start of another seed would give other kernels.
    start, end = (keras.saving.load_model(path / "model.keras") for path in (one_go, folder))
    for name in ("segmentation_encoder", "label_head", "pixel_embeddings"):
        for before, after in zip(start.network.parts[name], end.network.parts[name], strict=True):
            for a, b in zip(before.trainable_variables, after.trainable_variables, strict=True):
                np.testing.assert_array_equal(a, b)
    config = json.loads((folder / "config.json").read_text())["configuration"]
    assert len(config["start_from"]) == 64
    assert main([*command, "--seed", "1", "--output", str(tmp_path / "other")]) == 2
    assert "trained on the split" in capsys.readouterr().err
    assert main([*command, "--decoder-filters", "8,8,8,8,4", "--output", str(tmp_path / "other")]) == 2
    assert "`decoder` of the model" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--start-from", "nowhere"], "--start-from nowhere"),
        (["--labeled", "30"], "labeled=30"),
        (["--image-size", "40"], "image_size"),
        (["--encoder", "resnet19"], "resnet19"),
        (["--weights", "nowhere.npz"], "nowhere.npz"),
        (["--epoch-steps", "3"], "--epoch-steps 3 does not divide --steps 4"),
        (["--batch-size", "0"], "--batch-size"),
        (["--panels", "0"], "--panels"),
        (["--track", "tensorboard,wanb"], "--track wanb is none of tensorboard, wandb, mlflow; did you mean wandb?"),
        (["--track", "mlflow"], '--track mlflow needs the package mlflow: pip install ".[mlflow]" in a clone'),
        (["--seed", "-1"], "--seed"),
        (["--manual-dir", "nowhere"], "--manual-dir nowhere does not exist"),
        (["--output", "/dev/null/run"], "/dev/null/run"),
        (["--confidence", "often"], "often"),
        (["--learning-rate", "-1"], "learning_rate"),
    ],
)
def test_bad_input_ends_with_one_message_and_no_folder(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not installed
    assert main([*FLAGS, "--output", str(tmp_path / "run"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [[], ["--manual-dir", "nowhere"]])
def test_busi_without_its_files_ends_with_one_message(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "load_image_set", load_image_set)
    command = ["--data", "busi", "--data-dir", str(tmp_path / "tfds"), "--output", str(tmp_path / "run"), *flags]
    assert main(command) == 2
    assert "manual" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("precious")
    assert main([*FLAGS, "--output", str(tmp_path)]) == 2
    assert "not the folder of a run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_that_diverges_has_no_result(tmp_path, capsys):
    assert main([*FLAGS, "--method", "supervised", "--learning-rate", "1e30", "--output", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert "diverged" in message and "No state was kept before" in message and "--mixed-precision" not in message
    assert "result" not in json.loads((tmp_path / "run" / "config.json").read_text())


def test_a_bug_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(*_):
        raise ValueError("a bug")

    monkeypatch.setattr(experiment, "build", lambda *_: None)
    monkeypatch.setattr(experiment, "train", broken)
    with pytest.raises(ValueError, match="a bug"):
        main([*FLAGS, "--output", str(tmp_path / "run")])
