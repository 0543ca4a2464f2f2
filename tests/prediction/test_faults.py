"""Prediction of files: what is found, and damaged, clashing or unwritable ones."""

import csv
import errno
import json
import os
import threading

import keras
import numpy as np
import pytest
from PIL import Image

from keras_semimed.data.images.resizing import class_mask
from keras_semimed.files import read_table
from keras_semimed.predict import main
from keras_semimed.prediction import Options, find_files, find_images, predict_files, reading, run
from keras_semimed.prediction.pictures import painted


def red() -> keras.Model:
    """Lesion where red is above 128; not finite where an image is black at its top left."""
    inputs = keras.Input((16, 16, 3))
    values = inputs[..., :1] / 255
    corner = values[:, 0, 0]
    mask = keras.ops.concatenate([1 - values, values], -1)
    return keras.Model(
        inputs, {"mask": mask, "label": keras.ops.concatenate([1 - corner, corner / (corner * 1e3)], -1)}
    )


def save(path, top_left=200, size=(16, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((*size, 3), "uint8")
    pixels[: size[0] // 2, : size[1] // 2] = top_left
    Image.fromarray(pixels).save(path)
    return path


def names(output):
    with (output / "predictions.csv").open(newline="") as file:
        return [row["file"] for row in csv.DictReader(file)]


def files(output):
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())


def saved(path, outputs, size=16):
    inputs = keras.Input((size, size, 3))
    keras.Model(inputs, outputs(inputs)).save(path)
    return str(path)


def classifier(inputs):
    return {"label": keras.layers.Dense(2, activation="softmax")(keras.layers.GlobalAveragePooling2D()(inputs))}


def test_predictions_are_not_predicted(tmp_path):
    folder, output = tmp_path / "in", tmp_path / "in" / "pred"
    save(folder / "a.png")
    save(output / "masks" / "a.png")
    assert set(find_images([folder])) == {"a.png", "pred/masks/a.png"}  # no predictions yet, and not known as output
    assert set(find_images([folder], output)) == {"a.png"}
    predict_files(red(), find_images([folder], output), output, overwrite=True)
    assert set(find_images([folder])) == {"a.png"}
    with pytest.raises(FileNotFoundError, match="folders of predictions are left out"):
        find_images([output])
    for text in ("[]", "{broken", '{"another": "program"}'):
        (output / "predict.json").write_text(text)
        assert len(find_images([folder])) > 1


def test_dicom_without_a_suffix_is_found_and_other_files_are_counted(tmp_path):
    pytest.importorskip("pydicom")
    from tests.data.dicom_files import dicom

    content = dicom(np.full((20, 30), 200, "uint8"))
    for name in ("IM000001", "1.2.840.10008", "DICOMDIR"):
        (tmp_path / name).write_bytes(content)
    for name in ("a.svg", "b.TXT", "README", ".hidden.txt"):
        (tmp_path / name).write_bytes(b"no image")
    found = find_files([tmp_path])
    assert set(found.images) == {"IM000001", "1.2.840.10008"}
    assert [file.name for file in found.others] == ["DICOMDIR", "README", "a.svg", "b.TXT"]
    report = predict_files(red(), found.images, tmp_path / "out")
    assert report.predicted == 2 and Image.open(tmp_path / "out" / "masks" / "IM000001.png").size == (30, 20)
    report = predict_files(red(), find_images([tmp_path / "b.TXT"]), tmp_path / "other")
    assert "no known format" in report.problems["b.TXT"]


def test_values_that_are_not_finite_are_a_problem(tmp_path):
    images = {name: save(tmp_path / name, red) for name, red in {"good.png": 200, "bad.png": 0}.items()}
    report = predict_files(red(), images, tmp_path / "out")
    assert report.predicted == 1 and report.problems == {"bad.png": "the model gives values that are not finite"}
    assert names(tmp_path / "out") == ["good.png"]
    assert files(tmp_path / "out") == ["masks/good.png.png", "overlays/good.png.png", "predict.json", "predictions.csv"]


@pytest.mark.parametrize("head, shape", [("mask", (16, 16, 1)), ("label", (1,)), ("mask", (16, 2)), ("label", (4, 2))])
def test_outputs_of_other_shapes_are_refused(tmp_path, head, shape):
    inputs = keras.Input((16, 16, 3))
    values = keras.layers.Reshape(shape)(keras.layers.Dense(int(np.prod(shape)))(keras.layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match=rf"'{head}' output is .*softmax probabilities of at least 2 classes"):
        predict_files(keras.Model(inputs, {head: values}), {"a.png": save(tmp_path / "a.png")}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_pipes_are_not_waited_for(tmp_path):
    save(tmp_path / "a.png")
    for name in ("pipe.png", "pipe"):
        os.mkfifo(tmp_path / name)
        # Ends what a reader would wait for, so that the test fails rather than hangs.
        threading.Thread(target=(tmp_path / name).write_bytes, args=[b""], daemon=True).start()
    found = find_files([tmp_path])
    assert [file.name for file in found.others] == ["pipe"]
    report = predict_files(red(), found.images, tmp_path / "out")
    assert report.predicted == 1 and report.problems == {"pipe.png": "is no ordinary file; remove it"}


def test_masks_beside_their_images_are_not_predicted_unless_they_are_named(tmp_path, capsys):
    folder = tmp_path / "benign"
    for name in ("benign (1)", "benign (1)_mask", "benign (1)_mask_1", "benign (2)", "alone_mask"):
        save(folder / f"{name}.png")
    save(tmp_path / "other" / "benign (1)_mask.png")  # in another folder it is nobody's
    found = find_files([folder, tmp_path / "other"])
    assert {name.rpartition("/")[2] for name in found.images} == {
        *("benign (1).png", "benign (2).png", "alone_mask.png", "benign (1)_mask.png")
    }
    assert [file.name for file in found.masks] == ["benign (1)_mask.png", "benign (1)_mask_1.png"] and not found.others
    model = saved(tmp_path / "m.keras", classifier)
    assert main([model, str(folder), "--output", str(tmp_path / "out")]) == 0
    line = "2 masks beside their images were left out, such as benign (1)_mask.png; name a file to predict it\n"
    assert line in capsys.readouterr().out and len(names(tmp_path / "out")) == 3
    named = folder / "benign (1)_mask.png"
    assert main([model, str(named), "--output", str(tmp_path / "named")]) == 0
    assert names(tmp_path / "named") == [named.name] and "left out" not in capsys.readouterr().out


def test_a_folder_without_permission_is_not_passed_over(tmp_path, monkeypatch, capsys):
    save(tmp_path / "in/a.png")
    save(tmp_path / "in/locked/b.png")
    look = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", refuse)
    model = saved(tmp_path / "m.keras", classifier)
    assert main([model, str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error == f"error: {tmp_path}/in/locked cannot be read (Permission denied); change its permissions\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--intensity-range", "nan", "1"], "`intensity_range` must be"),
        (["--intensity-range", "0", "1e400"], "`intensity_range` must be"),
        (["--batch-size", "1000000000000"], "`batch_size`: 1000000000000 images of 16 x 16 pixels take"),
        (["--labels", "a", "A"], "`labels`: 'a' and 'A' are one name"),
        (["--labels", "a", "\x1b[2J"], "`labels`: the name '\\x1b[2J' holds control characters"),
        (["--labels", "a"], "the model has 2 image classes"),
    ],
)
def test_words_that_make_no_sense_end_with_2_and_write_nothing(tmp_path, capsys, words, message):
    model = saved(tmp_path / "m.keras", classifier)
    save(tmp_path / "a.png")
    assert main([model, str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and not (tmp_path / "out").exists()


def test_names_and_classes_do_nothing_to_screen_and_table(tmp_path, capsys):
    save(tmp_path / "in" / "=1+1\nx.png")
    save(tmp_path / "in" / "\x1b[2J.png")
    (tmp_path / "in" / "bad\nname.png").write_bytes(b"nothing")
    model = saved(tmp_path / "m.keras", classifier)
    words = [model, str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--as-labels"]
    assert main([*words, "--labels", "=cmd", "@sum"]) == 1
    printed = capsys.readouterr().out
    assert "\x1b" not in printed, ascii(printed)
    assert "  bad\\nname.png: cannot be decoded" in printed
    assert "  \\x1b[2J.png: its name holds control characters; rename it" in printed
    for table in ("predictions.csv", "labels.csv"):
        (row,) = read_table(tmp_path / "out" / table)
        assert row["file"] == "=1+1\nx.png" and {"=cmd", "@sum"} & set(row.values())
        with (tmp_path / "out" / table).open(newline="") as file:
            assert all(not cell.startswith(("=", "@", "+")) for cells in csv.reader(file) for cell in cells)


def test_a_name_clash_is_the_problem_of_one_image(tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "a.png.png/x.png", "b.png"):
        save(folder / name)
    for before in (0, 2):
        report = predict_files(red(), find_images([folder]), output)
        assert report.done_before == before and sorted(names(output)) == ["a.png.png/x.png", "b.png"]
        assert list(report.problems) == ["a.png"] and "the name of the folder a.png.png" in report.problems["a.png"]
    # The same with what was there before: a folder instead of a mask, a file instead of a folder.
    (output / "masks" / "c.png.png").mkdir()
    more = {name: save(tmp_path / "more" / "c.png") for name in ("c.png", "b.png.png/d.png", "e.png")}
    report = predict_files(red(), more, output)
    assert report.predicted == 1 and set(report.problems) == {"c.png", "b.png.png/d.png"}
    assert all("cannot be written" in problem for problem in report.problems.values())
    assert not (output / "overlays" / "c.png.png").exists() and (output / "overlays" / "e.png.png").exists()


def test_a_full_disk_stops_the_run(tmp_path, monkeypatch, capsys):
    images = [str(save(tmp_path / name)) for name in ("a.png", "b.png", "c.png")]
    model = saved(tmp_path / "model.keras", lambda x: {"mask": keras.layers.Conv2D(2, 1, activation="softmax")(x)})
    command = [model, *images, "--output", str(tmp_path / "out"), "--batch-size", "1"]

    def fail(self, path, *args, **kwargs):
        if "b.png" in str(path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, path, *args, **kwargs)

    write = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", fail)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "b.png.png cannot be written (No space left on device)" in error
    assert names(tmp_path / "out") == ["a.png"] and not list(tmp_path.rglob("*partial*"))
    monkeypatch.undo()
    assert main(command) == 0 and "2 images predicted" in capsys.readouterr().out


def test_masks_and_overlays_equal_the_plain_formulas():
    rng = np.random.default_rng(0)
    for classes in (2, 3):
        probabilities = rng.dirichlet(np.ones(classes), (7, 5)).astype("float32")
        probabilities[:3] = 1 / classes  # ties
        maps = [Image.fromarray(np.ascontiguousarray(probabilities[..., k])) for k in range(classes)]
        maps = np.stack([np.asarray(map_.resize((40, 30), Image.Resampling.BILINEAR)) for map_ in maps], -1)
        mask = class_mask(probabilities, (30, 40))
        np.testing.assert_array_equal(mask, maps.argmax(-1))
        assert mask.dtype == np.uint8 and len(np.unique(mask)) == classes
    image = rng.integers(0, 256, (30, 40, 3), dtype="uint8")
    green = np.where(mask[..., None] == 1, np.rint(0.55 * image + 0.45 * np.array([0, 255, 0])), image)
    np.testing.assert_allclose(painted(image, mask.clip(max=1), 2)[mask < 2], green[mask < 2], atol=1)


def test_large_images_are_read_again_and_come_out_the_same(tmp_path, monkeypatch):
    images = {name: save(tmp_path / name, size=(40, 60)) for name in ("a.png", "b.png")}
    predict_files(red(), images, tmp_path / "kept")
    monkeypatch.setattr(reading, "KEPT", 100)
    held = []
    write = run._write
    monkeypatch.setattr(run, "_write", lambda item, *rest: held.append(item.image) or write(item, *rest))
    assert predict_files(red(), images, tmp_path / "again").predicted == 2 and held == [None, None]
    assert files(tmp_path / "kept") == files(tmp_path / "again")
    for name in files(tmp_path / "kept"):
        assert (tmp_path / "kept" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_row_cut_inside_a_name_is_dropped(tmp_path):
    model = keras.Model(inputs := keras.Input((16, 16, 3)), classifier(inputs))
    images = {name: save(tmp_path / "a.png") for name in ("a.png", "new\nline.png")}
    predict_files(model, images, tmp_path / "out")
    table = tmp_path / "out" / "predictions.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[: whole.index(b'"new\nline.png"') + 7])
    assert predict_files(model, images, tmp_path / "out").predicted == 1
    assert table.read_bytes() == whole


@pytest.mark.parametrize(
    "name, content", [("predict.json", b"[]"), ("predict.json", b"{"), ("predictions.csv", b"\xff\n")]
)
def test_damaged_output_is_a_clean_error(tmp_path, capsys, name, content):
    command = [
        saved(tmp_path / "m.keras", classifier),
        str(save(tmp_path / "a.png")),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0
    (tmp_path / "out" / name).write_bytes(content)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(tmp_path / "out" / name) in error and error.count("\n") == 1
    assert (tmp_path / "out" / name).read_bytes() == content


def test_overlays_that_are_gone_are_made_again(tmp_path):
    images = {name: save(tmp_path / name) for name in ("a.png", "b.png")}
    for overlays, predicted in ((True, 1), (False, 0)):
        output = tmp_path / str(overlays)
        predict_files(red(), images, output, Options(overlays=overlays))
        before = files(output)
        (output / "overlays" / "a.png.png").unlink(missing_ok=True)
        assert predict_files(red(), images, output, Options(overlays=overlays)).predicted == predicted
        assert files(output) == before and sorted(names(output)) == ["a.png", "b.png"]


def test_finished_files_are_checked_under_a_progress_bar(tmp_path, monkeypatch):
    images = {"a.png": save(tmp_path / "a.png")}
    predict_files(red(), images, tmp_path / "out")
    bars = []
    monkeypatch.setattr(run, "progress", lambda items, *rest: bars.append((rest[0], len(items))) or items)
    predict_files(red(), images, tmp_path / "out")
    assert bars[0] == ("checking what is done", 1)


def test_command_says_what_was_left_out_and_which_models_it_takes(tmp_path, capsys):
    folder = tmp_path / "in"
    save(folder / "a.png")
    for name in ("a.svg", "b.txt", "c.txt", ".hidden"):
        (folder / name).write_bytes(b"")
    model = saved(tmp_path / "m.keras", classifier)
    assert main([model, str(folder), "--output", str(folder / "out")]) == 0
    assert "\n3 other files were left out: .svg, .txt\n" in capsys.readouterr().out
    assert json.loads((folder / "out" / "predict.json").read_text())["image_size"] == 16
    (tmp_path / "m.tflite").write_bytes(b"")
    for other in (folder, tmp_path / "m.tflite"):
        assert main([str(other), str(folder), "--output", str(tmp_path / "other")]) == 2
        assert f"{other}: only .keras files are loaded" in capsys.readouterr().err
