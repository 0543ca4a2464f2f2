"""The BUS-BRA reader: made files for every oddity and error, then the real data where they are."""

import csv
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data.readers.bus_bra import BIRADS, CLASSES, BusBraSource
from keras_semimed.data.splits.folds import fold_split
from keras_semimed.data.splits.parts import leak_safe_split
from tests.conftest import SHARED
from tests.data.polyp_files import disc, zipped

DUMMY = Path(__file__).resolve().parents[2] / "datasets" / "bus_bra" / "dummy_data"
NAMES = ["bus_0001-l", "bus_0001-r", "bus_0002-s", "bus_0003-l", "bus_0003-r"]
REAL = SHARED / "data" / "BUSBRA"


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(DUMMY, tmp_path / "parent")
    return tmp_path / "parent" / "BUSBRA"


def test_images_and_masks_of_other_prefixes_are_paired():
    pairs = list(BusBraSource(DUMMY))
    assert [pair.name for pair in pairs] == NAMES
    for index, pair in enumerate(pairs):
        assert pair.image.shape == (32, 38 + index, 3) and (pair.image == pair.image[..., :1]).all()  # grey files
        np.testing.assert_array_equal(pair.mask, disc(32, 38 + index, 15, 17, 5 + index) > 0)  # 1-bit files


def test_rows_without_a_file_are_left_out_and_sizes_of_the_table_are_not_read():
    source = BusBraSource(DUMMY)  # the tables also list bus_0004-s, and say 38x99 of every image
    assert list(source.records) == NAMES and len(source) == 5
    assert source.records["bus_0003-r"] == (
        "3",
        1,
        "5",
        "invasive ductal carcinoma",
        "Maker 7 @10-14MHz",
        "right",
        5,
        1,
    )


def test_two_views_share_their_patient_and_class():
    source = BusBraSource(DUMMY)
    assert [source.group(name) for name in NAMES] == ["case_0001", "case_0001", "case_0002", "case_0003", "case_0003"]
    assert [source.label(name) for name in NAMES] == [0, 0, 0, 1, 1]


def test_folds_are_the_published_ones():
    source = BusBraSource(DUMMY)
    assert source.folds() == dict(zip(NAMES, (1, 1, 2, 5, 5), strict=True))
    assert source.folds(10) == dict(zip(NAMES, (2, 2, 10, 1, 1), strict=True))
    with pytest.raises(ValueError, match="number=7, but BUS-BRA has 5 and 10 published folds"):
        source.folds(7)


def test_folder_parent_and_zip_are_the_same(copy, tmp_path):
    archive = zipped(copy, tmp_path / "BUSBRA.zip", "BUSBRA/")
    expected = BusBraSource(copy)
    fingerprint = expected.fingerprint()
    for path in (copy.parent, archive, tmp_path):
        source = BusBraSource(path)
        assert source.records == expected.records and source.fingerprint() == fingerprint
        for pair, other in zip(source, expected, strict=True):
            np.testing.assert_array_equal(pair.image, other.image)
            np.testing.assert_array_equal(pair.mask, other.mask)
    (copy / "bus_data.csv").write_text((copy / "bus_data.csv").read_text() + "\n")
    assert BusBraSource(copy).fingerprint() != fingerprint


def test_missing_files_are_named(copy):
    mask = copy / "Masks" / "mask_0001-r.png"
    content = mask.read_bytes()
    mask.unlink()
    with pytest.raises(ValueError, match=r"Images/bus_0001-r.png: the image has no mask; expected Masks/mask_0001-r"):
        BusBraSource(copy)
    mask.write_bytes(content)
    (copy / "Images" / "bus_0001-l.png").unlink()
    with pytest.raises(ValueError, match=r"Masks/mask_0001-l.png: the mask has no image; expected Images/bus_0001-l"):
        BusBraSource(copy)
    mask.with_name("mask_0001-l.png").unlink()
    (copy / "10-fold-cv.csv").unlink()
    with pytest.raises(FileNotFoundError, match="10-fold-cv.csv is missing; download BUS-BRA"):
        BusBraSource(copy)


@pytest.mark.parametrize(
    "file, old, new, message",
    [
        ("bus_data.csv", "bus_0002-s,2", "bus_0009-s,2", "has no row for the image bus_0002-s"),
        ("5-fold-cv.csv", "bus_0003-l,malignant,5", "bus_0003-l,malignant,NaN", "kFold of bus_0003-l is 'NaN'"),
        ("bus_data.csv", "malignant,5", "maligne,5", "Pathology of bus_0003-l is 'maligne', expected one of"),
        ("bus_data.csv", "benign,3", "benign,0", "BIRADS of bus_0002-s is '0'"),
        ("bus_data.csv", "bus_0002-s,2", "bus_0002-s,two", "Case of bus_0002-s is 'two', expected a number"),
        ("bus_data.csv", "Pathology", "Patología", "has no column 'Pathology'"),
    ],
)
def test_tables_that_hold_something_else_are_named(copy, file, old, new, message):
    text = (copy / file).read_text(encoding="utf-8")
    (copy / file).write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{file}:? .*{message}"):
        BusBraSource(copy)


def test_a_table_that_is_no_text_is_named(copy):
    (copy / "bus_data.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="bus_data.csv: not a text file in UTF-8"):
        BusBraSource(copy)


@pytest.fixture(scope="module")
def real():
    if not REAL.is_dir():
        pytest.skip("needs BUS-BRA in shared/data, which is not on this machine")
    return BusBraSource(SHARED / "data")


@pytest.fixture(scope="module")
def pictures(real):
    return {pair.name: (pair.image.shape[:2], float(pair.mask.mean())) for pair in real}


def test_real_images_are_those_of_the_manifest(real):
    expected = (SHARED / "data/manifests/BUSBRA_present_ids.txt").read_text().split()
    assert list(real.records) == sorted(expected) and len(expected) == 229
    assert Counter(CLASSES[real.label(name)] for name in expected) == {"benign": 116, "malignant": 113}
    assert Counter(record.side for record in real.records.values()) == {"left": 101, "right": 101, "single": 27}
    birads = Counter(record.birads for record in real.records.values())
    assert [birads[category] for category in BIRADS] == [48, 55, 92, 34]
    assert len({real.group(name) for name in expected}) == 128


def test_real_sizes_are_those_of_the_files_where_the_table_is_wrong(real, pictures):
    with (REAL / "bus_data.csv").open(newline="") as file:
        table = {row["ID"]: (int(row["Height"]), int(row["Width"])) for row in csv.DictReader(file)}
    wrong = {name: shape for name, (shape, _) in pictures.items() if table[name] != shape}
    assert wrong == {
        "bus_0856-l": (353, 387),
        "bus_0857-r": (393, 384),
        "bus_0912-l": (352, 360),
        "bus_0990-l": (352, 540),
    }
    widths, heights = np.array([shape[::-1] for shape, _ in pictures.values()]).T
    assert [widths.min(), np.median(widths), widths.max()] == [264, 290, 579]
    assert [heights.min(), np.median(heights), heights.max()] == [295, 385, 473]


def test_real_masks_have_the_measured_fractions(real, pictures):
    fractions = [fraction for _, fraction in pictures.values()]
    found = [min(fractions), np.median(fractions), max(fractions)]
    np.testing.assert_allclose(found, [0.0061, 0.0798, 0.4546], atol=6e-5)
    for files in real.files[:5]:
        assert Image.open(REAL / files.image).mode == "L" and Image.open(REAL / files.masks[0]).mode == "1"


def test_real_patients_have_one_class_and_one_fold(real):
    of_patient = defaultdict(set)
    for name, record in real.records.items():
        of_patient[real.group(name)].add((record.label, record.fold_5, record.fold_10))
    assert all(len(values) == 1 for values in of_patient.values())


def test_real_splits_keep_patients_on_one_side(real):
    names = list(real.records)
    labels, groups = [real.label(name) for name in names], [real.group(name) for name in names]
    of = dict(zip(names, groups, strict=True))
    splits = [leak_safe_split(names, labels, groups, seed=0, labeled=30)]
    splits += [fold_split(names, labels, groups, real.folds(5), fold, labeled=30) for fold in (1, 5)]
    for split in splits:
        sides = [{of[n] for n in part} for part in (split.test, split.validation, split.labeled + split.unlabeled)]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
        assert len(split.labeled) == 30 and min(len(split.test), len(split.validation)) > 20
    assert {real.folds(5)[name] for name in splits[1].test} == {1}
