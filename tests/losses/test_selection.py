from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses.selection import lowest, share_of


@pytest.mark.parametrize("share", [0.1, 0.25, 0.29, 0.3, 0.57, 1 / 3, 0.9999, 1.0])
def test_share_is_the_exact_floor(share):
    sizes = np.array([0, 1, 3, 9, 10, 11, 100, 9_999, 10_000, 1_000_000, 123_456_789])
    fraction = Fraction(share).limit_denominator(10_000)
    expected = [math.floor(fraction * int(n)) for n in sizes]
    np.testing.assert_array_equal(ops.convert_to_numpy(share_of(share, sizes)), expected)


def test_share_of_float_counts():
    assert ops.convert_to_numpy(share_of(0.3, ops.convert_to_tensor(np.float32(10)))) == 3


@pytest.mark.parametrize("shared", [True, False])
def test_lowest_of_groups(shared):
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (1 if shared else 3, 500)).astype("float32")
    members = rng.integers(0, 3, 500)[None] == np.arange(3)[:, None]
    counts = np.array([0, 17, 1000])
    result = ops.convert_to_numpy(lowest(ops.convert_to_tensor(values), ops.convert_to_tensor(members), counts))
    every = np.broadcast_to(values, (3, 500))
    for group, count in enumerate(counts):
        inside = np.flatnonzero(members[group])
        expected = inside[np.argsort(every[group, inside])[:count]]
        assert set(np.flatnonzero(result[group])) == set(expected)


def test_neighbouring_floats_are_told_apart():
    values = np.array(
        [[-1.0, np.nextafter(np.float32(-0.7), 1), -0.7, 0.9, np.nextafter(np.float32(0.9), 1)]], "float32"
    )
    members = np.ones((1, 5), bool)
    for count, expected in enumerate([[], [0], [0, 2], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]):
        result = ops.convert_to_numpy(lowest(ops.convert_to_tensor(values), ops.convert_to_tensor(members), [count]))
        assert np.flatnonzero(result[0]).tolist() == expected


def test_ties_are_taken_together():
    values = ops.convert_to_tensor(np.array([[0.5, 0.2, 0.5, 0.5, 0.9]], "float32"))
    result = ops.convert_to_numpy(lowest(values, ops.ones((1, 5), "bool"), [2]))
    assert np.flatnonzero(result[0]).tolist() == [0, 1, 2, 3]
