"""Delta consistency, against loops over images and classes."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import DeltaConsistencyLoss
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, softmax, value


def by_hand(views, pairs="all", labels=None, inside=None, fixed=None):
    """The loss; what carries no gradient comes from `fixed`, where a slope is taken by the other views."""
    known = views if fixed is None else fixed
    lw, ls = (softmax(np.asarray(view, "float64")) for view in known[:2])
    uw, us = (softmax(np.asarray(view, "float64")) for view in views[2:])
    predicted = np.argmax(known[2], axis=-1)
    total, counted = 0.0, 0
    for i in range(len(lw)):
        there = [j for j in range(uw.shape[1]) if inside is None or inside[i][j]]
        if not there or (pairs == "class" and labels[i] == 255):
            continue
        counted += 1
        chosen = [j for j in there if pairs == "all" or predicted[i, j] == labels[i]]
        if chosen:
            change = sum(uw[i, j] - us[i, j] for j in chosen) / len(chosen)
            total += np.mean((change - (lw[i] - ls[i])) ** 2)
    return total / max(counted, 1)


def example(classes=3, labeled=4, beside=3, seed=0):
    random = np.random.default_rng(seed)
    shapes = [(labeled, classes)] * 2 + [(labeled, beside, classes)] * 2
    views = [random.normal(0, 2, shape).astype("float32") for shape in shapes]
    labels = random.integers(0, classes, labeled).astype("int32")
    return views, labels


@pytest.mark.parametrize("pairs", ["all", "class"])
@pytest.mark.parametrize(("classes", "labeled", "beside"), [(2, 4, 1), (2, 3, 2), (3, 4, 3), (5, 2, 7)])
def test_random_batches(classes, labeled, beside, pairs):
    for seed in range(4):
        views, labels = example(classes, labeled, beside, seed)
        loss = DeltaConsistencyLoss(pairs)
        expected = by_hand(views, pairs, labels)
        np.testing.assert_allclose(value(loss(*views, labels)), expected, rtol=1e-5, atol=1e-8)
        inside = np.random.default_rng(seed).integers(0, 2, (labeled, beside))
        inside[0] = 0
        found = value(loss(*views, labels, inside.astype("float32")))
        np.testing.assert_allclose(found, by_hand(views, pairs, labels, inside), rtol=1e-5, atol=1e-8)
        if pairs == "all":
            np.testing.assert_allclose(value(loss(*views)), expected, rtol=1e-5)


def logits(*rows):
    return np.log(np.array(rows, "float32"))


def test_the_numbers_of_the_specification():
    labeled = logits((0.9, 0.1)), logits((0.7, 0.3))
    same = logits([(0.4, 0.6)])
    np.testing.assert_allclose(value(DeltaConsistencyLoss()(*labeled, same, same)), 0.04, rtol=1e-4)
    weak, strong = logits([(0.2, 0.8), (0.6, 0.4)]), logits([(0.2, 0.8), (0.4, 0.6)])
    np.testing.assert_allclose(value(DeltaConsistencyLoss()(*labeled, weak, strong)), 0.01, rtol=1e-4)
    by_class = DeltaConsistencyLoss("class")
    np.testing.assert_allclose(value(by_class(*labeled, weak, strong, np.array([0]))), 0, atol=1e-7)
    np.testing.assert_allclose(value(by_class(*labeled, weak, strong, np.array([1]))), 0.04, rtol=1e-4)
    both = logits([(0.7, 0.3), (0.6, 0.4)])
    assert value(by_class(*labeled, both, strong, np.array([1]))) == 0
    for index in (2, 3):
        views = [*labeled, both, strong]

        def total(x, index=index, views=views):
            return by_class(*views[:index], x, *views[index + 1 :], np.array([1]))

        np.testing.assert_array_equal(gradient(total, views[index]), 0)


@pytest.mark.parametrize("pairs", ["all", "class"])
def test_gradient_flows_into_both_unlabelled_views_alone(pairs):
    views, labels = example(3, 4, 2, seed=1)
    inside = np.ones((4, 2), "float32")
    inside[1, 0] = 0
    loss = DeltaConsistencyLoss(pairs)
    for index in range(4):

        def with_view(x, index=index):
            return [*views[:index], x, *views[index + 1 :]]

        found = gradient(lambda x, put=with_view: loss(*put(x), labels, inside), views[index])
        if index < 2:
            np.testing.assert_array_equal(found, 0)
            continue
        expected = finite_difference(
            lambda x, put=with_view: by_hand(put(x), pairs, labels, inside, views), views[index]
        )
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert np.abs(expected).max() > 1e-3 and not found[1, 0].any()
    np.testing.assert_array_equal(gradient(lambda x: loss(*views, labels, x), inside), 0)


def test_equal_changes_cost_nothing_and_a_term_is_at_most_four():
    views, _ = example(4, 3, 1)
    same = [views[0], views[1], views[0][:, None], views[1][:, None]]
    np.testing.assert_allclose(value(DeltaConsistencyLoss()(*same)), 0, atol=1e-12)
    first, second = (100 * np.eye(2, dtype="float32")[[k]] for k in (0, 1))
    np.testing.assert_allclose(value(DeltaConsistencyLoss()(first, second, second[None], first[None])), 4, rtol=1e-6)


@pytest.mark.parametrize("case", ["no label", "nothing inside", "no match", "extreme"])
def test_degenerate_batches(case):
    views, labels = example(3, 2, 2)
    inside = np.zeros((2, 2), "float32") if case == "nothing inside" else None
    if case == "no label":
        labels[:] = 255
    if case == "no match":
        views[2][..., 2] = 50
        labels[:] = 0
    if case == "extreme":
        views = [1e4 * view for view in views]
    for pairs in ("all", "class"):
        loss = DeltaConsistencyLoss(pairs)
        found = value(loss(*views, labels, inside))
        np.testing.assert_allclose(found, by_hand(views, pairs, labels, inside), rtol=1e-5, atol=1e-8)
        slope = gradient(lambda x, of=loss: of(*views[:2], x, views[3], labels, inside), views[2])
        assert np.isfinite(slope).all()
        if case == "nothing inside" or (pairs == "class" and case in ("no label", "no match")):
            assert found == 0 and not slope.any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    views, labels = example()
    half = [ops.cast(view, dtype) for view in views]
    rounded = [ops.convert_to_numpy(ops.cast(view, "float32")) for view in half]
    np.testing.assert_allclose(
        value(DeltaConsistencyLoss("class")(*half, labels)), by_hand(rounded, "class", labels), rtol=1e-5
    )


@pytest.mark.parametrize("dynamic_batch", [False, True])
@pytest.mark.parametrize("pairs", ["all", "class"])
def test_compiled(pairs, dynamic_batch):
    views, labels = example()
    found = compiled(DeltaConsistencyLoss(pairs), *views, labels, dynamic_batch=dynamic_batch)
    np.testing.assert_allclose(value(found), by_hand(views, pairs, labels), rtol=1e-5)


def test_config_round_trip():
    assert_config_round_trip(DeltaConsistencyLoss("class", name="d"))


def test_errors():
    views, labels = example(3, 2, 2)
    with pytest.raises(ValueError, match="`pairs` must be one of 'all', 'class', found 'same'"):
        DeltaConsistencyLoss("same")
    with pytest.raises(
        ValueError, match="`labels` must be those of the labelled images with `pairs`='class', found None"
    ):
        DeltaConsistencyLoss("class")(*views)
    with pytest.raises(ValueError, match=r"`unlabeled_weak` must be \(B, mu, C\), found \(2, 3\)"):
        DeltaConsistencyLoss()(*views[:2], *views[:2])
    with pytest.raises(ValueError, match=r"`unlabeled_strong` must be of the shape of `unlabeled_weak` \(2, 2, 3\)"):
        DeltaConsistencyLoss()(*views[:3], views[3][:, :1])
    with pytest.raises(ValueError, match=r"`labeled_strong` must be \(B, C\) \(2, 3\), found \(2, 2\)"):
        DeltaConsistencyLoss()(views[0], views[1][:, :2], *views[2:])
