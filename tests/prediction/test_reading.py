"""A file is read for prediction as it is for training, without being told how."""

from __future__ import annotations

import dataclasses
import io
import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_semimed.data import (
    EvaluationBatches,
    ImageSet,
    SemiSupervisedBatches,
    export_annotations,
    from_folder,
    read_folder,
)
from keras_semimed.data.images.resizing import class_mask
from keras_semimed.data.images.rules import ReadingRules
from keras_semimed.evaluation import evaluate_images
from keras_semimed.export import export
from keras_semimed.models import Supervised
from keras_semimed.prediction import Options, find_images, predict_files
from keras_semimed.provenance import Provenance, data_digest
from keras_semimed.saved import load_model, provenance_of, reading_of
from tests.data.dicom_files import dicom
from tests.data.image_files import encoded
from tests.models.common import UNET_WIDTHS, batches, tiny_encoder
from tests.prediction.test_predict import rows, thresholds

SIZE = 32


def content(kind: str, bits: int, colour: bool) -> bytes:
    """A ramp of the values that so many bits hold, half of it above the middle."""
    ramp = np.tile(np.linspace(0, 2**bits - 1, 60).round().astype("uint16" if bits > 8 else "uint8"), (40, 1))
    pixels = np.stack([ramp, ramp[:, ::-1], ramp], -1) if colour else ramp
    if kind == "DICOM":
        return dicom(pixels, "RGB" if colour else "MONOCHROME2", BitsStored=bits)
    if bits == 8:
        return encoded(pixels, kind)
    if kind == "TIFF":
        import tifffile

        file = io.BytesIO()
        tifffile.imwrite(file, pixels, photometric="rgb" if colour else "minisblack")
        return file.getvalue()
    return encoded(Image.fromarray(pixels), kind)


CASES = [
    *[(kind, 8, colour) for kind in ("PNG", "TIFF", "JPEG", "DICOM") for colour in (False, True)],
    *[(kind, bits, False) for kind in ("PNG", "TIFF", "DICOM") for bits in (12, 14, 16)],
    *[("DICOM", bits, True) for bits in (12, 16)],
]


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize(("kind", "bits", "colour"), CASES)
def test_the_mask_is_that_of_training_s_own_reading(tmp_path, kind, bits, colour, keep_aspect):
    suffix = {"JPEG": "jpg", "DICOM": "dcm"}.get(kind, kind.lower())
    for place in ("labeled/images", "unlabeled"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "labeled/masks").mkdir()
    data = content(kind, bits, colour)
    (tmp_path / f"labeled/images/a.{suffix}").write_bytes(data)
    (tmp_path / f"unlabeled/b.{suffix}").write_bytes(data)
    lesion = np.zeros((40, 60), "uint8")
    lesion[:, 30:] = 1
    Image.fromarray(lesion).save(tmp_path / "labeled/masks/a.png")
    declared = (0, 2**bits - 1) if bits in (12, 14) and kind != "DICOM" else None
    images = read_folder(tmp_path, SIZE, intensity_range=declared, keep_aspect=keep_aspect).labeled
    model = thresholds()
    found = find_images([tmp_path / "labeled/images"])
    report = predict_files(model, found, tmp_path / "out", Options(), reading=images.rules)
    assert report.predicted == 1 and not report.problems
    top, left, bottom, right = (0, 0, SIZE, SIZE) if images.areas is None else images.areas[0]
    expected = class_mask(model.predict_on_batch(images.images)["mask"][0][top:bottom, left:right], (40, 60))
    mask = np.asarray(Image.open(tmp_path / f"out/masks/a.{suffix}.png"))
    np.testing.assert_array_equal(mask, expected)
    assert mask[:, :28].max() == 0 and mask[:, 32:].min() == 1  # the right half is above the middle


def test_a_trained_and_an_exported_model_know_how_to_read_and_what_classes_are_called(tmp_path):
    for place in ("labeled/images", "labeled/masks", "unlabeled"):
        (tmp_path / "data" / place).mkdir(parents=True)
    deep = (np.arange(40 * 60).reshape(40, 60) * 1.7).astype("uint16")  # 12 bits
    lesion = (deep > 2000).astype("uint8")
    for index, name in enumerate("ab"):
        Image.fromarray(deep + index).save(tmp_path / f"data/labeled/images/{name}.png")
        Image.fromarray(lesion).save(tmp_path / f"data/labeled/masks/{name}.png")
    Image.fromarray(deep + 2).save(tmp_path / "data/unlabeled/c.png")
    (tmp_path / "data/labels.csv").write_text("file,class\na.png,good\nb.png,ill\n")
    data = from_folder(
        tmp_path / "data", SIZE, batch_size=2, steps_per_epoch=1, intensity_range=(0, 4095), keep_aspect=True
    )
    model = Supervised(image_size=SIZE, encoder=tiny_encoder(), decoder_filters=UNET_WIDTHS, total_steps=2)
    assert model.reading is None
    model.compile(run_eagerly=True)
    model.fit(data, verbose=0)
    model.save(tmp_path / "model.keras")
    export(model, tmp_path / "small.keras")
    masks = ("background", "lesion")
    rules = ReadingRules(SIZE, 3, True, (0, 4095), data.labeled.rules.masks, ("good", "ill"), masks)
    origin = Provenance(2, 1, data_digest(data.labeled, data.unlabeled))
    images, tables = find_images([tmp_path / "data/unlabeled"]), []
    for name in ("model", "small"):
        path = tmp_path / f"{name}.keras"
        loaded = load_model(path)
        assert (loaded.reading if name == "model" else reading_of(path)) == rules
        assert (loaded.provenance if name == "model" else provenance_of(path)) == origin
        assert keras.saving.load_model(path, compile=False) is not None
        predict_files(loaded, images, tmp_path / name, reading=reading_of(path))
        tables.append(rows(tmp_path / name)["c.png"])
    assert {"probability_good", "probability_ill"} <= set(tables[0]) and tables[0]["prediction"] in ("good", "ill")
    for column, value in tables[0].items():
        if column.startswith(("probability", "area")):
            assert float(value) == pytest.approx(float(tables[1][column]), abs=1e-4), column
    card = (tmp_path / "small.keras.md").read_text()
    assert "padded to 32 x 32, of more than 8 bits from 0 (black) to 4095 (white)" in card and "0 good, 1 ill" in card
    assert "Mask classes: 0 background, 1 lesion." in card and f"digest {origin.data}" in card


@pytest.mark.parametrize(
    ("otherwise", "said"),
    [
        ({"keep_aspect": True}, "were read with keep_aspect=True, .* with keep_aspect=False"),
        ({"channels": 1}, "were read with channels=1, .* with channels=3"),
        ({"class_names": ("ill", "good")}, r"have the classes \['ill', 'good'\], .*class_names=\['good', 'ill'\]"),
        ({"mask_class_names": ("lesion", "background")}, r"mask classes \['lesion', 'background'\]"),
    ],
)
def test_what_is_validated_with_is_read_as_what_is_trained_on(tmp_path, otherwise, said):
    for place in ("labeled/images", "labeled/masks", "unlabeled"):
        (tmp_path / place).mkdir(parents=True)
    for index, name in enumerate("ab"):
        image = np.arange(40 * 60).reshape(40, 60).astype("uint8") + index
        Image.fromarray(image).save(tmp_path / f"labeled/images/{name}.png")
        Image.fromarray((image > 100).astype("uint8")).save(tmp_path / f"labeled/masks/{name}.png")
        Image.fromarray(image).save(tmp_path / f"unlabeled/u{name}.png")
    (tmp_path / "labels.csv").write_text("file,class\na.png,good\nb.png,ill\n")
    trained, other = read_folder(tmp_path, SIZE), read_folder(tmp_path, SIZE, **otherwise)
    train = SemiSupervisedBatches(trained.labeled, trained.unlabeled, 2)
    model = Supervised(image_size=SIZE, encoder=tiny_encoder(), decoder_filters=UNET_WIDTHS, total_steps=2)
    model.compile(run_eagerly=True)
    with pytest.raises(ValueError, match=said):
        model.fit(train, validation_data=EvaluationBatches(other.labeled), verbose=0)
    assert model.optimizer.iterations == 0
    with pytest.raises(ValueError, match=said):
        model.evaluate(EvaluationBatches(other.labeled), verbose=0)
    with pytest.raises(ValueError, match=said):
        evaluate_images(model, EvaluationBatches(other.labeled))
    assert len(evaluate_images(model, EvaluationBatches(trained.labeled))) == 2
    if "keep_aspect" in otherwise:
        with pytest.raises(ValueError, match=f"the unlabelled images {said}"):
            SemiSupervisedBatches(trained.labeled, other.unlabeled, 2)


def test_the_digest_tells_training_images_apart():
    """A name, a pixel, a target or another half changes it, what is known of unlabelled images does not."""
    names, images = ["a", "b"], np.zeros((2, 8, 8, 3), "uint8")
    masks, other = np.zeros((2, 8, 8), "uint8"), images.copy()
    other[1, 2, 3, 0] = 1
    labeled, unlabeled = ImageSet(names, images, masks), ImageSet(["c", "d"], images)
    found = data_digest(labeled, unlabeled)
    assert found == data_digest(ImageSet(names, images.copy(), masks.copy()), ImageSet(["c", "d"], images, masks))
    changed = (
        (ImageSet(["a", "x"], images, masks), unlabeled),
        (ImageSet(names, other, masks), unlabeled),
        (ImageSet(names, images, masks + 1), unlabeled),
        (ImageSet(names, images, None, np.array([0, 1], "int32"), class_names=("u", "v")), unlabeled),
        (labeled, ImageSet(["c", "d"], other)),
    )
    assert len({found, *(data_digest(*pair) for pair in changed)}) == 6


def test_images_of_another_size_than_the_model_s_are_mentioned():
    data = batches(steps=1)
    data.labeled = dataclasses.replace(data.labeled, rules=ReadingRules(64))
    model = Supervised(image_size=SIZE, encoder=tiny_encoder(), decoder_filters=UNET_WIDTHS, total_steps=2)
    model.compile(run_eagerly=True)
    with pytest.warns(UserWarning, match="were read with image_size=64, the model has image_size=32"):
        model.fit(data, verbose=0)


def test_rules_refuse_what_is_none():
    for limits in ((1,), (5, 5), (9, 1), (0, float("inf")), "ab", 3):
        with pytest.raises(ValueError, match="`intensity_range` must be"):
            ReadingRules(32, intensity_range=limits)
    with pytest.raises(ValueError, match="`channels` must be 1 or 3"):
        ReadingRules(32, channels=4)
    rules = ReadingRules(32, 1, True, (0.0, 4095.0), "as they are", ("a", "b"))
    assert ReadingRules.from_config(rules.get_config()) == rules


def test_a_round_of_annotation_needs_no_file_renamed(tmp_path):
    """Images, predicted, corrected, and read as labelled ones, with two classes and with three."""
    for classes in (2, 3):
        root = tmp_path / str(classes)
        for place in ("labeled/images", "labeled/masks", "unlabeled"):
            (root / place).mkdir(parents=True)
        ramp = np.tile(np.linspace(0, 255, 60).astype("uint8"), (40, 1))
        for name, suffix in (("a.b", "jpg"), ("c", "tif"), ("d", "png")):
            (root / f"unlabeled/{name}.{suffix}").write_bytes(
                encoded(np.roll(ramp, 7 * len(name), 1), {"jpg": "JPEG", "tif": "TIFF", "png": "PNG"}[suffix])
            )
        inputs = keras.Input((SIZE, SIZE, 3))
        grey = inputs[..., :1] / 255
        maps = [1 - grey, grey] if classes == 2 else [1 - grey, 0.55 + 0 * grey, grey]
        both = keras.ops.concatenate(maps, -1)
        model = keras.Model(inputs, {"mask": both, "label": both[:, 0, 0, :2]})
        found = find_images([root / "unlabeled"])
        report = predict_files(model, found, root / "out", Options(labels=("x", "y"), as_labels=True))
        assert report.predicted == 3 and not report.problems and not (root / "out/classes.txt").exists()
        assert predict_files(model, found, root / "out", Options(labels=("x", "y"), as_labels=True)).predicted == 0
        names = ("background", "cyst", "solid")[:classes]
        known = ReadingRules(SIZE, mask_class_names=names)
        predict_files(model, found, root / "named", Options(labels=("x", "y"), as_labels=True), reading=known)
        assert (root / "named/classes.txt").read_text().split() == list(names[1:])
        export_annotations(root / "named", root / "drawn", "coco", images=root / "unlabeled")
        said = json.loads(next((root / "drawn").rglob("*.json")).read_text())["categories"]
        assert [category["name"] for category in said] == list(names[1:])
        for image, mask in (("a.b.jpg", "a.b.png"), ("c.tif", "c.png")):  # looked at, and found right
            (root / "unlabeled" / image).rename(root / "labeled/images" / image)
            (root / "out/masks" / mask).rename(root / "labeled/masks" / mask)
        wanted = [line for line in (root / "out/labels.csv").read_text().splitlines() if not line.startswith("d.")]
        (root / "labels.csv").write_text("\n".join(wanted) + "\n")
        folder = read_folder(root, SIZE, num_classes=classes)
        assert list(folder.labeled.names) == ["a.b", "c"] and list(folder.unlabeled.names) == ["d"]
        assert folder.labeled.class_names == tuple(sorted({line.split(",")[1] for line in wanted[1:]}))
        own = [mask.unpacked() for mask in folder.labeled.own_masks]
        assert all(mask.shape == (40, 60) and set(np.unique(mask)) == set(range(classes)) for mask in own)
    (root / "unlabeled/d.bmp").write_bytes(encoded(ramp, "BMP"))
    report = predict_files(model, find_images([root / "unlabeled"]), root / "two", Options(as_labels=True))
    assert list(report.problems.values()) == ["as a labelled image it would have the name of d.bmp; rename one of them"]
