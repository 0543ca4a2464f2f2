"""Splits are stratified, nested, disjoint, reproducible and, where asked, free of leaks."""

import numpy as np
import pytest

from keras_semimed.data.readers.cvc_clinicdb import sequence
from keras_semimed.data.splits.parts import PARTS, Split, leak_safe_split, paper_split, random_split

NAMES = [f"benign ({i})" for i in range(1, 438)] + [f"malignant ({i})" for i in range(1, 211)]
LABELS = [0] * 437 + [1] * 210


def count(names):
    return sum(n.startswith("benign") for n in names), sum(n.startswith("malignant") for n in names)


def groups_of(seed):
    """Random groups of 1 to 7 images, some of them across classes."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(NAMES))
    starts = np.cumsum(rng.choice([1, 1, 1, 2, 3, 7], len(NAMES)))
    groups = np.empty(len(NAMES), object)
    groups[order] = [f"g{i}" for i in np.searchsorted(starts, np.arange(len(NAMES)), side="right")]
    return list(groups)


def test_paper_split_has_the_sizes_of_the_paper():
    split = paper_split(NAMES, LABELS, seed=0, labeled=72)
    assert count(split.test) == (131, 63)
    assert count(split.validation) == (46, 22)
    assert count(split.labeled) == (49, 23)
    assert len(split.unlabeled) == 453 - 68 - 72
    assert count(paper_split(NAMES, LABELS, 0, balanced=True).labeled) == (36, 36)


@pytest.mark.parametrize("seed", range(3))
def test_parts_are_disjoint_and_complete_and_labeled_ones_nested(seed):
    splits = [paper_split(NAMES, LABELS, seed, labeled) for labeled in (72, 144, 216)]
    for split in splits:
        assert sorted(name for part in PARTS for name in getattr(split, part)) == sorted(NAMES)
        assert split.test == splits[0].test and split.validation == splits[0].validation
    assert set(splits[0].labeled) < set(splits[1].labeled) < set(splits[2].labeled)


def test_validation_images_are_unlabeled_training_images_unless_held_out():
    split = paper_split(NAMES, LABELS, 0)
    assert set(split.train_unlabeled()) == set(split.unlabeled) | set(split.validation)
    assert split.train_unlabeled(validate=True) == split.unlabeled


def test_only_names_and_seed_decide():
    split = paper_split(NAMES, LABELS, 5)
    order = np.random.default_rng(0).permutation(len(NAMES))
    shuffled = paper_split([NAMES[i] for i in order], [LABELS[i] for i in order], 5)
    assert shuffled == split and shuffled.hash == split.hash
    assert paper_split(NAMES, LABELS, 6).hash != split.hash
    overlap = len(set(paper_split(NAMES, LABELS, 6).test) & set(split.test)) / 194
    assert 0.2 < overlap < 0.4  # two independent draws of 30 %


def test_the_split_of_a_seed_never_changes():
    assert paper_split(NAMES, LABELS, seed=0).hash == "1f767e5f6ebd"


@pytest.mark.parametrize("seed", range(4))
def test_leak_safe_split_keeps_groups_together(seed):
    groups = groups_of(seed)
    of = dict(zip(NAMES, groups, strict=True))
    split = leak_safe_split(NAMES, LABELS, groups, seed)
    sides = [split.test, split.validation, split.labeled + split.unlabeled]
    for i, side in enumerate(sides):
        for other in sides[i + 1 :]:
            assert not {of[n] for n in side} & {of[n] for n in other}
    assert count(split.test) == (131, 63) and count(split.validation) == (46, 22) and count(split.labeled) == (49, 23)


def test_leak_safe_split_does_not_depend_on_what_groups_are_called():
    groups = groups_of(0)
    assert leak_safe_split(NAMES, LABELS, [f"x{g}" for g in groups], 1) == leak_safe_split(NAMES, LABELS, groups, 1)


def test_a_group_too_large_for_a_part_stays_in_training():
    names, labels = [f"n{i}" for i in range(20)], [0, 1] * 10
    split = leak_safe_split(names, labels, ["one"] * 19 + ["two"], seed=0, labeled=4)
    assert set(split.test) <= {"n19"} and len(split.test + split.validation) <= 1
    assert "test 1" in split.summary() or "test 0" in split.summary()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labeled": 386}, "labeled=386, but only 385 training images"),
        ({"labeled": 1}, "labeled=1 is fewer than the 2 classes"),
        ({"test_fraction": 1.0}, "`test_fraction` must be"),
        ({"validation_fraction": -0.1}, "`validation_fraction` must be"),
        ({"labels": LABELS[:-1]}, "differ in length"),
        ({"names": NAMES[:-1] + NAMES[:1]}, r"'benign \(1\)' twice"),
    ],
)
def test_impossible_splits(change, message):
    with pytest.raises(ValueError, match=message):
        paper_split(**{"names": NAMES, "labels": LABELS, "seed": 0, **change})


def test_every_class_is_labeled_even_a_rare_one():
    labels = [0] * 300 + [1] * 300 + [2] * 8
    names = [f"n{i}" for i in range(608)]
    chosen = paper_split(names, labels, 0, labeled=3).labeled
    assert sorted(labels[names.index(n)] for n in chosen) == [0, 1, 2]


def test_saved_split_loads_equal_and_a_changed_file_is_noticed(tmp_path):
    file = tmp_path / "split.txt"
    split = paper_split(NAMES, LABELS, 0)
    split.save(file)
    assert Split.load(file) == split
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines), encoding="utf-8-sig")  # as some editors save it
    assert Split.load(file) == split
    for text, message in (("".join(lines[:-1]), ": the header is"), ("", " is no list of a split")):
        file.write_text(text)
        with pytest.raises(ValueError, match=f"split.txt{message}"):
            Split.load(file)
    file.write_text("# keras_semimed split\ntest\ta\nlabeled\ta\n")
    with pytest.raises(ValueError, match=r"split.txt: 'a' appears twice in the split \(labeled, test\)"):
        Split.load(file)
    file.write_text(lines[0] + "elsewhere\tbenign (1)\n")
    with pytest.raises(ValueError, match="split.txt, line 2: expected"):
        Split.load(file)


def test_a_name_belongs_to_one_part():
    with pytest.raises(ValueError, match="'a' appears twice"):
        Split(("a",), ("a",), (), ())


def test_a_share_of_labelled_images_is_of_the_training_images():
    assert paper_split(NAMES, LABELS, 0, 0.1) == paper_split(NAMES, LABELS, 0, 45)  # of 647 - 194 = 453
    assert len(random_split(NAMES, 0, 0.1, test=100).labeled) == 55


def test_random_split_has_the_sizes_asked_for():
    split = random_split(NAMES, 0, labeled=20, test=100)
    assert [len(getattr(split, part)) for part in PARTS] == [20, 647 - 100 - 82 - 20, 82, 100]
    assert random_split(NAMES, 0, 20, test=0.25) == random_split(NAMES, 0, 20, test=162)
    assert set(split.labeled) < set(random_split(NAMES, 0, 60, test=100).labeled)
    assert random_split(NAMES[::-1], 0, 20, test=100) == split != random_split(NAMES, 1, 20, test=100)
    benign, malignant = count(random_split(NAMES, 0, 20, test=300).test)
    assert 0.6 < benign / (benign + malignant) < 0.75 and benign != 203  # not stratified, but fair


def test_random_split_keeps_sequences_whole():
    frames = [str(frame) for frame in range(1, 613)]
    groups = [f"sequence_{sequence(int(frame)):02d}" for frame in frames]
    of = dict(zip(frames, groups, strict=True))
    for seed in range(3):
        split = random_split(frames, seed, 0.1, 0.2, groups)
        sides = [
            {of[name] for name in part} for part in (split.test, split.validation, split.labeled + split.unlabeled)
        ]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
        assert 100 <= len(split.test) <= 122 and len(split.labeled) == round(0.1 * (612 - len(split.test)))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"test": 647}, "test=647 of 647 images leaves none"),
        ({"test": 0}, "test=0 of 647 images is no image"),
        ({"test": 1.0}, "test=1.0 is no share between 0 and 1"),
        ({"labeled": 0.001}, "labeled=0.001 of 453 images is no image"),
        ({"labeled": 400}, "labeled=400, but only 385 training images"),
        ({"groups": ["one"] * 647}, "test=0.3 is smaller than every group"),
    ],
)
def test_impossible_random_splits(change, message):
    with pytest.raises(ValueError, match=message):
        random_split(**{"names": NAMES, "seed": 0, "labeled": 10, **change})


def test_a_list_made_by_hand_needs_no_hash(tmp_path):
    path = tmp_path / "split.txt"
    path.write_text("# keras_semimed split\nlabeled\ta\ntest\tb\nunlabeled\tc\n")
    assert Split.load(path) == Split(("a",), ("c",), (), ("b",))
