"""`recipes.train` runs any method on any data, also one that the recipes have no line for."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_semimed.data import ImageSet, loading
from keras_semimed.experiments.command_line import command, flags
from keras_semimed.experiments.command_line.command import read_settings
from keras_semimed.experiments.console import RecipeError
from keras_semimed.experiments.runs import experiment
from keras_semimed.experiments.runs.experiment import build, with_tasks
from keras_semimed.files import read_table
from keras_semimed.models import METHODS
from recipes.train import main
from tests.recipes.made import image_set
from tests.recipes.made_method import Made

SMALL = (
    "--image-size 32 --labeled 8 --batch-size 2 --steps 2 --epoch-steps 2 --encoder resnet_tiny --weights none "
    "--split random --pseudo-labels 0"
)


def images_of(name: str, image_size: int, *_) -> ImageSet:
    """Stands in for `load_image_set`: endoscopy has no image classes."""
    images = image_set(name, image_size)
    return images if "ultrasound" in name else dataclasses.replace(images, labels=None, class_names=())


@pytest.fixture(autouse=True)
def made_images(monkeypatch):
    monkeypatch.setattr(loading, "load_image_set", images_of)


@pytest.fixture
def made_method(monkeypatch):
    """Puts a further method beside the package's."""
    methods = {**flags.methods(), "made": "tests.recipes.made_method:Made"}
    for module in (flags, command):
        monkeypatch.setattr(module, "methods", lambda: methods)
    monkeypatch.setitem(METHODS, "made", Made)


def settings_of(words: str):
    return read_settings("train", f"{words} {SMALL}".split())


def test_a_method_needs_no_line_in_the_recipes(made_method, tmp_path, capsys):
    folder = tmp_path / "run"
    words = f"phantom_ultrasound --method made --kind that --lambda-own 0.25 {SMALL} --output {folder}"
    assert main(words.split()) == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["recipe"] == "train"
    found = {
        name: config["configuration"][name] for name in ("method", "data", "kind", "lambda_own", "tasks", "control")
    }
    assert found == {
        "method": "made",
        "data": "phantom_ultrasound",
        "kind": "that",
        "lambda_own": 0.25,
        "tasks": "segmentation",
        "control": False,
    }
    assert config["model"]["kind"] == "that" and config["model"]["decoder_filters"] is None
    assert "mask_own" in read_table(folder / "metrics.csv")[0]
    model = keras.saving.load_model(folder / "model.keras")
    assert model.predict(np.zeros((1, 32, 32, 3), "uint8"), verbose=0)["mask"].shape == (1, 32, 32, 2)
    origin, sizes = model.provenance, config["split"]["sizes"]
    assert (origin.data_set, origin.split) == ("phantom_ultrasound", config["split"]["hash"])
    assert origin.scored == "test, masks at the network's size"
    assert (origin.labeled, origin.unlabeled) == (sizes["labeled"], sizes["unlabeled"] + sizes["validation"])
    assert origin.scores == config.get("result_own_size", config["result"])["last"] and len(origin.data) == 12
    with pytest.raises(SystemExit):
        main("busi --method made --help-all".split())
    printed = " ".join(capsys.readouterr().out.split())
    assert "made: --kind {this,that} what nobody looks at (default: this)" in printed
    assert "--own-start OWN_START step at which nothing starts (default: 30)" in printed
    assert settings_of("busi --method made").arguments["own_start"] == 0  # of 2 steps instead of 3,000


def test_a_control_in_which_something_is_still_learnt_without_labels_is_refused(made_method):
    images = image_set("", 32)
    control = build(with_tasks(settings_of("busi --method made --control")), images)
    assert (control.lambda_own, int(control.step)) == (0, 0)
    with pytest.raises(RecipeError, match="--control: no argument of made sets the weight of mask_more to 0"):
        build(with_tasks(settings_of("busi --method made --control --fixed 1")), images)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("data", ["phantom_ultrasound", "phantom_endoscopy"])
def test_every_method_is_made_from_its_flags_for_the_classes_of_the_data(method, data):
    settings = settings_of(f"{data} --method {method} --demo")
    if data == "phantom_endoscopy" and METHODS[method].supports == ("classification",):
        with pytest.raises(RecipeError, match=f"{method} can do classification, {data} has targets for segmentation"):
            with_tasks(settings)
        return
    settings = with_tasks(settings)
    model = build(settings, images_of(data, 32))
    assert model.tasks == settings.arguments["tasks"] and model.total_steps == 2
    assert (model.num_classes, model.image_size, model.seed) == (2, 32, 0)
    assert model.views.shift == settings.views["shift"]
    both = set(model.supports) == {"segmentation", "classification"}
    assert model.tasks == ("both" if both and data == "phantom_ultrasound" else model.supports[0])


def test_what_a_preset_leaves_to_the_method_is_not_given_by_the_command():
    model = build(settings_of("phantom_endoscopy --method cps --cutmix-probability 1 --demo"), images_of("", 32))
    assert (model.preset, model.cps_on) == ("paper", "unlabeled")


@pytest.mark.parametrize("method", [name for name in METHODS if name != "supervised"])
def test_the_demo_of_a_method_is_the_same_in_every_command(method):
    demo = read_settings("hermes_busi", ["--method", method, "--demo"])
    assert demo.arguments == read_settings("train", ["busi", "--method", method, "--demo"]).arguments


def test_any_command_runs_any_method(tmp_path):
    from recipes import loco_kvasir

    folder = tmp_path / "run"
    words = f"--data phantom --method fixmatch --cutmix-probability 0 {SMALL} --output {folder}"
    assert loco_kvasir.main(words.split()) == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["recipe"] == "loco_kvasir" and config["configuration"]["method"] == "fixmatch"
    assert config["configuration"]["neighbours"] is None and set(config["result"]) == {"last"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("kvasir_seg --method hermes --tasks both", "--tasks both: hermes can do segmentation and classification, kva"),
        ("busi --method loco --tasks classification", "--tasks classification: loco can do segmentation, busi has"),
        ("busi --method hermes --tasks classification --panels 1", "--panels draws masks"),
        ("kvasir_seg --method fixmatch --split leak_safe", "--split leak_safe with --data kvasir_seg"),
        (
            "phantom_endoscopy --method cps --lambda-cps -1",
            "`lambda_cps` must be a number of at least 0, found -1.0.",
        ),
        ("phantom_endoscopy --method cps --lambda-cps -1", "(--lambda-cps)"),
        ("phantom_endoscopy --method fixmatch --zoom 2,1", "`scale` must be (low, high)"),
        ("phantom_endoscopy --method fixmatch --image-size 40", "image_size"),
    ],
)
def test_what_a_method_cannot_do_ends_with_one_message_and_no_folder(words, message, tmp_path, capsys):
    given = words.split()
    small = SMALL.replace("--split random ", "") if "--split" in given else SMALL
    assert main([*small.split(), *given, "--output", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_method_for_classes_alone_needs_data_with_classes(made_method, monkeypatch):
    monkeypatch.setattr(Made, "supports", ("classification",))
    with pytest.raises(RecipeError, match="--method made with --data kvasir_seg: made can do classification"):
        with_tasks(settings_of("kvasir_seg --method made"))


def test_runs_start_from_the_same_weights_whatever_reading_the_data_drew(monkeypatch, tmp_path):
    def drawing(*arguments):
        keras.utils.set_random_seed(len(drawn))
        drawn.append(1)
        return images_of(*arguments)

    drawn: list[int] = []
    kept = []
    monkeypatch.setattr(loading, "load_image_set", drawing)
    monkeypatch.setattr(experiment, "train", lambda model, *_: kept.append(model.network.get_weights()))
    monkeypatch.setattr(experiment, "score", lambda model, settings, data, folder, _: folder.update(**RESULT))
    for name in ("one", "two"):
        assert main([*f"phantom_endoscopy --method supervised {SMALL} --output {tmp_path / name}".split()]) == 0
    for one, two in zip(*kept, strict=True):
        np.testing.assert_array_equal(one, two)


RESULT = {
    "result": {"last": {"images": 1, "dice": 0.5}},
    "cost": {"training_seconds": 1, "scoring_seconds": 1, "peak_memory_mib": None},
}
