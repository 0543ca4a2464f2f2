"""Test and validation parts that are cut off the annotated images of a folder."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data import from_folder, part_folder, read_folder

pytestmark = pytest.mark.backend_free


def write(folder, patients=True, annotated=20, others=8, part="labeled"):
    """Annotated images 0, 1, ... of patients of two images each, class by patient; unlabelled ones of every second."""
    rng = np.random.default_rng(0)
    for place in (f"{part}/images", f"{part}/masks", "unlabeled"):
        (folder / place).mkdir(parents=True)
    rows = []
    for index in range(annotated):
        Image.fromarray(rng.integers(0, 255, (20, 20), "uint8")).save(folder / f"{part}/images/{index}.png")
        Image.fromarray(np.eye(20, dtype="uint8")).save(folder / f"{part}/masks/{index}.png")
        rows.append((f"{part}/images/{index}.png", ("ill", "well")[index // 2 % 2], f"p{index // 2}"))
    for index in range(others):
        Image.fromarray(rng.integers(0, 255, (20, 20), "uint8")).save(folder / f"unlabeled/u{index}.png")
        if index % 2:
            rows.append((f"unlabeled/u{index}.png", "", f"p{index}"))
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        kept = 3 if patients else 2
        csv.writer(file).writerows([("file", "class", "patient")[:kept], *(row[:kept] for row in rows)])
    return folder


def patients_of(images):
    return set(images.groups)


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_is_on_one_side_and_classes_are_in_proportion(tmp_path, seed):
    parts = part_folder(read_folder(write(tmp_path), 8), seed, test=0.3, validation=0.2)
    # Three and two images of a class are asked for, and patients have two: one patient of each class.
    assert len(parts.test) == 4 and len(parts.validation) == 4 and len(parts.labeled) == 12
    assert np.bincount(parts.test.labels).tolist() == [2, 2]
    scored = patients_of(parts.test) | patients_of(parts.validation)
    assert not scored & patients_of(parts.labeled) and not scored & patients_of(parts.unlabeled)
    left_out = sum(f"p{index}" in scored for index in (1, 3, 5, 7))
    assert len(parts.unlabeled) == 8 - left_out
    assert {*parts.split.labeled} == {*parts.labeled.names} and len(parts.split.test) == 4
    again = part_folder(read_folder(tmp_path, 8), seed, test=0.3, validation=0.2)
    assert again.split.hash == parts.split.hash


def test_folds_test_every_image_once(tmp_path):
    folder = read_folder(write(tmp_path), 8)
    tested = [name for fold in range(5) for name in part_folder(folder, 3, folds=5, fold=fold).test.names]
    assert sorted(tested) == sorted(folder.labeled.names)
    one = part_folder(folder, 3, folds=5, fold=2)
    assert not patients_of(one.test) & patients_of(one.labeled)
    assert part_folder(folder, 4, folds=5, fold=2).split.hash != one.split.hash


def test_fewer_labels_hide_the_targets_of_the_others(tmp_path):
    parts = part_folder(read_folder(write(tmp_path), 8), 0, labeled=5, test=0.3)
    assert len(parts.labeled) == 5 and parts.unlabeled.masks is None and parts.unlabeled.labels is None
    hidden = {name for name in parts.unlabeled.names if not name.startswith("u")}
    assert len(hidden) == 11 and not hidden & {*parts.labeled.names} and not hidden & {*parts.test.names}
    smaller = part_folder(read_folder(tmp_path, 8), 0, labeled=3, test=0.3)
    assert {*smaller.labeled.names} < {*parts.labeled.names}


def test_hidden_targets_take_the_place_of_a_missing_part_unlabeled(tmp_path):
    folder = write(tmp_path, others=0)
    (folder / "unlabeled").rmdir()
    with pytest.raises(FileNotFoundError, match="unlabeled is missing"):
        from_folder(folder, 8, test=0.3)
    parts = part_folder(read_folder(folder, 8, need_unlabeled=False), 0, test=0.3)
    assert parts.unlabeled.names == parts.labeled.names and parts.unlabeled.masks is None
    assert (len(parts.labeled), parts.split.unlabeled) == (16, ())
    train, test = from_folder(folder, 8, labeled=5, test=0.3)
    assert len(train.labeled) == 5 and len(train.unlabeled) == 11 and len(test.image_set) == 4
    assert train.unlabeled.masks is None and train.unlabeled.labels is None
    assert not patients_of(test.image_set) & (patients_of(train.labeled) | patients_of(train.unlabeled))
    (folder / "unlabelled").mkdir()
    with pytest.raises(FileNotFoundError, match="unlabelled is not read; call it unlabeled"):
        from_folder(folder, 8, labeled=5, test=0.3)


def test_patients_alone_keep_their_images_on_one_side(tmp_path):
    table = write(tmp_path) / "labels.csv"
    with open(table, newline="", encoding="utf-8") as file:
        rows = [(name, patient) for name, _, patient in csv.reader(file)]
    table.write_text("\n".join(",".join(row) for row in rows).replace("patient", "Sequence"))
    folder = read_folder(tmp_path, 8)
    assert folder.labeled.labels is None and folder.labeled.groups[:3] == ["p0", "p0", "p5"]
    parts = part_folder(folder, test=0.3)
    assert not patients_of(parts.test) & (patients_of(parts.labeled) | patients_of(parts.unlabeled))
    table.write_text("\n".join(",".join(row) for row in rows[:-6]))  # who the last ones are is not known
    with pytest.raises(ValueError, match="no row with a patient for '18.png' and 1 others; give every image of"):
        read_folder(tmp_path, 8)


def test_batches_for_training_and_test(tmp_path, capsys):
    Image.fromarray(np.arange(400, dtype="uint8").reshape(20, 20) // 2).save(write(tmp_path) / "unlabeled/twin.png")
    twin = tmp_path / "labeled/images/3.png"
    Image.open(tmp_path / "unlabeled/twin.png").save(twin)
    train, test = from_folder(tmp_path, 8, batch_size=2, test=0.3, seed=1)
    printed = capsys.readouterr().out
    assert len(test.image_set) == 4 and len(train.labeled) == 16
    pairs = int("3" in test.image_set.names)
    assert f"{pairs} pairs of near-duplicates across it" in printed
    train = from_folder(tmp_path, 8, batch_size=2)
    assert len(train.labeled) == 20


def test_a_folder_called_train_and_without_patients(tmp_path):
    parts = part_folder(read_folder(write(tmp_path, patients=False, part="train"), 8), test=4)
    assert len(parts.test) == 4 and len(parts.labeled) == 16 and parts.labeled.groups is None


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"test": 20}, "`test`=20 of 20 annotated images gives none, or all"),
        ({"test": 1.5}, "test=1.5 is no share between 0 and 1"),
        ({"test": 1}, "`test`=1 of 20 annotated images gives none, or all"),  # every patient has two
        ({"folds": 5}, "`folds` and `fold` must be given together"),
        ({"folds": 5, "fold": 5}, "`fold` must be within 0 and 4, found 5"),
        ({"folds": 50, "fold": 0}, "folds=50: 10 groups of images can be cut into 2 to 10 folds"),
        ({"folds": 5, "fold": 0, "test": 0.3}, "without `test`"),
        ({"labeled": 30, "test": 0.3}, "labeled=30, but only 16"),
    ],
)
def test_what_cannot_be_cut_is_said(tmp_path, arguments, said):
    with pytest.raises(ValueError, match=said):
        part_folder(read_folder(write(tmp_path), 8), **arguments)


def test_a_test_part_of_its_own_is_kept(tmp_path):
    write(tmp_path)
    for place in ("images", "masks"):
        (tmp_path / "test" / place).mkdir(parents=True)
    Image.fromarray(np.arange(400, dtype="uint8").reshape(20, 20) % 251).save(tmp_path / "test/images/t.png")
    Image.fromarray(np.eye(20, dtype="uint8")).save(tmp_path / "test/masks/t.png")
    table = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(table + "test/images/t.png,ill,q\n")
    folder = read_folder(tmp_path, 8)
    parts = part_folder(folder, validation=0.2)
    assert list(parts.test.names) == ["t"] and len(parts.validation) == 4 and len(parts.labeled) == 16
    with pytest.raises(ValueError, match="`test` must be left out: the folder has a part test/ of its own"):
        part_folder(folder, test=0.3)


@pytest.mark.parametrize("patients", [True, False])
def test_copies_of_a_picture_are_on_one_side(tmp_path, capsys, patients):
    write(tmp_path, patients, others=9)
    images = tmp_path / "labeled/images"
    for copy, original in (("1", "0"), ("2", "1"), ("9", "5")):  # also of three patients
        (images / f"{copy}.png").write_bytes((images / f"{original}.png").read_bytes())
    (tmp_path / "unlabeled/u8.png").write_bytes((images / "0.png").read_bytes())
    folder, sides = read_folder(tmp_path, 8), set()
    for fold in range(4):
        parts = part_folder(folder, 1, folds=4, fold=fold)
        tested = {*parts.test.names}
        assert len(tested & {"0", "1", "2"}) in (0, 3) and len(tested & {"5", "9"}) in (0, 2)
        assert ("u8" in parts.unlabeled.names) == ("0" not in tested)
        assert not parts.near_duplicates()
        sides.add("0" in tested)
    assert sides == {True, False} and "copies of their images, and are left out" in capsys.readouterr().out
