"""Exported models: equal outputs, nothing that only training needs, refusals that leave nothing behind."""

import keras
import numpy as np
import pytest

from keras_semimed.export import NEEDS, export, inference_model
from keras_semimed.models import DCNet, FixMatch, Hermes, LoCo
from keras_semimed.networks import Classifier, DeepLabV3Plus, JointNetwork, UNet
from keras_semimed.saved import load_model

TINY = {"image_size": 32, "encoder": "resnet_tiny", "total_steps": 2}


@pytest.fixture(scope="module")
def hermes():
    model = Hermes(**TINY, decoder_filters=(8, 8, 8, 8, 8), bank_size=8, teacher_momentum=0.9)
    rng = np.random.default_rng(0)
    for variable in [*model.network.variables, *model.teacher.variables]:
        if variable.name in ("gamma", "kernel", "bias"):  # teacher and student differ, nothing is 0 or 1
            variable.assign(keras.ops.convert_to_numpy(variable) + rng.normal(0, 0.1, variable.shape))
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3)).astype("uint8")


def assert_equal_outputs(first, second, images):
    ours, theirs = first.predict_on_batch(images), second.predict_on_batch(images)
    assert ours.keys() == theirs.keys()
    for head in ours:
        np.testing.assert_allclose(np.asarray(theirs[head]), np.asarray(ours[head]), atol=1e-5)


def test_keras_file_predicts_as_the_teacher_without_projectors_bank_and_student(hermes, images, tmp_path):
    export(hermes, tmp_path / "hermes.keras")
    loaded = load_model(tmp_path / "hermes.keras")
    assert_equal_outputs(hermes, loaded, images)
    assert type(loaded).__name__ == "Functional"
    assert loaded.count_params() == hermes.teacher.network.count_params() < hermes.teacher.count_params()
    card = (tmp_path / "hermes.keras.md").read_text()
    assert "`mask`" in card and "(N, 32, 32, 2)" in card and "not a medical device" in card and "gradient" in card


@pytest.mark.parametrize(
    ("arguments", "heads", "network"),
    [
        ({"attention_on": "labeled"}, {"mask", "label"}, JointNetwork),
        ({"exchange": "none", "num_labels": 3}, {"mask", "label"}, JointNetwork),
        ({"tasks": "segmentation", "num_classes": 3}, {"mask"}, UNet),
        ({"tasks": "segmentation", "network": "deeplab", "decoder_filters": 8}, {"mask"}, DeepLabV3Plus),
        ({"tasks": "classification", "num_labels": 3}, {"label"}, Classifier),
    ],
)
def test_each_network_gives_what_it_learnt_and_switched_off_parts_stay_off(arguments, heads, network, images):
    model = Hermes(**{**TINY, "decoder_filters": (8, 8, 8, 8, 8), "bank_size": 8, **arguments})
    exported = inference_model(model)
    assert_equal_outputs(model, exported, images)
    assert set(exported.output) == heads
    assert isinstance(exported.layers[1], network) and exported.count_params() < model.count_params()


def test_a_classifier_s_card_names_its_one_output(images, tmp_path):
    model = FixMatch(**TINY, tasks="classification", num_labels=3, teacher_momentum=0.9)
    export(model, tmp_path / "classes.keras")
    assert_equal_outputs(model, load_model(tmp_path / "classes.keras"), images)
    card = (tmp_path / "classes.keras.md").read_text()
    assert "`label`, probabilities of the image classes `(N, 3)`" in card and "`mask`" not in card
    assert "has no saliency map" in card


def test_without_saliency_only_the_map_is_missing(hermes, images, tmp_path):
    exported = export(hermes, tmp_path / "plain.keras", saliency=False)
    with_map, without = (model.predict_on_batch(images) for model in (hermes, exported))
    np.testing.assert_allclose(np.asarray(without["label"]), np.asarray(with_map["label"]), atol=1e-5)
    assert np.abs(np.asarray(without["mask"]) - np.asarray(with_map["mask"])).max() > 1e-4
    assert "Zeros stand in the place" in (tmp_path / "plain.keras.md").read_text()


def test_loco(images, tmp_path):
    model = LoCo(**TINY, decoder_filters=8)
    export(model, tmp_path / "loco.keras")
    loaded = load_model(tmp_path / "loco.keras")
    assert_equal_outputs(model, loaded, images)
    assert not any("project" in variable.path for variable in loaded.variables)


@pytest.mark.parametrize("teacher_momentum", [None, 0.9])
def test_of_two_decoders_the_one_that_predicts(images, tmp_path, teacher_momentum):
    model = DCNet(**TINY, decoder_filters=(8, 8, 8, 8, 8), teacher_momentum=teacher_momentum)
    export(model, tmp_path / "dcnet.keras")
    loaded = load_model(tmp_path / "dcnet.keras")
    assert_equal_outputs(model, loaded, images)
    assert isinstance(loaded.layers[1], UNet)
    assert loaded.count_params() == model.predictor.network.segmentation.count_params()
    assert not any("second" in variable.path or "upsampling" in variable.path for variable in loaded.variables)


def test_what_cannot_be_written_is_refused_whole(hermes, tmp_path, monkeypatch):
    (tmp_path / "there.keras").write_text("mine")
    with pytest.raises(FileExistsError, match="there.keras"):
        export(hermes, tmp_path / "there.keras")
    with pytest.raises(ValueError, match="suffix"):
        export(hermes, tmp_path / "model.h5")
    with pytest.raises(ValueError, match="ends in .keras"):
        export(hermes, tmp_path / "model", format="keras")
    with pytest.raises(TypeError, match="found Functional"):
        export(inference_model(hermes), tmp_path / "again.keras")
    with pytest.raises(ValueError, match="format='pickle'"):
        export(hermes, tmp_path / "model", format="pickle")
    with monkeypatch.context() as patch:
        off = {"mask": np.full((4, 32, 32, 2), 0.5), "label": np.full((4, 2), 0.5)}
        patch.setattr("keras_semimed.export._write_and_run", lambda *_: off)
        with pytest.raises(ValueError, match="other outputs than the model"):
            export(hermes, tmp_path / "other.keras")
    monkeypatch.setitem(NEEDS, "onnx", ())
    monkeypatch.setattr(keras.Model, "export", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ValueError, match="saliency=False"):
        export(hermes, tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["there.keras"]


# What docs/prediction.md says of each backend.
FORMATS = {"tensorflow": ("saved", "model.tflite", "model.onnx"), "jax": ("saved",), "torch": ("model.onnx",)}


@pytest.mark.parametrize("name", FORMATS[keras.backend.backend()])
def test_other_formats_are_run_before_they_are_kept(name, tmp_path):
    if name.endswith("onnx"):
        pytest.importorskip("onnxruntime")
    else:
        pytest.importorskip("tensorflow")
    model = LoCo(**TINY, decoder_filters=8)
    export(model, tmp_path / name)  # raises where the written file gives other outputs than the model
    assert (tmp_path / name).exists()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow makes these formats")
def test_a_gradient_does_not_fit_into_litert_and_the_variant_without_does(hermes, tmp_path):
    with pytest.raises(ValueError, match="saliency=False"):
        export(hermes, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []
    export(hermes, tmp_path / "model.tflite", saliency=False)
    assert "Zeros stand in the place" in (tmp_path / "model.tflite.md").read_text()
