"""Kinds of files that people report as read wrongly without a word: read right here, or refused by name."""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data import EvaluationBatches, from_arrays, from_folder, load_image_set, read_folder
from keras_semimed.data.array_checks import check_range
from keras_semimed.data.check import check_folder
from keras_semimed.data.images import read_image
from keras_semimed.data.readers import BusBraSource, BusiSource, CvcClinicDbSource, KvasirSegSource, UdiatSource
from keras_semimed.evaluation import evaluate_images
from tests.data.dicom_files import dicom
from tests.data.image_files import encoded
from tests.data.polyp_files import disc, picture

KNOWN = "cju0qkwl35piu0993l0dewei2"
LESION = disc(40, 60, 20, 30, 9) > 0
GREY = np.tile(np.arange(60, dtype="uint8") * 4, (40, 1))


def published(root: Path, mask: bytes, kind: str) -> Path:
    """One image in the layout of a published set."""
    places = {
        "cvc": ("Original/1.png", "Ground Truth/1.png"),
        "kvasir": (f"images/{KNOWN}.jpg", f"masks/{KNOWN}.jpg"),
        "busi": ("benign/benign (1).png", "benign/benign (1)_mask.png"),
        "udiat": ("original/000001.png", "GT/000001.png"),
        "bus_bra": ("Images/bus_0001-l.png", "Masks/mask_0001-l.png"),
    }
    root.mkdir(parents=True, exist_ok=True)
    for name, text in TABLES.get(kind, {}).items():
        (root / name).write_text(text)
    for place, content in zip(places[kind], (encoded(picture(40, 60, 0)), mask), strict=True):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(content)
    return root


def folder(root: Path, mask: bytes = b"", **files: bytes) -> Path:
    """A folder with one labelled and one unlabelled image, and further files by their place."""
    given = {
        "labeled/images/a.png": encoded(GREY),
        "labeled/masks/a.png": mask or encoded(LESION.astype("uint8")),
        "unlabeled/u.png": encoded(255 - GREY),
        **files,
    }
    for place, content in given.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(content)
    return root


READERS = {"cvc": CvcClinicDbSource, "kvasir": KvasirSegSource, "busi": BusiSource}
WITH_TABLES = {"udiat": UdiatSource, "bus_bra": BusBraSource}
FOLDS = "ID,kFold\nbus_0001-l,1\n"
DATA = "ID,Case,Histology,Pathology,BIRADS,Device,Side\nbus_0001-l,1,x,benign,2,x,left\n"
TABLES = {
    "udiat": {"DatasetB.csv": "Image,Type\n1,Benign\n"},
    "bus_bra": {"bus_data.csv": DATA, "5-fold-cv.csv": FOLDS, "10-fold-cv.csv": FOLDS},
}


@pytest.mark.parametrize("kind", [*READERS, *WITH_TABLES])
def test_f1_masks_of_published_sets_may_hold_0_and_1(tmp_path, kind):
    for place, white in (("one", 1), ("bytes", 255)):
        root = published(tmp_path / place, encoded(white * LESION.astype("uint8")), kind)
        np.testing.assert_array_equal(next(iter((READERS | WITH_TABLES)[kind](root))).mask, LESION)
    root = published(tmp_path / "half", encoded(100 * LESION.astype("uint8")), kind)
    with pytest.raises(ValueError, match=r"(1|1\)_mask|01-l).png|2.jpg: the mask has an area of grey value 100"):
        list((READERS | WITH_TABLES)[kind](root))


def png16(values: np.ndarray) -> bytes:
    """A PNG of 16-bit colours `(H, W, 3)`, which Pillow cannot write."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16(values: np.ndarray) -> bytes:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, values.astype("uint16"), photometric="rgb")
    return file.getvalue()


@pytest.mark.parametrize("made", [png16, tiff16])
def test_f2_colours_of_16_bits_keep_their_values_or_are_refused(made):
    colours = picture(40, 60, 1).astype("uint16")
    np.testing.assert_array_equal(read_image(io.BytesIO(made(colours * 256))), colours)
    for values in (colours, colours // 4 * 16):  # 8 and 12 bits of 16
        with pytest.raises(ValueError, match="a.tif: its 16-bit colours use less than a sixteenth"):
            read_image(io.BytesIO(made(values)), "a.tif")
    with pytest.raises(ValueError, match="a.tif: its colours have 16 bits, which intensity_range cannot scale"):
        read_image(io.BytesIO(made(colours * 256)), "a.tif", intensity_range=(0, 4095))


def palette_mask(colours: list[int], indices: np.ndarray = LESION, kind: str = "PNG") -> bytes:
    image = Image.fromarray(indices.astype("uint8"), "P")
    image.putpalette(colours)
    return encoded(image, kind)


@pytest.mark.parametrize("kind", ["TIFF", "BMP"])
def test_f3_a_palette_in_another_format_is_read_alike(tmp_path, kind):
    red_on_black, swapped = [0, 0, 0, 255, 0, 0], [255, 0, 0, 0, 0, 0]
    right = read_folder(folder(tmp_path / "right", palette_mask(red_on_black, kind=kind)), 40, keep_aspect=True)
    assert (right.labeled.masks == 1).sum() > 50
    with pytest.raises(ValueError, match=r"a.png: is a palette image whose index 0 is \(255, 0, 0\), not black"):
        read_folder(folder(tmp_path / "wrong", palette_mask(swapped, ~LESION, kind)), 40)


def test_f3_a_palette_is_taken_for_classes_only_where_its_first_colour_is_black(tmp_path):
    red_on_black, swapped = [0, 0, 0, 255, 0, 0], [255, 0, 0, 0, 0, 0]
    right = read_folder(folder(tmp_path / "right", palette_mask(red_on_black)), 40, keep_aspect=True)
    assert (right.labeled.masks == 1).sum() > 50
    wrong = folder(tmp_path / "wrong", palette_mask(swapped, ~LESION))  # the lesion is red, and index 0
    with pytest.raises(ValueError, match=r"a.png: is a palette image whose index 0 is \(255, 0, 0\), not black"):
        read_folder(wrong, 40)
    assert "index 0 is (255, 0, 0)" in check_folder(wrong).table
    declared = read_folder(wrong, 40, keep_aspect=True, mask_values={(0, 0, 0): 0, (255, 0, 0): 1})
    np.testing.assert_array_equal(declared.labeled.masks, right.labeled.masks)
    two = folder(
        tmp_path / "two",
        palette_mask(red_on_black),
        **{"labeled/images/b.png": encoded(GREY + 1), "labeled/masks/b.png": palette_mask([0, 0, 0, 0, 255, 0])},
    )
    with pytest.raises(ValueError, match=r"b.png: index 1 of its palette is \(0, 255, 0\), and \(255, 0, 0\) in "):
        read_folder(two, 40)


def test_f4_a_mask_whose_shape_is_in_its_transparency_is_refused(tmp_path):
    def drawn(lesion: int, ground: int, alpha: np.ndarray) -> bytes:
        grey = np.where(LESION, lesion, ground)
        return encoded(np.stack([grey, grey, grey, alpha], -1).astype("uint8"))

    def grey(level: int) -> bytes:
        return encoded(
            Image.merge("LA", [Image.new("L", (60, 40), level), Image.fromarray(255 * LESION.astype("uint8"))])
        )

    opaque = np.full(LESION.shape, 255)
    masks = {"black": drawn(0, 0, 255 * LESION), "white": drawn(255, 255, 255 * LESION), "grey": grey(0)}
    for name, mask in masks.items():
        for root in (folder(tmp_path / name, mask), published(tmp_path / f"busi {name}", mask, "busi")):
            with pytest.raises(ValueError, match=r"(a|mask).png: the mask is drawn with transparency"):
                read_folder(root, 40) if "busi" not in root.name else list(BusiSource(root))
    for name, mask in (("opaque", drawn(255, 0, opaque)), ("clear", drawn(255, 0, 255 * LESION))):
        found = next(iter(BusiSource(published(tmp_path / name, mask, "busi"))))
        np.testing.assert_array_equal(found.mask, LESION)


class Nothing:
    """A model that finds no lesion."""

    def predict_on_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return {"mask": np.eye(2)[np.zeros(images.shape[:3], int)]}


def test_f6_a_lesion_that_vanishes_in_resizing_is_counted_named_and_missed(tmp_path, capsys):
    small = np.zeros((1000, 1000), "uint8")
    small[500:508, 500:508] = 1
    large = np.zeros((1000, 1000), "uint8")
    large[100:400, 100:400] = 1
    shade = np.tile(np.arange(1000) // 4, (1000, 1)).astype("uint8")
    files = {
        f"test/{kind}/{name}.png": encoded(content)
        for name, mask, image in (("s", small, shade), ("l", large, shade.T), ("n", 0 * small, 255 - shade))
        for kind, content in (("images", image), ("masks", mask))
    }
    test = read_folder(folder(tmp_path, **files), 64).test
    assert "test: at 64 pixels 1 of 3 images lose a class that they have (s)" in capsys.readouterr().out
    assert test.vanished() == ["s"] and test.select(["n", "s"]).vanished() == ["s"]
    rows = {row["name"]: row for row in evaluate_images(Nothing(), EvaluationBatches(test, 2))}
    assert [rows[name]["dice"] for name in "sln"] == [0, 0, 1]
    assert (rows["s"]["missed"], rows["l"]["missed"], rows["n"].get("missed")) == (1, 1, None)
    assert rows["s"]["nsd_at_2"] == 0 and rows["s"]["hd95"] == pytest.approx(64 * 2**0.5)


@pytest.mark.parametrize("column", ["patient", "Patient ID", "subject_id", "case", "group"])
def test_f7_a_patient_on_both_sides_is_refused(tmp_path, column):
    table = f"file,class,{column},age\na.png,x,P0,40\nu.png,,P1,41\ntest/images/t.png,y,P0,42\n"
    parts = {
        "labels.csv": table.encode(),
        "test/images/t.png": encoded(GREY // 2),
        "test/masks/t.png": encoded(LESION.astype("uint8")),
    }
    root = folder(tmp_path, **parts)
    match = rf"labels.csv: {column} 'P0' is on both sides, with .*labeled/images/a.png and .*test/images/t.png"
    with pytest.raises(ValueError, match=match):
        from_folder(root, 40)
    report = check_folder(root)
    assert any(re.search(match, problem) for problem in report.problems)
    assert "labels.csv: not read, the columns age" in report.table
    (root / "labels.csv").write_text(table.replace("t.png,y,P0", "t.png,y,P2"))
    assert read_folder(root, 40).test.groups == ["P2"]


def test_f7_the_same_picture_on_both_sides_is_refused(tmp_path):
    parts = {"test/images/t.png": encoded(GREY, "TIFF"), "test/masks/t.png": encoded(LESION.astype("uint8"))}
    root = folder(tmp_path, **parts)
    match = r"test/images/t.png is .*labeled/images/a.png, the same picture on both sides"
    with pytest.raises(ValueError, match=match):
        read_folder(root, 40)
    assert any(re.search(match, problem) for problem in check_folder(root).problems)


@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_f8_12_bits_of_16_are_refused_in_either_direction_or_scaled_as_declared(interpretation):
    deep = (np.arange(2400).reshape(40, 60) + 1000).astype("uint16")
    with pytest.raises(ValueError, match="its values in .* would be nearly (black|white) on the scale"):
        read_image(io.BytesIO(dicom(deep, interpretation)))
    found = read_image(io.BytesIO(dicom(deep, interpretation, BitsStored=12)), channels=1)[..., 0]
    expected = np.rint((deep if interpretation == "MONOCHROME2" else 4095 - deep) / 4095 * 255)
    np.testing.assert_array_equal(found, expected)


def test_f9_the_range_of_arrays_is_looked_at_image_by_image():
    stack = np.stack([GREY / 255, GREY]).astype("float32")
    with pytest.raises(ValueError, match=r"images\[0\] holds values in 0..1; expected 0..255"):
        check_range(stack, "images")
    with pytest.raises(ValueError, match=r"images\[0\] holds values in 0..1; expected 0..255"):
        from_arrays(stack, np.stack([LESION, LESION]))
    with pytest.raises(ValueError, match=r"unlabeled\[0\] holds values in 0..1; expected 0..255"):
        from_arrays(np.stack([GREY, GREY]), np.stack([LESION, LESION]), unlabeled=stack)


def test_f10_a_lookup_table_is_scaled_by_what_it_holds():
    from pydicom.dataset import Dataset

    deep = np.arange(2400).reshape(40, 60).astype("uint16")
    for bits in (12, 16):
        table = Dataset()
        table.add_new(0x00283002, "US", [4096, 0, bits])
        table.add_new(0x00283006, "US", list(range(4096)))
        found = read_image(io.BytesIO(dicom(deep, BitsStored=12, VOILUTSequence=[table])), channels=1)[..., 0]
        np.testing.assert_array_equal(found, np.rint(deep / 4095 * 255))


def test_f11_a_third_level_of_a_lossy_mask_is_not_lost(tmp_path):
    levels = np.zeros((40, 60), "uint8")
    levels[5:20, 5:25], levels[22:38, 30:55] = 100, 200
    three = encoded(levels, "JPEG", quality=90)
    root = folder(tmp_path / "found", three)
    with pytest.raises(ValueError, match=r"a.png: holds an area of grey value (9\d|10\d) and is lossy"):
        read_folder(root, 40)
    with pytest.raises(ValueError, match="holds an area of grey value .* which mask_values does not declare"):
        read_folder(root, 40, mask_values={0: 0, 255: 1})
    declared = read_folder(root, 40, mask_values={0: 0, 100: 1, 200: 2})
    assert [(declared.labeled.masks == index).any() for index in range(3)] == [True] * 3
    with pytest.raises(ValueError, match=r"2.jpg: the mask has an area of grey value"):
        list(KvasirSegSource(published(tmp_path / "kvasir", three, "kvasir")))
    two = read_folder(folder(tmp_path / "two", encoded(255 * LESION.astype("uint8"), "JPEG", quality=60)), 40)
    assert 100 < (two.labeled.masks == 1).sum() < 250


def test_f12_what_is_not_read_is_counted_and_what_pillow_reads_is_read(tmp_path, capsys):
    kinds = {"webp": "WEBP", "jfif": "JPEG", "gif": "GIF", "pgm": "PPM"}
    files = {f"unlabeled/{kind}.{kind}": encoded(GREY // (2 + i), kinds[kind]) for i, kind in enumerate(kinds)}
    notes = {"unlabeled/1.txt": b"", "unlabeled/2.txt": b"", "unlabeled/3.heic": b""}
    root = folder(tmp_path, **files, **notes)
    assert set(read_folder(root, 40).unlabeled.names) == {"u", *kinds}
    line = "not read, no images by their names: 2 .txt, 1 .heic"
    assert line in capsys.readouterr().out and line in check_folder(root).table


def test_small_a_separator_line_a_width_without_centre_and_a_pipe(tmp_path):
    root = folder(tmp_path, **{"labels.csv": b"sep=;\r\nfile;class\r\na.png;x\r\n"})
    assert read_folder(root, 40).class_names == ("x",)
    with pytest.raises(ValueError, match="a WindowWidth and no WindowCenter"):
        read_image(io.BytesIO(dicom(GREY, WindowWidth=20)))
    (root / "labels.csv").unlink()

    os.mkfifo(root / "labels.csv")
    with pytest.raises(ValueError, match="labels.csv: is no ordinary file"):
        read_folder(root, 40)
    shutil.rmtree(root)


def test_published_sets_know_lesions_that_vanish(tmp_path, capsys):
    mask = np.zeros((400, 600), "uint8")
    mask[10:13, 10:13] = 255
    root = published(tmp_path, encoded(mask), "busi")
    (root / "benign/benign (1).png").write_bytes(encoded(picture(400, 600, 0)))
    images = load_image_set("busi", 32, manual_dir=root, data_dir=tmp_path / "tfds")
    assert images.vanished() == ["benign (1)"] and "1 of 1 images lose a class" in capsys.readouterr().out


@pytest.mark.parametrize("kind", READERS)
def test_files_that_only_lie_like_a_published_set_s_are_not_stored_under_its_name(tmp_path, kind):
    names = {"cvc": "{}.png", "kvasir": "mine_{}.jpg", "busi": "benign ({}).png"}[kind]
    root = published(tmp_path, encoded(LESION.astype("uint8")), kind)
    place = next(root.rglob("*.[pj][pn]g")).parent if kind == "busi" else None
    for number in range(700, 740):
        name = names.format(number)
        if kind == "busi":
            targets = (place / name, place / name.replace(".png", "_mask.png"))
        else:
            folders = ("Original", "Ground Truth") if kind == "cvc" else ("images", "masks")
            targets = tuple(root / folder / name for folder in folders)
        for target in targets:
            target.write_bytes(encoded(LESION.astype("uint8"), "JPEG" if kind == "kvasir" else "PNG"))
    title = {"cvc": "CVC-ClinicDB", "kvasir": "Kvasir-SEG", "busi": "BUSI"}[kind]
    with pytest.raises(ValueError, match=f"by their names 40 of 41 images are none of {title}.*from_folder"):
        READERS[kind](root)


def test_names_and_classes_do_nothing_on_a_screen(tmp_path):
    root = folder(tmp_path / "name", **{"unlabeled/\x1b[31mred.png": encoded(GREY // 2)})
    with pytest.raises(ValueError, match=r"unlabeled/.x1b\[31mred.png: its name is not valid UTF-8, or holds control"):
        read_folder(root, 40)
    root = folder(tmp_path / "class", **{"labels.csv": b"file,class\na.png,\x1b[2Jx\n"})
    with pytest.raises(ValueError, match="labels.csv: line 2 holds control characters"):
        read_folder(root, 40)
