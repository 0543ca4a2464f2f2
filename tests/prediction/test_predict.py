"""Prediction of files: masks in the images' own size, resuming, bad files, refusals."""

import csv
import io
import json
import os

import keras
import numpy as np
import pytest
from PIL import Image

from keras_semimed.models import Supervised
from keras_semimed.predict import main
from keras_semimed.prediction import Options, find_images, predict_files
from keras_semimed.prediction.scores import score_prediction
from tests.models import common


def thresholds() -> keras.Model:
    """Lesion where red is above 128; the image class is that of the top left pixel."""
    inputs = keras.Input((32, 32, 3))
    red = inputs[..., :1] / 255
    both = keras.ops.concatenate([1 - red, red], -1)
    return keras.Model(inputs, {"mask": both, "label": both[:, 0, 0]})


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    (images / "below").mkdir(parents=True)
    for name, (height, width) in {
        "wide.png": (20, 60),
        "below/tall.jpg": (50, 30),
        "below/square.bmp": (32, 32),
    }.items():
        pixels = np.zeros((height, width, 3), "uint8")
        pixels[: height // 2] = 255
        Image.fromarray(pixels).save(images / name)
    (images / "broken.png").write_bytes(b"\x89PNG nothing more")
    (images / ".hidden.png").write_bytes(b"")
    (images / "notes.txt").write_text("no image")
    return images


def rows(output):
    with (output / "predictions.csv").open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_masks_overlays_and_table(folder, tmp_path):
    images, output = find_images([folder]), tmp_path / "out"
    assert set(images) == {"wide.png", "below/tall.jpg", "below/square.bmp", "broken.png"}
    report = predict_files(thresholds(), images, output, Options(batch_size=2))
    assert report.predicted == 3 and list(report.problems) == ["broken.png"]
    assert report.problems["broken.png"].startswith("cannot be decoded")
    for name, size in {"wide.png": (20, 60), "below/tall.jpg": (50, 30), "below/square.bmp": (32, 32)}.items():
        mask = np.asarray(Image.open(output / "masks" / f"{name}.png"))
        assert mask.shape == size and set(np.unique(mask)) == {0, 1}
        assert abs((mask == 1).mean() - 0.5) < 0.04 and mask[0].all()
        assert np.asarray(Image.open(output / "overlays" / f"{name}.png")).shape == (*size, 3)
        row = rows(output)[name]
        assert int(row["area_class_1"]) == mask.sum() and row["regions_class_1"] == "1"
        assert row["prediction"] == "1" and float(row["probability_1"]) == pytest.approx(1, abs=1e-3)
        assert float(row["mask_uncertainty"]) < 0.1


def test_interrupted_run_goes_on_and_ends_as_one_in_a_go(folder, tmp_path, monkeypatch):
    from keras_semimed.prediction.output import OutputFolder

    images, (whole, halves) = find_images([folder]), (tmp_path / "whole", tmp_path / "halves")
    predict_files(thresholds(), images, whole, Options(1))
    save, count = OutputFolder.save_pictures, iter(range(9))
    monkeypatch.setattr(OutputFolder, "save_pictures", lambda *args: save(*args) if next(count) < 1 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict_files(thresholds(), images, halves, Options(1))
    monkeypatch.undo()
    with (halves / "predictions.csv").open("a") as table:
        table.write("below/tall.jpg,1,0.2")  # the process died while it wrote this line
    report = predict_files(thresholds(), images, halves, Options(2))
    assert report.done_before == 1 and report.predicted == 2
    assert rows(halves) == rows(whole)
    files = [sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png")) for out in (whole, halves)]
    assert files[0] == files[1] and len(files[0]) == 6
    for name in files[0]:
        assert (whole / name).read_bytes() == (halves / name).read_bytes()


def test_nothing_is_overwritten_unasked(folder, tmp_path):
    images, output = find_images([folder]), tmp_path / "out"
    predict_files(thresholds(), images, output)
    before = (output / "masks" / "wide.png.png").stat().st_mtime_ns
    assert predict_files(thresholds(), images, output).predicted == 0
    with pytest.raises(FileExistsError, match="flip=False, now it is True"):
        predict_files(thresholds(), images, output, Options(flip=True))
    assert (output / "masks" / "wide.png.png").stat().st_mtime_ns == before
    assert predict_files(thresholds(), images, output, Options(flip=True), overwrite=True).predicted == 3
    wide = {"wide.png": images["wide.png"]}
    assert predict_files(thresholds(), wide, output, Options(overlays=False), overwrite=True).predicted == 1
    assert [file.name for file in output.rglob("*.png")] == ["wide.png.png"]  # nothing of the model before is left
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        predict_files(thresholds(), images, other)
    assert [file.name for file in other.iterdir()] == ["thesis.txt"]


def test_overwriting_leaves_no_labels_of_the_model_before(folder, tmp_path):
    images, output = {"wide.png": find_images([folder])["wide.png"]}, tmp_path / "out"
    predict_files(thresholds(), images, output, Options(labels=("x", "y"), as_labels=True))
    assert (output / "labels.csv").exists() and (output / "masks" / "wide.png").exists()
    predict_files(thresholds(), images, output, overwrite=True)
    assert not (output / "labels.csv").exists()
    assert [file.name for file in (output / "masks").iterdir()] == ["wide.png.png"]


def test_flips_and_padding_leave_a_pixelwise_model_alone(folder, tmp_path):
    images = find_images([folder])
    for index, options in enumerate((Options(), Options(flip=True), Options(keep_aspect=True))):
        predict_files(thresholds(), images, tmp_path / str(index), options)
    masks = [np.asarray(Image.open(tmp_path / str(index) / "masks" / "wide.png.png")) for index in range(3)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).mean() < 0.05


def test_scores_of_a_made_case():
    mask = np.zeros((6, 6), "uint8")
    mask[0, 0] = mask[1, 1] = mask[4:, 4:] = 1
    probabilities = np.full((3, 3, 2), 0.5)
    scores = score_prediction(probabilities, mask, np.array([0.25, 0.75]), ["benign", "malignant"])
    assert scores["area_class_1"] == 6 and scores["share_class_1"] == pytest.approx(6 / 36, abs=1e-6)
    assert scores["regions_class_1"] == 2 and scores["mask_uncertainty"] == 1
    assert scores["prediction"] == "malignant" and scores["probability_benign"] == 0.25
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / np.log(2)
    assert scores["label_uncertainty"] == pytest.approx(entropy, abs=1e-6)


def test_image_classes_can_be_named(folder, tmp_path):
    images, output = find_images([folder]), tmp_path / "out"
    named = Options(labels=("benign", "malignant"))
    assert predict_files(thresholds(), images, output, named).predicted == 3
    row = rows(output)["wide.png"]
    assert row["prediction"] == "malignant" and float(row["probability_malignant"]) > 0.99
    assert predict_files(thresholds(), images, output, named).done_before == 3
    with pytest.raises(ValueError, match="has 2 image classes; give as many different names"):
        predict_files(thresholds(), images, tmp_path / "other", Options(labels=("one",)))
    assert not (tmp_path / "other").exists()


def test_same_names_of_two_folders_stay_apart(folder, tmp_path):
    names = find_images([folder, folder / "below"])
    assert "below/tall.jpg" in names and "tall.jpg" in names
    again = find_images([folder / "below", folder / "below"])
    assert len(again) == 4 and len(set(again.values())) == 2
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_images([tmp_path / "nowhere"])


def test_command_reports_what_is_wrong(folder, tmp_path, capsys):
    model = tmp_path / "model.keras"
    model.write_bytes(b"PK no zip")
    assert main([str(model), str(folder), "--output", str(tmp_path / "out")]) == 2
    assert "model.keras is no Keras model" in capsys.readouterr().err
    assert main([str(tmp_path / "none.keras"), str(folder), "--output", str(tmp_path / "out")]) == 2
    assert "none.keras does not exist" in capsys.readouterr().err and not (tmp_path / "out").exists()
    inputs = keras.Input((16, 16, 3))
    keras.Model(inputs, {"mask": keras.layers.Conv2D(2, 1, activation="softmax")(inputs)}).save(tmp_path / "ok.keras")
    assert main([str(tmp_path / "ok.keras"), str(folder), "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert "3 images predicted" in said and "1 files could not be predicted" in said and "broken.png" in said


def test_classifier_alone(folder, tmp_path):
    inputs = keras.Input((8, 8, 3))
    label = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, {"label": label})
    for expected in (3, 0):
        assert predict_files(model, find_images([folder]), tmp_path / "out").predicted == expected
    assert list(rows(tmp_path / "out")["wide.png"])[-2:] == ["probability_2", "label_uncertainty"]
    assert not (tmp_path / "out" / "masks").exists()


def test_models_of_this_package_tell_their_size_and_others_by_their_input(folder, tmp_path):
    model = Supervised(**common.arguments(tasks="segmentation"))
    assert predict_files(model, find_images([folder]), tmp_path / "out").predicted == 3
    assert json.loads((tmp_path / "out" / "predict.json").read_text())["image_size"] == 32
    inputs = keras.Input((None, None, 3))
    mask = keras.layers.Conv2D(2, 1, activation="softmax")(inputs)
    for other in (keras.Model(inputs, {"mask": mask}), keras.Sequential(), keras.Model(name="made_of_nothing")):
        with pytest.raises(ValueError, match="square images of a known size"):
            predict_files(other, find_images([folder]), tmp_path / "other")


def test_names_that_cannot_be_written_stop_nothing(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), "uint8")).save(picture, "PNG")
    try:
        for name in (b"bad\xff.png", b"n" * 250 + b".png", b"new\nline.png", b"plain.png"):
            with open(os.path.join(os.fsencode(images), name), "wb") as file:
                file.write(picture.getvalue())
    except OSError as error:
        pytest.skip(f"the file system takes no such names: {error}")
    for predicted, before in ((2, 0), (0, 2)):
        report = predict_files(thresholds(), find_images([images]), tmp_path / "out")
        assert (report.predicted, report.done_before) == (predicted, before)
        assert sorted(problem.split(";")[0] for problem in report.problems.values()) == [
            "its name is not valid UTF-8",
            "its name is too long to add a suffix",
        ]
    assert set(rows(tmp_path / "out")) == {"new\nline.png", "plain.png"}


def test_another_file_of_the_same_name_is_refused(folder, tmp_path):
    predict_files(thresholds(), find_images([folder]), tmp_path / "out")
    Image.fromarray(np.zeros((9, 9, 3), "uint8")).save(folder / "wide.png")
    with pytest.raises(FileExistsError, match="another wide.png"):
        predict_files(thresholds(), find_images([folder]), tmp_path / "out")
    assert predict_files(thresholds(), find_images([folder]), tmp_path / "out", overwrite=True).predicted == 3
