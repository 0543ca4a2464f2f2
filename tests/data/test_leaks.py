"""What a leak report counts."""

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data import ImageSet
from keras_semimed.data.splits.leaks import Leak, leak_report
from keras_semimed.data.splits.parts import Split, leak_safe_split, paper_split
from tests.data.test_splits import LABELS, NAMES, groups_of

SPLIT = Split(labeled=("a", "b"), unlabeled=("c", "d"), validation=("e",), test=("f", "g", "h"))
GROUPS = {"a": "1", "c": "1", "f": "1", "g": "1", "b": "2", "e": "2", "d": "3", "h": "4"}


def test_pairs_across_parts_are_counted_and_named():
    report = leak_report(SPLIT, GROUPS)
    assert report.leaks == (
        Leak("a", "labeled", "f", "test"),
        Leak("a", "labeled", "g", "test"),
        Leak("c", "unlabeled", "f", "test"),
        Leak("c", "unlabeled", "g", "test"),
        Leak("b", "labeled", "e", "validation"),
    )
    assert report.counts() == {
        ("labeled", "validation"): 1,
        ("labeled", "test"): 2,
        ("unlabeled", "validation"): 0,
        ("unlabeled", "test"): 2,
        ("validation", "test"): 0,
    }  # a and c are both trained on, f and g both tested: no leaks
    assert report.twins() == ["f", "g"] and report.twins("validation") == ["e"]
    assert report.summary() == "4 pairs, 2 of 3 test images" and report.split_hash == SPLIT.hash


def test_the_text_has_the_counts_and_examples():
    text = str(leak_report(SPLIT, GROUPS))
    assert SPLIT.hash in text and "labeled - test             2 pairs, 2 of 3 test images" in text
    assert "b (labeled) ~ e (validation)" in text and "more" not in text
    groups = dict.fromkeys(GROUPS, "one")
    assert "… and 14 more" in str(leak_report(SPLIT, groups))  # 4 x 1 + 4 x 3 + 1 x 3 pairs, and 5 are shown


@pytest.mark.parametrize("seed", range(2))
def test_a_leak_safe_split_has_no_leak_and_a_random_one_has(seed):
    groups = groups_of(seed)
    of = dict(zip(NAMES, groups, strict=True))
    assert not leak_report(leak_safe_split(NAMES, LABELS, groups, seed), of).leaks
    report = leak_report(paper_split(NAMES, LABELS, seed), of)
    test = set(paper_split(NAMES, LABELS, seed).test)
    elsewhere = {of[name] for name in NAMES if name not in test}
    assert report.twins() == sorted(name for name in test if of[name] in elsewhere) and len(report.twins()) > 50


def picture(seed, gain=1.0):
    coarse = np.random.default_rng(seed).integers(20, 200, (10, 10)).astype("uint8")
    return (np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)) * gain).astype("uint8")


def test_images_are_compared_where_no_groups_are_known_or_a_measure_is_given():
    pictures = [
        picture(0),
        picture(1),
        picture(2),
        picture(0, 0.8),
        picture(3),
        picture(1, 0.7),
        picture(0),
        picture(5),
    ]
    images = ImageSet(list("abcdefgh"), np.stack(pictures)[..., None])
    pairs = {(leak.name, leak.other) for leak in leak_report(SPLIT, images).leaks}
    assert pairs == {("b", "f"), ("a", "g"), ("d", "g")}
    grouped = ImageSet(images.names, images.images, groups=[GROUPS[name] for name in images.names])
    assert leak_report(SPLIT, grouped) == leak_report(SPLIT, GROUPS)
    assert {(leak.name, leak.other) for leak in leak_report(SPLIT, grouped, "detail").leaks} == pairs


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="source does not know 'h' of the split"):
        leak_report(SPLIT, {name: "1" for name in "abcdefg"})
    with pytest.raises(ValueError, match="measure='detail' needs images"):
        leak_report(SPLIT, GROUPS, "detail")
    images = ImageSet(list("abcdefgh"), np.zeros((8, 8, 8, 1), "uint8"))
    with pytest.raises(ValueError, match="`measure` must be 'grey' or 'detail', found 'hash'"):
        leak_report(SPLIT, images, "hash")
