"""From a name to batches, with and without TensorFlow."""

import ast
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_semimed.data as data
from keras_semimed.data import tfds
from keras_semimed.data.cards import CARDS
from keras_semimed.data.readers import examples
from keras_semimed.data.readers.busi import FOLDER

BUILDERS = Path(__file__).resolve().parents[2] / "datasets"
DUMMY = BUILDERS / "busi" / "dummy_data"
POLYPS = {name: BUILDERS / name / "dummy_data" for name in ("kvasir_seg", "cvc_clinicdb")}
SETS = {**POLYPS, "udiat": BUILDERS / "udiat" / "dummy_data", "bus_bra": BUILDERS / "bus_bra" / "dummy_data"}


@pytest.fixture
def without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)


@pytest.fixture
def few_phantoms(monkeypatch):
    monkeypatch.setattr(examples, "PHANTOMS", 24)
    monkeypatch.setattr(examples, "ENDOSCOPY_PHANTOMS", 24)
    monkeypatch.setattr(examples, "PHANTOM_SIZE", 32)


@pytest.fixture
def needs_tensorflow():
    if not tfds.available():
        pytest.skip("needs tensorflow and tensorflow-datasets, which cannot be imported here")


def assert_equal_sets(a, b):
    assert list(a.names) == list(b.names) and list(a.groups) == list(b.groups) and a.class_names == b.class_names
    assert (a.labels is None) == (b.labels is None) and a.num_classes == b.num_classes
    for field in ("images", "masks", "labels"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


@pytest.mark.parametrize("name, count", [("kvasir_seg", 3), ("cvc_clinicdb", 4), ("udiat", 4), ("bus_bra", 5)])
def test_sets_are_read_alike_with_and_without_tensorflow(needs_tensorflow, monkeypatch, tmp_path, name, count):
    through_tfds = data.load_image_set(name, 16, manual_dir=SETS[name], data_dir=tmp_path / "prepared")
    archive = shutil.make_archive(str(tmp_path / name), "zip", SETS[name])
    again = data.load_image_set(name, 16, manual_dir=archive, data_dir=tmp_path / "prepared")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    direct = data.load_image_set(name, 16, manual_dir=archive)
    assert len(direct) == count
    assert_equal_sets(through_tfds, direct)
    assert_equal_sets(again, direct)


@pytest.mark.parametrize("name", POLYPS)
def test_polyps_prepared_from_other_files_are_not_taken_for_these(needs_tensorflow, tmp_path, name):
    data.load_image_set(name, 16, manual_dir=POLYPS[name], data_dir=tmp_path / "prepared")
    other = tmp_path / "other"
    shutil.copytree(POLYPS[name], other)
    for folder in sorted(path for path in other.glob("*/*") if path.is_dir()):
        sorted(folder.iterdir())[0].unlink()
    with pytest.raises(ValueError, match="other files than those that .*prepared"):
        data.load_image_set(name, 16, manual_dir=other, data_dir=tmp_path / "prepared")


@pytest.mark.parametrize("name, file", [("kvasir_seg", "masks/*2.jpg"), ("cvc_clinicdb", "Original/612.tif")])
def test_a_damaged_polyp_file_leaves_nothing_half_written(needs_tensorflow, tmp_path, name, file):
    shutil.copytree(POLYPS[name], tmp_path / "copy")
    (damaged,) = (tmp_path / "copy").glob(f"*/{file}")
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(ValueError, match=f"{damaged.name}: cannot be decoded"):
        data.load_image_set(name, 16, manual_dir=tmp_path / "copy", data_dir=tmp_path / "prepared")
    damaged.unlink()
    with pytest.raises(ValueError, match=f"{damaged.stem}.*has no (image|mask)"):
        data.load_image_set(name, 16, manual_dir=tmp_path / "copy", data_dir=tmp_path / "prepared")
    assert not [path for path in (tmp_path / "prepared").rglob("*") if path.is_file()]


def test_polyps_have_masks_and_no_labels(without_tensorflow):
    images = data.load_image_set("cvc_clinicdb", 16, manual_dir=POLYPS["cvc_clinicdb"])
    assert list(images.names) == ["10", "2", "26", "612"] and images.labels is None and images.class_names == ()
    assert list(images.groups) == ["sequence_01", "sequence_01", "sequence_02", "sequence_29"]
    assert images.masks.any((1, 2)).all() and images.masks.max() == 1 and images.num_classes == 2
    with pytest.raises(ValueError, match="without TensorFlow kvasir_seg is read from its folder or zip"):
        data.load_image_set("kvasir_seg", 16)


def test_polyps_are_split_by_name(without_tensorflow, capsys):
    arguments = {"image_size": 16, "batch_size": 1, "manual_dir": POLYPS["cvc_clinicdb"]}
    train, test, split = data.load("cvc_clinicdb", 1, "sequence_safe", test=1, **arguments)
    sides = set(test.image_set.groups), set(train.labeled.groups) | set(train.unlabeled.groups)
    assert len(split.test) == 1 and not sides[0] & sides[1]
    assert set(train[0][1]) == {"mask"}
    with pytest.raises(ValueError, match=r"608 of its 612 images are not in the data .*intersect=True"):
        data.load("cvc_clinicdb", 0.5, "pranet", **arguments)
    images = data.load_image_set("cvc_clinicdb", 16, manual_dir=POLYPS["cvc_clinicdb"])
    frames = data.ImageSet([str(i + 1) for i in range(612)], np.zeros((612, 4, 4, 3), "uint8"))
    assert data.split_image_set(frames, "cvc_clinicdb", "pranet", labeled=0.3).hash != split.hash
    joined = data.concatenate({"cvc_clinicdb": images, "other": images})
    assert set(data.split_image_set(joined, None, "random", labeled=2, test=4).test) < set(joined.names)
    with pytest.raises(ValueError, match="or a Split for joined sets, found 'official'"):
        data.split_image_set(joined, None, "official")


def test_endoscopy_phantoms_have_three_mask_classes(without_tensorflow, few_phantoms):
    train, test, split = data.load("phantom_endoscopy", 0.5, "random", test=6, image_size=32, batch_size=2)
    assert [len(split.test), len(split.labeled)] == [6, 9] and test.image_set.num_classes == 3
    both = np.concatenate([train.unlabeled.masks, test.image_set.masks])
    assert set(np.unique(both)) == {0, 1, 2} and train.labeled.labels is None


def test_random_is_a_split_of_every_set(without_tensorflow, few_phantoms):
    assert all("random" in facts.splits for facts in CARDS.values())
    split = data.load("phantom_ultrasound", 3, "random", test=8, image_size=32, batch_size=2)[2]
    assert [len(split.test), len(split.labeled)] == [8, 3]


def test_busi_is_read_without_tensorflow(without_tensorflow):
    images = data.load_image_set("busi", 16, manual_dir=DUMMY)
    assert list(images.names) == ["benign (1)", "benign (10)", "benign (2)", "malignant (1)", "normal (1)"]
    assert images.images.shape == (5, 16, 16, 3) and images.masks.shape == (5, 16, 16)
    np.testing.assert_array_equal(images.labels, [0, 0, 0, 1, 2])
    assert images.masks[:4].any((1, 2)).all() and not images.masks[4].any()
    with pytest.raises(ValueError, match="manual_dir is missing"):
        data.load_image_set("busi", 16)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        data.load_image_set("busi", 16, manual_dir=DUMMY / "nowhere")


def test_builder_and_reader_give_the_same_images(needs_tensorflow, monkeypatch, tmp_path):
    through_tfds = data.load_image_set("busi", 16, manual_dir=DUMMY, data_dir=tmp_path)
    again = data.load_image_set("busi", 16, data_dir=tmp_path)  # prepared: manual_dir is not needed any more
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    direct = data.load_image_set("busi", 16, manual_dir=DUMMY)
    assert_equal_sets(through_tfds, direct)
    assert_equal_sets(again, direct)


def test_prepared_data_of_other_files_are_not_taken_for_these(needs_tensorflow, tmp_path):
    with pytest.raises(FileNotFoundError, match="manual_dir is missing, and busi was not prepared"):
        data.load_image_set("busi", 16, data_dir=tmp_path / "prepared")
    data.load_image_set("busi", 16, manual_dir=DUMMY, data_dir=tmp_path / "prepared")
    archive = shutil.make_archive(str(tmp_path / "busi"), "zip", DUMMY)
    assert len(data.load_image_set("busi", 16, manual_dir=archive, data_dir=tmp_path / "prepared")) == 5
    other = tmp_path / "other"
    shutil.copytree(DUMMY, other)
    for file in (other / FOLDER / "normal").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="other files than those that .*prepared"):
        data.load_image_set("busi", 16, manual_dir=other, data_dir=tmp_path / "prepared")


def test_builder_takes_the_zip_itself(needs_tensorflow, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "busi"), "zip", DUMMY)
    images = data.load_image_set("busi", 8, manual_dir=archive, data_dir=tmp_path / "prepared")
    assert len(images) == 5


def test_an_error_leaves_nothing_half_written(needs_tensorflow, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(DUMMY, folder)
    mask = folder / FOLDER / "malignant" / "malignant (1)_mask_2.png"
    mask.write_bytes(mask.read_bytes()[:40])
    prepared = tmp_path / "prepared"
    with pytest.raises(ValueError, match=r"malignant \(1\)_mask_2.png: cannot be decoded"):
        data.load_image_set("busi", 8, manual_dir=folder, data_dir=prepared)
    assert not [file for file in prepared.rglob("*") if file.is_file()]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match="empty is empty"):
        data.load_image_set("busi", 8, manual_dir=empty, data_dir=prepared)
    assert len(data.load_image_set("busi", 8, manual_dir=DUMMY, data_dir=prepared)) == 5


def test_classes_are_kept_and_renumbered(without_tensorflow):
    images = data.load_image_set("busi", 8, manual_dir=DUMMY, classes=("normal", "malignant"))
    assert list(images.names) == ["malignant (1)", "normal (1)"] and images.class_names == ("normal", "malignant")
    np.testing.assert_array_equal(images.labels, [1, 0])
    with pytest.raises(ValueError, match="classes=.*choose among them"):
        data.load_image_set("busi", 8, manual_dir=DUMMY, classes=("cyst",))


def test_load_gives_batches_of_the_split(without_tensorflow, few_phantoms):
    train, test, split = data.load("phantom_ultrasound", labeled=4, image_size=32, batch_size=2, seed=3)
    assert list(train.labeled.names) == list(split.labeled) and len(split.labeled) == 4
    assert list(train.unlabeled.names) == list(split.train_unlabeled())
    assert list(test.image_set.names) == list(split.test)
    inputs, targets = train[0]
    assert inputs["labeled"].shape == inputs["unlabeled"].shape == (2, 32, 32, 3)
    assert targets["mask"].shape == (2, 32, 32) and targets["label"].dtype == np.int32
    arguments = {"labeled": 4, "image_size": 32, "batch_size": 2, "seed": 3}
    oracle = data.load("phantom_ultrasound", **arguments, unlabeled_targets=True)[0]
    (_, chosen), (_, targets) = oracle.indices(1), oracle.at(1)
    np.testing.assert_array_equal(targets["unlabeled_mask"], oracle.unlabeled.masks[chosen])
    np.testing.assert_array_equal(targets["unlabeled_label"], oracle.unlabeled.labels[chosen])
    again = data.load("phantom_ultrasound", **arguments)[0]
    np.testing.assert_array_equal(again[1][0]["unlabeled"], train[1][0]["unlabeled"])


def test_validation_replaces_the_test_part_and_leaves_training(without_tensorflow, few_phantoms):
    arguments = {"labeled": 4, "image_size": 32, "split": "leak_safe"}
    train, held_out, split = data.load("phantom_ultrasound", validate=True, **arguments)
    assert list(held_out.image_set.names) == list(split.validation) and split.validation
    assert not set(train.unlabeled.names) & set(split.validation)
    same, test, _ = data.load("phantom_ultrasound", **{**arguments, "split": split})
    assert list(same.labeled.names) == list(train.labeled.names)
    assert set(split.validation) < set(same.unlabeled.names) and list(test.image_set.names) == list(split.test)


def test_phantoms_are_those_of_the_builder(needs_tensorflow):
    from keras_semimed.data.builders.phantom_ultrasound import phantom_ultrasound_dataset_builder as builder

    assert (examples.PHANTOMS, examples.PHANTOM_SIZE) == (builder.COUNT, builder.SIZE) and builder.SEED == 0
    direct = examples.phantom_examples()
    for _, row in builder.Builder._generate_examples(None):
        example = next(direct)
        assert (row["file_name"], row["label"], row["group"]) == (example.name, example.label, example.group)
        np.testing.assert_array_equal(row["image"], example.image)
        np.testing.assert_array_equal(row["mask"][..., 0], example.mask)
        if example.name == "phantom_0002":
            break


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"name": "bus"},
            "no data set is called 'bus'; known are bus_bra, busi, cvc_clinicdb, kvasir_seg, phantom_endoscopy",
        ),
        ({"split": "official"}, "`split` must be 'paper', 'leak_safe', 'random' or a Split for phantom_ultrasound"),
        ({"name": "phantom_endoscopy"}, "`split` must be 'random' or a Split for phantom_endoscopy, found 'paper'"),
        ({"name": "kvasir_seg"}, "`split` must be 'pranet', 'official', 'random' or a Split"),
        ({"name": "cvc_clinicdb", "split": "official"}, "`split` must be 'pranet', 'sequence_safe', 'random' or"),
        ({"test": 5}, "test=5, but split='paper' fixes the test part"),
        ({"intersect": True}, "intersect=True is for the published lists"),
        ({"name": "phantom_endoscopy", "split": "random", "classes": ("polyp",)}, "has no image classes"),
        ({"image_size": 0}, "`image_size` must be at least 1"),
        ({"labeled": 100}, "labeled=100, but only"),
    ],
)
def test_wrong_arguments(without_tensorflow, few_phantoms, change, message):
    with pytest.raises(ValueError, match=message):
        data.load(**{"name": "phantom_ultrasound", "image_size": 32, "labeled": 4, **change})


def test_describe_prints_a_card(capsys):
    data.describe("busi")
    text = capsys.readouterr().out
    for word in ("benign, malignant, normal", "780 images", "CC BY 4.0", "leak_safe", "104863"):
        assert word in text
    data.describe("cvc_clinicdb")
    text = capsys.readouterr().out
    for word in (
        "none, masks only",
        "0 background, 1 polyp",
        "sequence_safe: at random with every sequence on one side",
        "29 sequences",
        "no commercial",
    ):
        assert word in text
    with pytest.raises(ValueError, match="no data set is called 'none'"):
        data.describe("none")


@pytest.mark.parametrize("name", CARDS)
def test_every_card_says_what_its_splits_are_and_what_is_wrong(name, capsys):
    data.describe(name)
    text = capsys.readouterr().out
    for split in CARDS[name].splits:
        assert re.search(rf"^  split     {split}: \w+", text, re.M)
    for key in ("content", "licence", "source", "caution", "citation"):
        assert re.search(rf"^  {key} +\S+", text, re.M)
    assert all((BUILDERS / name / file).is_file() for file in (f"{name}_dataset_builder.py", "CITATIONS.bib"))


def test_importing_the_package_does_not_import_tensorflow():
    for file in Path(data.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            modules = [alias.name for alias in getattr(node, "names", [])] + [getattr(node, "module", None) or ""]
            assert not [name for name in modules if name.startswith("tensorflow")], file.name
