"""Folds test every image once, keep groups whole and classes in proportion, and never change."""

import numpy as np
import pytest

from keras_semimed.data.splits.folds import assign_folds, fold_split, k_fold_splits
from keras_semimed.data.splits.parts import PARTS, leak_safe_split, random_split
from tests.data.test_splits import LABELS, NAMES, count, groups_of

FOLDS = ["57b6ab9216ea", "29e8766e2c54", "acc393efcfe8"]
LEAK_SAFE = "789665d8041a"
RANDOM = "c8263fd73352"


def sides(split, of):
    return [{of[n] for n in part} for part in (split.test, split.validation, split.labeled + split.unlabeled)]


def test_every_image_is_tested_once_in_folds_of_one_class_mix():
    splits = k_fold_splits(NAMES, LABELS, None, seed=0)
    assert sorted(name for split in splits for name in split.test) == sorted(NAMES)
    assert [count(split.test) for split in splits] == [(88, 42), (88, 42), (87, 42), (87, 42), (87, 42)]
    for split in splits:
        assert sorted(name for part in PARTS for name in getattr(split, part)) == sorted(NAMES)
        assert len(split.labeled) == 72 and count(split.labeled) == (49, 23)


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_in_one_fold(seed):
    groups = groups_of(seed)
    of = dict(zip(NAMES, groups, strict=True))
    splits = k_fold_splits(NAMES, LABELS, groups, seed, folds=4, labeled=40)
    for split in splits:
        test, validation, train = sides(split, of)
        assert not test & validation and not test & train and not validation & train
        benign, malignant = count(split.test)
        assert abs(benign - 437 / 4) < 4 and abs(malignant - 210 / 4) < 4


def test_labelled_parts_are_nested_and_only_names_and_seed_decide():
    groups = groups_of(1)
    few, more, all_of_them = (k_fold_splits(NAMES, LABELS, groups, 3, labeled=n) for n in (20, 40, 60))
    for a, b, c in zip(few, more, all_of_them, strict=True):
        assert set(a.labeled) < set(b.labeled) < set(c.labeled) and a.test == b.test == c.test
    order = np.random.default_rng(0).permutation(len(NAMES))
    shuffled = [[values[i] for i in order] for values in (NAMES, LABELS, groups)]
    assert k_fold_splits(*shuffled, 3, labeled=20) == few != k_fold_splits(NAMES, LABELS, groups, 4, labeled=20)


def test_splits_of_a_seed_never_change():
    """Hash seeds differ from process to process, so this also shows that no order of a set slips in."""
    groups = [f"g{index // 3}" for index in range(len(NAMES))]
    assert [split.hash for split in k_fold_splits(NAMES, LABELS, groups, 0, 3)] == FOLDS
    assert leak_safe_split(NAMES, LABELS, groups, seed=0).hash == LEAK_SAFE
    assert random_split(NAMES, 0, 72).hash == RANDOM


def test_given_folds_are_tested_as_they_are():
    fold_of = {name: index % 5 + 1 for index, name in enumerate(NAMES)} | {"elsewhere": 1}
    split = fold_split(NAMES, LABELS, None, fold_of, 2, seed=0)
    assert list(split.test) == sorted(NAMES[1::5])
    assert fold_split(NAMES, LABELS, None, fold_of, 2, seed=1).test == split.test
    assert fold_split(NAMES, None, None, fold_of, 2, labeled=0.1).test == split.test


def test_images_without_classes_and_groups():
    names = [f"n{index}" for index in range(10)]
    splits = k_fold_splits(names, None, None, seed=0, folds=5, labeled=2)
    assert [len(split.test) for split in splits] == [2] * 5


@pytest.mark.parametrize(
    "change, message",
    [
        ({"fold_of": {"a": 1}}, "fold_of has no fold for 'b'"),
        ({"test_fold": 3}, "test_fold=3 holds 0 of 4 images"),
        ({"fold_of": dict.fromkeys("abcd", 1)}, "test_fold=1 holds 4 of 4 images"),
        ({"groups": ["x", "y", "y", "z"]}, "group 'y' lies in fold 1 and outside"),
        ({"labeled": 3}, "labeled=3, but only 2 training images"),
    ],
)
def test_impossible_fold_splits(change, message):
    arguments = {"names": list("abcd"), "labels": None, "groups": None, "fold_of": {"a": 1, "b": 1, "c": 2, "d": 2}}
    arguments |= {"test_fold": 1, "labeled": 1, "validation_fraction": 0.0}
    with pytest.raises(ValueError, match=message):
        fold_split(**(arguments | change))


@pytest.mark.parametrize("folds", [1, 3])
def test_impossible_numbers_of_folds(folds):
    with pytest.raises(ValueError, match=f"folds={folds}: 2 groups of images can be cut into 2 to 2 folds"):
        assign_folds(["a", "b", "c"], [0, 0, 0], ["x", "x", "y"], 0, folds)
