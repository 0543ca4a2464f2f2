"""The UDIAT reader, on made files in its layout: the images are given out on request only."""

import builtins
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data import load_image_set
from keras_semimed.data.readers.udiat import UdiatSource
from tests.data.polyp_files import disc, zipped

pytest.importorskip("openpyxl", reason="the list of UDIAT is an Excel file")

DUMMY = Path(__file__).resolve().parents[2] / "datasets" / "udiat" / "dummy_data"
NAMES = ["000001", "000002", "000010", "000163"]
LIST = "Image,Type\n1,Benign\n2,Malignant\n10,Benign\n163,Malignant\n"


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(DUMMY, tmp_path / "parent")
    return tmp_path / "parent" / "DatasetB"


def test_masks_of_every_mode_and_classes_of_the_list():
    source = UdiatSource(DUMMY)
    pairs = list(source)
    assert [pair.name for pair in pairs] == NAMES and [source.label(name) for name in NAMES] == [0, 1, 0, 1]
    modes = [Image.open(source.path / files.masks[0]).mode for files in source.files]
    assert modes == ["L", "1", "RGB", "RGBA"]
    for index, pair in enumerate(pairs):
        assert pair.image.shape == (30 + 2 * index, 40, 3)
        np.testing.assert_array_equal(pair.mask, disc(30 + 2 * index, 40, 14, 18, 6 + index) > 0)


def test_near_duplicates_are_a_group(copy):
    for folder in ("original", "GT"):
        shutil.copy(copy / folder / "000002.png", copy / folder / "000011.png")
    (copy / "DatasetB.csv").write_text(LIST + "11,Benign\n")
    source = UdiatSource(copy)
    assert {name: source.group(name) for name in ("000002", "000010", "000011")} == {
        "000002": "000002",
        "000010": "000010",
        "000011": "000002",
    }


def test_folder_parent_zip_and_both_lists_are_the_same(copy, tmp_path):
    expected = UdiatSource(copy)
    archive = zipped(copy, tmp_path / "BUS.zip", "BUS/")
    (copy / "DatasetB.csv").write_text("\ufeff" + LIST, encoding="utf-8")  # as Excel saves it
    for path in (copy, copy.parent, archive, tmp_path):
        source = UdiatSource(path)
        assert source.fingerprint() == expected.fingerprint()
        assert [source.label(name) for name in NAMES] == [0, 1, 0, 1]
    (copy / "DatasetB.csv").write_text(LIST.replace("2,Malignant", "2,Benign"))
    assert UdiatSource(copy).fingerprint() != expected.fingerprint()


@pytest.mark.parametrize(
    "text, message",
    [
        (LIST.replace("10,Benign\n", ""), "DatasetB.csv has no row for the image 000010"),
        (
            LIST.replace("10,Benign", "10,normal"),
            "row 4: expected the number of an image and Benign or Malignant, found",
        ),
        (LIST + "1,Malignant\n", "row 6: image 1 has two classes"),
        ("number,kind\n", "expected the columns 'Image' and 'Type', found"),
        ("", "expected the columns 'Image' and 'Type', found"),
    ],
)
def test_lists_that_do_not_fit_are_named(copy, text, message):
    (copy / "DatasetB.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        UdiatSource(copy)


def test_a_missing_or_damaged_list_is_named(copy, tmp_path):
    file = copy / "DatasetB.xlsx"
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(ValueError, match="DatasetB.xlsx: not a readable Excel file"):
        UdiatSource(copy)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="DatasetB.xlsx is missing; UDIAT has no public download"):
        UdiatSource(copy)
    with pytest.raises(
        FileNotFoundError, match="no folders 'original' and 'GT'.*sign the licence agreement.*mmu.ac.uk"
    ):
        UdiatSource(tmp_path / "parent" / "DatasetB" / "GT")


def test_without_openpyxl_the_extra_is_named(copy, monkeypatch):
    imported = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "openpyxl":
            raise ImportError(name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install .\.\[excel\]. in a clone.*or save the list as DatasetB.csv"):
        UdiatSource(copy)
    (copy / "DatasetB.csv").write_text(LIST)
    assert len(UdiatSource(copy)) == 4


def test_how_to_get_the_images_is_said_where_they_are_missing(tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match="udiat"):
        load_image_set("udiat", 16, data_dir=tmp_path / "prepared")
    with pytest.raises(FileNotFoundError, match="UDIAT has no public download, its authors give it out"):
        UdiatSource(tmp_path / "nowhere")
