from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import InterTaskConsistency
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, value


def oracle(classification, segmentation):
    losses = []
    for a, b in zip(np.asarray(classification, "float64"), np.asarray(segmentation, "float64"), strict=True):
        losses.append(1 - (a @ b) / (np.sqrt(a @ a) * np.sqrt(b @ b)))
    return np.mean(losses)


def example(images, depth, scale=1.0):
    rng = np.random.default_rng(0)
    return tuple((scale * rng.normal(size=(images, depth))).astype("float32") for _ in range(2))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("images", "depth"), [(1, 2), (5, 8)])
def test_matches_equation_14(images, depth, scale):
    a, b = example(images, depth, scale)
    np.testing.assert_allclose(value(InterTaskConsistency()(a, b)), oracle(a, b), rtol=1e-5)


def test_gradient_flows_into_both_tasks():
    a, b = example(3, 4)
    loss = InterTaskConsistency()
    by_a = gradient(lambda x: loss(x, b), a)
    by_b = gradient(lambda x: loss(a, x), b)
    np.testing.assert_allclose(by_a, finite_difference(lambda x: oracle(x, b), a), atol=1e-5)
    np.testing.assert_allclose(by_b, finite_difference(lambda x: oracle(a, x), b), atol=1e-5)


def test_range():
    a, _ = example(3, 4)
    np.testing.assert_allclose(value(InterTaskConsistency()(a, 5 * a)), 0, atol=1e-6)
    np.testing.assert_allclose(value(InterTaskConsistency()(a, -a)), 2, atol=1e-6)


@pytest.mark.parametrize("both", [False, True])
def test_a_zero_vector_is_finite(both):
    a, b = example(3, 4)
    a[1] = 0
    b[1] = 0 if both else b[1]
    expected = (2 * oracle(a[[0, 2]], b[[0, 2]]) + 1) / 3
    np.testing.assert_allclose(value(InterTaskConsistency()(a, b)), expected, rtol=1e-5)
    slope = gradient(lambda x: InterTaskConsistency()(x, b), a)
    assert np.all(np.isfinite(slope)) and np.max(np.abs(slope)) < 10


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    # 300 squared would overflow float16.
    a, b = (ops.cast(x, dtype) for x in example(3, 4, scale=300.0))
    rounded = [ops.convert_to_numpy(ops.cast(x, "float32")) for x in (a, b)]
    np.testing.assert_allclose(value(InterTaskConsistency()(a, b)), oracle(*rounded), rtol=1e-5)


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_compiled(dynamic_batch):
    arrays = example(3, 4)
    result = compiled(InterTaskConsistency(), *arrays, dynamic_batch=dynamic_batch)
    np.testing.assert_allclose(value(result), oracle(*arrays), rtol=1e-5)


def test_config_round_trip():
    assert_config_round_trip(InterTaskConsistency(name="c"))
