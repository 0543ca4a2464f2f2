"""Regions and what fills them, against loops over regions, images and pixels."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import correlation_region, propagate_regions
from tests.gradients import gradient
from tests.layers.compiled import compiled


def array(value):
    return ops.convert_to_numpy(value)


def enlarged(row, size, target):
    """Bilinear with half-pixel centres, by interpolation along one axis after the other."""
    values = np.asarray(row, "float64").reshape(size)
    for axis in (0, 1):
        places = (np.arange(target[axis]) + 0.5) * size[axis] / target[axis] - 0.5
        lines = np.moveaxis(values, axis, 0).reshape(size[axis], -1)
        lines = np.stack([np.interp(places, np.arange(size[axis]), line) for line in lines.T], axis=1)
        rest = values.shape[1 - axis]
        values = np.moveaxis(lines.reshape(target[axis], rest), 0, axis)
    return values


def region_by_hand(row, size, target):
    """`(C - min) > 0.5 (max - min)` of the enlarged row; nowhere in a constant one."""
    values = enlarged(row, size, target)
    if np.ptp(row) == 0:
        return np.zeros(target)
    return (values - values.min() > 0.5 * (values.max() - values.min())).astype("float64")


def filled_by_hand(labels, kept, regions, allowed, threshold, classes):
    """Region after region `(R, U, H, W)`; what is sure stays what was kept at first, the labels do not."""
    labels, learnt = labels.copy(), kept.astype("float64").copy()
    for number in range(len(regions)):
        for n in range(len(labels)):
            pixels = [p for p in np.ndindex(*labels[n].shape) if regions[number, n][p] and allowed[n][p]]
            sure = [p for p in pixels if kept[n][p]]
            if not sure or len(sure) / len(pixels) < threshold:
                continue
            counts = [sum(labels[n][p] == c for p in sure) for c in range(classes)]
            best = max(range(classes), key=lambda c: (counts[c], -c))
            if counts[best] / len(sure) > threshold:
                for p in pixels:
                    labels[n][p], learnt[n][p] = best, 1
    return labels, learnt


def filled(labels, kept, regions, allowed, threshold, classes):
    """`propagate_regions`, compiled."""
    stack = ops.convert_to_tensor(np.asarray(regions, "float32"))
    step = compiled(
        lambda q, k, v, tau: propagate_regions(
            q, k, lambda r: ops.take(stack, r, axis=0), len(regions), v, tau, classes
        ),
        [],
    )
    given = (np.asarray(labels, "int32"), np.asarray(kept, "float32"), np.asarray(allowed, "float32"))
    found = step(*map(ops.convert_to_tensor, (*given, np.float32(threshold))))
    return tuple(map(array, found))


@pytest.mark.parametrize("target", [(4, 3), (12, 9), (7, 8)])
def test_region_is_where_a_place_sends_most(target):
    random = np.random.default_rng(0)
    rows = random.dirichlet(np.full(12, 0.7), 5).astype("float32")
    rows[3] = 1 / 12
    rows[4] *= 1e-4  # each map has a scale of its own
    step = compiled(lambda x: correlation_region(x, (4, 3), target), [])
    found = array(step(ops.convert_to_tensor(rows)))
    assert found.dtype == "float32"
    expected = np.stack([region_by_hand(row, (4, 3), target) for row in rows])
    np.testing.assert_array_equal(found, expected)
    assert not expected[3].any() and all(0 < expected[n].mean() < 0.9 for n in (0, 1, 2, 4))


def test_the_regions_of_the_specification():
    rows = np.array([(0.1, 0.2, 0.5), (1 / 3, 1 / 3, 1 / 3)], "float32")
    found = array(correlation_region(rows, (1, 3), (1, 3)))
    np.testing.assert_array_equal(found[:, 0], [(0, 0, 1), (0, 0, 0)])


@pytest.mark.parametrize("size", [(24, 24), (7, 7)])
def test_a_constant_row_is_of_no_region_though_it_is_enlarged(size):
    places = size[0] * size[1]
    rows = np.full((3, places), [[1 / places], [0.3], [0.0]], "float32")
    rows[1] += 1e-8 * np.arange(places) / places  # less than float32 tells apart
    assert not array(correlation_region(rows, size, (53, 53))).any()


@pytest.mark.parametrize(("sure", "of_one", "accepted"), [(9, 8, True), (9, 7, False), (8, 8, False), (0, 0, False)])
def test_the_numbers_of_the_specification(sure, of_one, accepted):
    """Ten pixels of an image are the region; the eleventh is none of it."""
    labels, kept = np.zeros((1, 1, 11), "int32"), np.zeros((1, 1, 11))
    labels[0, 0, :of_one], kept[0, 0, :sure] = 1, 1
    region = (np.arange(11) < 10)[None, None, None]
    found, learnt = filled(labels, kept, region, np.ones((1, 1, 11)), 0.85, 3)
    expected = np.r_[np.ones(10), 0], np.r_[np.ones(10), 0]
    expected = expected if accepted else (labels[0, 0], kept[0, 0])
    np.testing.assert_array_equal(found[0, 0], expected[0])
    np.testing.assert_array_equal(learnt[0, 0], expected[1])
    assert (found.dtype, learnt.dtype) == ("int32", "float32")


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("threshold", [0.0, 0.45, 0.7])
def test_random_batches(classes, threshold):
    random = np.random.default_rng(classes)
    changed = 0
    for _ in range(3):
        # Blocks of one class, some pixels of another.
        labels = np.kron(random.integers(0, classes, (3, 2, 2)), np.ones((1, 3, 3), int))
        noise = random.uniform(size=labels.shape) < 0.2
        labels[noise] = random.integers(0, classes, noise.sum())
        kept = (random.uniform(size=labels.shape) < 0.75).astype("float32")
        allowed = (random.uniform(size=labels.shape) < 0.9).astype("float32")
        corners = random.integers(0, 4, (7, 3, 2))
        regions = np.zeros((7, 3, 6, 6))
        for r, n in np.ndindex(7, 3):
            top, left = corners[r, n]
            regions[r, n, top : top + 3, left : left + 3] = 1
        found = filled(labels, kept, regions, allowed, threshold, classes)
        expected = filled_by_hand(labels, kept, regions, allowed, threshold, classes)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
        outside = allowed == 0
        np.testing.assert_array_equal(found[0][outside], labels[outside])
        changed += (found[0] != labels).sum() + (found[1] != kept).sum()
    assert changed > 3


def test_earlier_regions_change_what_later_ones_count_but_not_what_is_sure():
    # Class 1 of the first three pixels spreads to the fourth; with it, the second region is of class 1 enough.
    labels, kept = np.array([[[1, 1, 1, 0, 1, 1]]]), np.array([[[1, 1, 1, 1, 1, 0]]])
    first, second = np.array([[[[1, 1, 1, 1, 0, 0]]], [[[0, 0, 0, 1, 1, 0]]]])
    allowed = np.ones((1, 1, 6))
    found, learnt = filled(labels, kept, [first, second], allowed, 0.7, 2)
    np.testing.assert_array_equal(found[0, 0], [1, 1, 1, 1, 1, 1])
    found, _ = filled(labels, kept, [second, first], allowed, 0.7, 2)
    np.testing.assert_array_equal(found[0, 0], [1, 1, 1, 1, 1, 1])
    three = np.array([[[2, 0, 0, 1, 2, 2]]])
    forward, _ = filled(three, kept, [[[[0, 1, 1, 1, 0, 0]]], [[[0, 0, 0, 1, 1, 0]]]], allowed, 0.4, 3)
    backward, _ = filled(three, kept, [[[[0, 0, 0, 1, 1, 0]]], [[[0, 1, 1, 1, 0, 0]]]], allowed, 0.4, 3)
    np.testing.assert_array_equal(forward[0, 0], [2, 0, 0, 0, 0, 2])
    np.testing.assert_array_equal(backward[0, 0], [2, 0, 0, 0, 1, 2])
    # The fifth pixel is filled and kept by the first region, but is not sure in the second.
    fills, needs = [[[1, 1, 1, 1, 1, 0]]], [[[0, 0, 0, 0, 1, 1]]]
    kept = np.array([[[1, 1, 1, 1, 0, 0]]])
    found, learnt = filled(np.array([[[1, 1, 1, 1, 0, 0]]]), kept, [fills, needs], allowed, 0.5, 2)
    np.testing.assert_array_equal(found[0, 0], [1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(learnt[0, 0], [1, 1, 1, 1, 1, 0])


def test_ties_go_to_the_lowest_class_and_a_share_at_the_threshold_is_not_enough():
    labels, kept = np.array([[[2, 1, 1, 2]]]), np.ones((1, 1, 4))
    region = np.ones((1, 1, 1, 4))
    found, _ = filled(labels, kept, region, kept, 0.4, 3)
    np.testing.assert_array_equal(found[0, 0], [1, 1, 1, 1])
    found, _ = filled(labels, kept, region, kept, 0.5, 3)  # a share of 1/2 is not above 1/2
    np.testing.assert_array_equal(found, labels)
    half = np.array([[[1, 0, 0, 1]]])
    found, learnt = filled(np.array([[[1, 0, 0, 1]]]), half, region, np.ones((1, 1, 4)), 0.5, 3)  # but 2 of 4 cover it
    np.testing.assert_array_equal(found[0, 0], [1, 1, 1, 1])
    np.testing.assert_array_equal(learnt, np.ones((1, 1, 4)))


def test_what_is_outside_or_without_a_label_belongs_to_no_region():
    labels = np.array([[[1, 1, 1, 0, 255, 0]]])
    kept = np.array([[[1, 1, 1, 0, 1, 1]]])
    allowed = np.array([[[1, 1, 1, 1, 1, 0]]])
    found, learnt = filled(labels, kept, np.ones((1, 1, 1, 6)), allowed, 0.75, 2)
    np.testing.assert_array_equal(found[0, 0], [1, 1, 1, 1, 255, 0])
    np.testing.assert_array_equal(learnt[0, 0], np.ones(6))


def test_a_weight_between_stays_where_nothing_is_filled():
    kept = np.array([[[0.5, 0.25, 0.0, 1.0]]])
    found, learnt = filled(np.array([[[1, 1, 0, 0]]]), kept, [[[[1, 1, 1, 0]]]], np.ones((1, 1, 4)), 0.6, 2)
    np.testing.assert_array_equal(found[0, 0], [1, 1, 1, 0])
    np.testing.assert_array_equal(learnt[0, 0], [1, 1, 1, 1])
    _, learnt = filled(np.array([[[1, 1, 0, 0]]]), kept, [[[[1, 1, 1, 0]]]], np.ones((1, 1, 4)), 0.7, 2)
    np.testing.assert_array_equal(learnt, kept)


@pytest.mark.parametrize("case", ["no region", "nothing allowed", "nothing kept"])
def test_without_anything_to_fill_all_stays(case):
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, (2, 3, 4))
    kept, allowed, regions = np.ones((2, 3, 4)), np.ones((2, 3, 4)), np.ones((3, 2, 3, 4))
    if case == "no region":
        regions *= 0
    if case == "nothing allowed":
        allowed *= 0
    if case == "nothing kept":
        kept *= 0
    found, learnt = filled(labels, kept, regions, allowed, 0.0, 3)
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(learnt, kept)


def test_no_slope_goes_through():
    rows = np.random.default_rng(2).dirichlet(np.ones(6), 2).astype("float32")
    assert not gradient(lambda x: ops.sum(correlation_region(x, (2, 3), (4, 6))), rows).any()

    def learnt(kept):
        labels = ops.zeros((2, 4, 6), dtype="int32")
        region = correlation_region(rows, (2, 3), (4, 6))
        return ops.sum(propagate_regions(labels, kept, lambda _: region, 2, kept, 0.5, 2)[1])

    assert not gradient(learnt, np.ones((2, 4, 6))).any()


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="`size` must be that of the 6 places of a row, found 2 x 2"):
        correlation_region(np.zeros((1, 6), "float32"), (2, 2), (4, 4))
    flat = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"`labels` must be \(U, H, W\), found \(2, 3\)"):
        propagate_regions(flat, flat, lambda r: flat, 1, flat, 0.5, 2)
