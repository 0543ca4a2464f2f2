"""The ensemble of two teachers by their entropies in bits, against a reading pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import entropy_weighted_ensemble
from tests.gradients import gradient
from tests.layers.compiled import compiled


def numpy(found):
    return type(found)(*map(ops.convert_to_numpy, found))


def by_hand(first, second):
    """Ensemble, weights, entropies and conflict of a single pixel, in plain Python."""
    entropies = [-sum(q * math.log2(q + 1e-10) for q in map(float, each)) for each in (first, second)]
    one, two = (math.exp(-h) for h in entropies)
    weights = [one / (one + two), two / (one + two)]
    mixed = [weights[0] * a + weights[1] * b for a, b in zip(map(float, first), map(float, second), strict=True)]
    most = [max(range(len(mixed)), key=lambda k, q=q: (q[k], -k)) for q in (first, second)]
    return mixed, weights, entropies, most[0] != most[1]


def random_predictions(seed, shape=(2, 3, 4, 5)):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (2, *shape))
    q = np.exp(logits - logits.max(-1, keepdims=True))
    return (q / q.sum(-1, keepdims=True)).astype("float32")


@pytest.mark.parametrize("seed", range(2))
def test_weights_entropies_ensemble_and_conflict(seed):
    first, second = random_predictions(seed)
    first[0, 0, 0] = second[0, 0, 1] = np.eye(5)[2]  # sure of it
    found = numpy(compiled(entropy_weighted_ensemble, [])(first, second))
    assert found.probabilities.shape == first.shape and found.weights.shape == (2, *first.shape[:-1])
    assert {str(field.dtype) for field in found} == {"float32"}
    for place in np.ndindex(*first.shape[:-1]):
        mixed, weights, entropies, conflict = by_hand(first[place], second[place])
        np.testing.assert_allclose(found.probabilities[place], mixed, atol=1e-6)
        np.testing.assert_allclose(found.weights[:, *place], weights, atol=1e-6)
        np.testing.assert_allclose(found.entropies[:, *place], entropies, atol=1e-5)
        assert found.conflict[place] == conflict
    np.testing.assert_allclose(found.probabilities.sum(-1), 1, rtol=1e-6)
    assert 0 < found.conflict.mean() < 1


def test_numbers_of_the_specification():
    first, second = np.array([[0.9, 0.1]] * 2, "float32"), np.array([[0.5, 0.5], [0.2, 0.8]], "float32")
    found = numpy(entropy_weighted_ensemble(first, second))
    np.testing.assert_allclose(found.entropies[:, 0], [0.468996, 1], atol=1e-6)
    np.testing.assert_allclose(found.weights[0], [0.629717, 0.562898], atol=2e-6)
    np.testing.assert_allclose(found.probabilities[0], [0.751887, 0.248113], atol=1e-6)
    np.testing.assert_allclose(found.probabilities[1, 0], 0.594029, atol=1e-6)
    np.testing.assert_array_equal(found.conflict, [0, 1])  # the first class of a tie


@pytest.mark.parametrize("q", [(0.9, 0.1), (1.0, 0.0), (0.5, 0.5), (0.2, 0.3, 0.5)])
def test_two_equal_predictions_are_their_ensemble(q):
    q = np.array(q, "float32")
    found = numpy(entropy_weighted_ensemble(q, q))
    np.testing.assert_array_equal(found.probabilities, q)
    np.testing.assert_array_equal(found.weights, 0.5)
    assert found.conflict == 0 and np.isfinite(found.entropies).all()


def test_no_gradient_and_float32_of_halves():
    first, second = random_predictions(3)

    def total(x):
        found = entropy_weighted_ensemble(x, second)
        return ops.sum(ops.square(found.probabilities)) + ops.sum(found.weights[0]) + ops.sum(found.entropies)

    np.testing.assert_array_equal(gradient(total, first), 0)
    halves = entropy_weighted_ensemble(ops.cast(first, "float16"), ops.cast(second, "bfloat16"))
    assert {str(field.dtype) for field in numpy(halves)} == {"float32"}


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (3, 4, 5), (1, 3, 4, 5), (2, 1, 4, 5)])
def test_predictions_of_another_shape_are_named(shape):
    with pytest.raises(ValueError, match=r"`second` must have the shape .*\(2, 3, 4, 5\), found \(" + str(shape[0])):
        entropy_weighted_ensemble(random_predictions(0)[0], np.ones(shape, "float32"))
