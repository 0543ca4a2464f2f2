from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_semimed.data import ImageSet, loading
from keras_semimed.experiments.command_line.bundles import RUNGS
from keras_semimed.files import read_table
from recipes import loco_cvc, loco_kvasir, loco_polyp
from tests.recipes.made import image_set

FLAGS = (
    "--image-size 40 --labeled 8 --batch-size 2 --steps 4 --epoch-steps 2 --encoder resnet_tiny --weights none "
    "--decoder-filters 8 --split random --neighbours 8 --zoom 0.9,1.1 --shift 0.1 "
    "--pseudo-labels 0"
).split()


def polyps(name: str, image_size: int, *_) -> ImageSet:
    """Stands in for `load_image_set`: images without classes, four frames a sequence."""
    images = image_set(name, image_size)
    sequences = [f"sequence {index // 4}" for index in range(len(images))]
    return dataclasses.replace(images, labels=None, class_names=(), groups=sequences)


@pytest.fixture(autouse=True)
def made_images(monkeypatch):
    monkeypatch.setattr(loading, "load_image_set", polyps)


def configuration(folder) -> dict:
    return json.loads((folder / "config.json").read_text())


def test_a_run_scores_student_and_teacher_and_keeps_the_model(tmp_path, capsys):
    folder = tmp_path / "run"
    assert loco_kvasir.main([*FLAGS, "--output", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "| last " in printed and "| teacher " in printed and "accuracy" not in printed
    config = configuration(folder)
    assert config["recipe"] == "loco_kvasir" and config["configuration"]["lambda_unlabeled"] == 0.5
    assert config["model"]["neighbours"] == 8 and config["model"]["threshold_start"] == 0.85
    metrics = read_table(folder / "metrics.csv")
    assert {"low_contrast", "threshold_class_1", "mask_selected_class_1"} <= set(metrics[0])
    model = keras.saving.load_model(folder / "model.keras")
    assert model.predict(np.zeros((1, 40, 40, 3), "uint8"), verbose=0)["mask"].shape == (1, 40, 40, 2)


def test_the_first_rung_is_supervised_and_others_start_from_it(tmp_path):
    first = tmp_path / "first"
    assert loco_cvc.main([*FLAGS, "--split", "sequence_safe", "--rung", "M1", "--output", str(first)]) == 0
    config = configuration(first)
    assert config["configuration"]["use_unlabeled"] is False
    assert "mask_selected" not in read_table(first / "metrics.csv")[0]
    second = tmp_path / "second"
    flags = [*FLAGS, "--split", "sequence_safe", "--rung", "M3", "--start-from", str(first), "--output", str(second)]
    assert loco_cvc.main(flags) == 0
    model = configuration(second)["model"]
    assert {name: model[name] for name in RUNGS["M3"]} == RUNGS["M3"]


def test_sets_that_are_trained_together_are_scored_together_and_apart(tmp_path, capsys):
    folder = tmp_path / "run"
    assert loco_polyp.main([*FLAGS, "--rung", "M2", "--output", str(folder)]) == 0
    result = configuration(folder)["result"]
    assert set(result) == {
        f"{weights}{part}" for weights in ("last", "teacher") for part in ("", ", kvasir_seg", ", cvc_clinicdb")
    }
    parts = [result[f"last, {name}"] for name in ("kvasir_seg", "cvc_clinicdb")]
    assert result["last"]["images"] == sum(part["images"] for part in parts)
    total = sum(part["dice"] * part["images"] for part in parts) / result["last"]["images"]
    assert result["last"]["dice"] == pytest.approx(total)
    assert "last, cvc_clinicdb" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split", "sequence_safe"], "--split sequence_safe with --data kvasir_seg"),
        (["--image-size", "20"], "--image-size"),
        (["--output-stride", "4"], "--output-stride"),
        (["--cvc-dir", "nowhere"], "--cvc-dir nowhere does not exist"),
        (["--labeled", "0.001"], "labeled=0.001"),
        (["--threshold-start", "1.5"], "threshold_start"),
    ],
)
def test_bad_input_ends_with_one_message_and_no_folder(flags, message, tmp_path, capsys):
    assert loco_kvasir.main([*FLAGS, "--output", str(tmp_path / "run"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
