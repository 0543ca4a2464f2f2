"""Batches in which each labelled view stands beside unlabelled ones."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import deinterleave, interleave
from tests.gradients import gradient
from tests.losses.helpers import compiled


def by_hand(labeled_weak, labeled_strong, unlabeled_weak, unlabeled_strong):
    beside = len(unlabeled_weak) // len(labeled_weak)
    rows = []
    for i in range(len(labeled_weak)):
        rows.append(labeled_weak[i])
        rows.extend(unlabeled_weak[i * beside + j] for j in range(beside))
        rows.append(labeled_strong[i])
        rows.extend(unlabeled_strong[i * beside + j] for j in range(beside))
    return np.stack(rows)


def example(labeled, beside, shape=(3, 2)):
    random = np.random.default_rng(labeled + 10 * beside)
    counts = (labeled, labeled, labeled * beside, labeled * beside)
    return [random.normal(size=(count, *shape)).astype("float32") for count in counts]


def test_the_order_of_the_specification():
    sets = [np.arange(start, stop, dtype="int32") for start, stop in ((0, 2), (2, 4), (4, 8), (8, 12))]
    found = ops.convert_to_numpy(interleave(*sets))
    np.testing.assert_array_equal(found, [0, 4, 5, 2, 8, 9, 1, 6, 7, 3, 10, 11])
    assert found.dtype == "int32"


@pytest.mark.parametrize(("labeled", "beside"), [(1, 1), (3, 1), (2, 2), (2, 7)])
@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_together_and_apart(labeled, beside, dynamic_batch):
    sets = example(labeled, beside)
    together = ops.convert_to_numpy(compiled(interleave, *sets, dynamic_batch=dynamic_batch))
    np.testing.assert_array_equal(together, by_hand(*sets))
    apart = compiled(lambda x: deinterleave(x, labeled), together, dynamic_batch=dynamic_batch)
    grouped = [*sets[:2], *(each.reshape(labeled, beside, 3, 2) for each in sets[2:])]
    for found, expected in zip(apart, grouped, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(found), expected)


def test_gradient_comes_back_to_its_row():
    rows = np.arange(12, dtype="float32")
    weights = (1.0, 2.0, 3.0, 4.0)

    def total(x):
        parts = deinterleave(x, 2)
        return sum(ops.sum(part * weight) for part, weight in zip(parts, weights, strict=True))

    np.testing.assert_array_equal(gradient(total, rows), [1, 3, 3, 2, 4, 4] * 2)


@pytest.mark.parametrize("unlabeled", [0, 1, 3, 5])
def test_a_number_that_is_no_multiple_is_named(unlabeled):
    known, hidden = np.zeros((2, 4), "float32"), np.zeros((unlabeled, 4), "float32")
    message = f"`unlabeled_weak` must be a multiple of the 2 labelled images, found {unlabeled}"
    with pytest.raises(ValueError, match=message):
        interleave(known, known, hidden, hidden)


def test_errors():
    known = np.zeros((2, 4), "float32")
    with pytest.raises(
        ValueError, match=r"`labeled_strong` must be of the shape of `labeled_weak` \(2, 4\), found \(1,"
    ):
        interleave(known, known[:1], known, known)
    with pytest.raises(ValueError, match="`unlabeled_strong` must be of the shape of `unlabeled_weak`"):
        interleave(known, known, known, known[:, :3])
    for rows in (4, 6, 9):
        with pytest.raises(ValueError, match=rf"`values` must be 2 B \(1 \+ mu\) rows of B = 2 .*, found {rows}"):
            deinterleave(np.zeros((rows, 3), "float32"), 2)
