"""The size of a file's pixels in mm: from DICOM headers and labels.csv, through everything that handles image sets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from keras_semimed.data import ImageSet, concatenate, masks_by_class, read_folder, read_image_folder, separate
from keras_semimed.data.cache import Stack
from keras_semimed.data.packed import of_classes, pack, read_packed
from keras_semimed.experiments.inputs.external import _columns
from keras_semimed.experiments.inputs.folder_checks import targets_of
from tests.data.image_files import encoded

SPACING = np.array([[0.5, 0.25], [np.nan, np.nan], [0.1, 0.1]])


def image_set(**changes) -> ImageSet:
    """Three images of two classes, the second of unknown spacing."""
    images = np.arange(3, dtype="uint8")[:, None, None, None] * np.ones((1, 4, 4, 3), "uint8")
    masks = np.tile(np.eye(4, dtype="uint8"), (3, 1, 1))
    given = {"labels": np.array([0, 1, 0], "int32"), "class_names": ("p", "q"), "spacing": SPACING}
    return ImageSet(["a", "b", "c"], images, masks, **{**given, **changes})


def folder(root: Path, table: str | None, files: dict[str, bytes] | None = None) -> Path:
    """Images of test/ with masks, PNG unless other bytes are given."""
    for place in ("images", "masks"):
        (root / "test" / place).mkdir(parents=True, exist_ok=True)
    mask = np.zeros((8, 6), "uint8")
    mask[2:5, 1:4] = 1
    for index, name in enumerate(("a.png", "b.png")):
        (root / "test/images" / name).write_bytes((files or {}).get(name, encoded(mask * 100 + index)))
        (root / "test/masks" / name).write_bytes(encoded(mask))
    if table is not None:
        (root / "labels.csv").write_text(table)
    return root


def test_it_survives_selections_joins_and_new_classes(tmp_path):
    images = image_set()
    np.testing.assert_array_equal(images.select(["c", "b"]).spacing, SPACING[[2, 1]])
    assert image_set(spacing=None).select(["c"]).spacing is None
    joined = concatenate({"x": images, "y": image_set(spacing=None)})
    np.testing.assert_array_equal(joined.spacing, np.concatenate([SPACING, np.full((3, 2), np.nan)]))
    assert concatenate({"x": image_set(spacing=None)}).spacing is None
    np.testing.assert_array_equal(separate(joined.select(["y/a", "x/c"]))["x"].spacing, SPACING[[2]])
    np.testing.assert_array_equal(masks_by_class(images).spacing, SPACING)
    np.testing.assert_array_equal(of_classes(images, ("p",)).spacing, SPACING[[0, 2]])


def test_it_survives_packing_and_images_on_disk(tmp_path):
    for number, spacing in enumerate((SPACING, None)):
        pack(image_set(spacing=spacing), "busi", tmp_path / f"{number}.npz")
        found = read_packed(tmp_path / f"{number}.npz", "busi", 4).spacing
        assert found is None if spacing is None else np.array_equal(found, spacing, equal_nan=True)
    stack = Stack(-1)
    for image in image_set().images:
        stack.append(image)
    on_disk = dataclasses.replace(image_set(), images=stack.rows(range(3)))
    np.testing.assert_array_equal(on_disk.select(["c", "a"]).spacing, SPACING[[2, 0]])


@pytest.mark.parametrize(
    ("spacing", "message"),
    [
        (SPACING[:2], r"`spacing` must be \(3, 2\) floats"),
        (np.ones((3, 2), "int64"), "floats, .* found .* int64"),
        (np.array([[1, 1], [1, 0], [1, 1.0]]), r"spacing of 'b' is \[1.0, 0.0\]"),
        (np.array([[1, 1], [1, 1], [1, np.nan]]), "spacing of 'c' is .*; expected height and width of a pixel in mm"),
    ],
)
def test_what_is_no_spacing_is_refused(spacing, message):
    with pytest.raises(ValueError, match=message):
        image_set(spacing=spacing)


@pytest.mark.parametrize(
    ("header", "cells", "expected"),
    [
        ("spacing_mm", "0.1", (0.1, 0.1)),
        ("Pixel spacing (mm)", " 0.1 ", (0.1, 0.1)),
        ("spacing_column_mm,spacing_row_mm", "0.1,0.2", (0.2, 0.1)),
        ("spacing_x_mm,spacing_y_mm", "0.1,0.2", (0.2, 0.1)),
    ],
)
def test_a_column_says_it(tmp_path, capsys, header, cells, expected):
    empty = "," * cells.count(",")
    root = folder(tmp_path, f"file,{header}\na.png,{cells}\nb.png,{empty}\n")
    images = read_image_folder(root, 4)
    np.testing.assert_array_equal(images.spacing, [expected, (np.nan, np.nan)])
    assert images.labels is None and images.masks is not None
    assert "test: 1 of 2 images say the size of their pixels in mm" in capsys.readouterr().out
    assert targets_of(root) == ()
    with_classes = f"file,class,scanner,{header}\na.png,x,A,{cells}\nb.png,y,B,{empty}\n"
    images = read_image_folder(folder(tmp_path, with_classes), 4)
    np.testing.assert_array_equal(images.spacing[0], expected)
    assert images.labels.tolist() == [0, 1] and targets_of(root) == ("classification",)
    # Images are scored by the scanner, not by the size of their pixels.
    assert _columns(root / "labels.csv") == {"a": {"scanner": "A"}, "b": {"scanner": "B"}}


@pytest.mark.parametrize("cell", ["0", "-0.1", "nan", "inf", "0.1 mm", '"0,1"'])
def test_a_cell_that_says_something_else_is_named(tmp_path, cell):
    root = folder(tmp_path, f"file,spacing_mm\na.png,0.1\nb.png,{cell}\n")
    text = cell.strip('"')
    with pytest.raises(ValueError, match=f"labels.csv: line 3 has the spacing_mm '{text}'; write the size of a pixel"):
        read_image_folder(root, 4)


def test_half_of_a_pair_and_other_units_are_mentioned_and_not_read(tmp_path, capsys):
    root = folder(tmp_path, "file,class,spacing_row_mm,spacing\na.png,x,0.1,0.1\nb.png,x,0.1,0.1\n")
    for part in ("labeled/images", "labeled/masks", "unlabeled"):
        (root / part).mkdir(parents=True)
    mask = np.eye(8, dtype="uint8")
    for place, factor in (("labeled/images", 50), ("labeled/masks", 1), ("unlabeled", 60)):
        (root / place / "l.png").write_bytes(encoded(mask * factor))
    (root / "labels.csv").write_text((root / "labels.csv").read_text() + "labeled/images/l.png,x,1,1\n")
    assert read_folder(root, 8).test.spacing is None
    printed = capsys.readouterr().out
    assert "labels.csv: not read, the columns spacing_row_mm, spacing" in printed and "in mm" not in printed


def test_a_table_of_spacings_is_none_of_classes(tmp_path):
    root = folder(tmp_path, "file,spacing_mm\na.png,0.1\n")
    for file in (root / "test/masks").iterdir():
        file.unlink()
    (root / "test/masks").rmdir()
    with pytest.raises(FileNotFoundError, match="neither test/masks nor labels.csv with classes"):
        read_image_folder(root, 4)


def region(delta_y: float, delta_x: float, units: int = 3):
    """An ultrasound region; units 3 are cm, 4 are seconds."""
    from pydicom.dataset import Dataset

    found = Dataset()
    found.PhysicalUnitsXDirection = found.PhysicalUnitsYDirection = units
    found.PhysicalDeltaY, found.PhysicalDeltaX = delta_y, delta_x
    return found


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": [0.5, 0.25], "ImagerPixelSpacing": [1, 1]}, (0.5, 0.25)),
        ({"ImagerPixelSpacing": [0.4, 0.3]}, (0.4, 0.3)),
        ({"PixelSpacing": [0, 0.25], "ImagerPixelSpacing": [0.4, 0.3]}, (0.4, 0.3)),
        ({"PixelSpacing": []}, None),
        ({"regions": [(0.02, 0.01)]}, (0.2, 0.1)),
        ({"regions": [(-0.02, 0.01), (0.02, 0.010000000001)]}, (0.2, 0.1)),
        ({"regions": [(0.02, 0.01), (0.03, 0.01)]}, None),
        ({"regions": [(0.02, 0.01), (0.02, 0.01, 4)]}, None),
        ({"regions": [(0.02, 0.01, 4)]}, None),
        ({"regions": [(0.0, 0.01)]}, None),
        ({"regions": [(0.02, 0.01)], "PixelSpacing": [0.5, 0.25]}, (0.5, 0.25)),
    ],
)
@pytest.mark.parametrize("masked", [True, False])
def test_dicom_says_it(tmp_path, tags, expected, masked):
    pytest.importorskip("pydicom")
    from tests.data.dicom_files import dicom

    tags = dict(tags)
    if "regions" in tags:
        tags["SequenceOfUltrasoundRegions"] = [region(*values) for values in tags.pop("regions")]
    pixels = np.random.default_rng(0).integers(0, 255, (8, 6), dtype="uint8")
    table = None if masked else "file,class\na.png,x\nb.png,y\n"
    root = folder(tmp_path, table, {"a.png": dicom(pixels, **tags)})
    if not masked:
        for file in (root / "test/masks").iterdir():
            file.unlink()
        (root / "test/masks").rmdir()
    found = read_image_folder(root, 4).spacing
    assert found is None if expected is None else found[0].tolist() == list(expected) and np.isnan(found[1]).all()


def test_the_column_counts_more_than_the_header(tmp_path):
    pytest.importorskip("pydicom")
    from tests.data.dicom_files import dicom

    files = {"a.png": dicom(np.eye(8, 6, dtype="uint8"), PixelSpacing=[0.5, 0.25])}
    root = folder(tmp_path, "file,spacing_mm\na.png,0.1\n", files)
    np.testing.assert_array_equal(read_image_folder(root, 4).spacing, [(0.1, 0.1), (np.nan, np.nan)])
