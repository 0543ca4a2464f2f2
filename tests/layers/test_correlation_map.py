"""The correlation map of CorrMatch and what it spreads, against loops over pairs of places."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import CorrelationMap, propagate_logits
from tests.gradients import gradient
from tests.layers.compiled import compiled
from tests.losses.helpers import assert_config_round_trip, finite_difference


def array(value):
    return ops.convert_to_numpy(value)


def dense(layer, x):
    kernel, bias = (weights.astype("float64") for weights in layer.get_weights())
    return x @ kernel + bias


def map_by_hand(features, sent, received, dim):
    """Pair by pair: `sent(x)` and `received(x)` of the features of two places, softmax over the receivers."""
    count, height, width, _ = features.shape
    found = np.zeros((count, height * width, height * width))
    for n in range(count):
        places = features[n].reshape(height * width, -1).astype("float64")
        for i, here in enumerate(places):
            scores = np.array([sent(here) @ received(there) / math.sqrt(dim) for there in places])
            found[n, i] = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    return found


def shrunk(logits, size):
    """Bilinear with half-pixel centres and two neighbours, pixel by pixel."""
    count, height, width, classes = logits.shape
    found = np.zeros((count, *size, classes))
    for y, x in np.ndindex(*size):
        row, column = (y + 0.5) * height / size[0] - 0.5, (x + 0.5) * width / size[1] - 0.5
        for i, j in np.ndindex(2, 2):
            top, left = math.floor(row) + i, math.floor(column) + j
            share = (1 - abs(row - top)) * (1 - abs(column - left))
            found[:, y, x] += share * logits[:, min(max(top, 0), height - 1), min(max(left, 0), width - 1)]
    return found


def spread_by_hand(logits, correlation, size):
    """Place j gets the sum over i of what i sends to it."""
    sent = shrunk(np.asarray(logits, "float64"), size).reshape(len(logits), -1, logits.shape[-1])
    found = np.zeros_like(sent)
    for n, i, j in np.ndindex(*correlation.shape):
        found[n, j] += sent[n, i] * correlation[n, i, j]
    return found.reshape(len(logits), *size, -1)


def example(seed=0, dim=5):
    random = np.random.default_rng(seed)
    layer = CorrelationMap(dim)
    layer.build((None, 3, 2, 4))
    for variable in layer.variables:  # with biases
        variable.assign(random.normal(size=tuple(variable.shape)))
    return layer, random.normal(size=(2, 3, 2, 4)).astype("float32")


@pytest.mark.parametrize("dim", [1, 5, 21])
def test_map_compares_all_pairs_of_places(dim):
    layer, features = example(dim, dim)
    found = array(compiled(layer, layer.variables)(ops.convert_to_tensor(features)))
    expected = map_by_hand(features, lambda x: dense(layer.sender, x), lambda x: dense(layer.receiver, x), dim)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    assert np.abs(found.sum(1) - 1).max() > 0.1  # what a place receives adds up to anything
    assert layer.compute_output_shape((None, 3, 2, 4)) == (None, 6, 6)


def test_the_numbers_of_the_specification():
    layer = CorrelationMap(1)
    layer.build((None, 1, 2, 2))
    layer.sender.set_weights([np.array([[1.0], [0.0]]), np.zeros(1)])
    layer.receiver.set_weights([np.array([[0.0], [1.0]]), np.zeros(1)])
    features = np.array([[[[1.0, math.log(3)], [0.0, 0.0]]]], "float32")  # f1 = (1, 0), f2 = (ln 3, 0)
    correlation = layer(features)
    np.testing.assert_allclose(array(correlation)[0], [[0.75, 0.25], [0.5, 0.5]], rtol=1e-6)
    logits = np.array([[[[2.0, 0.0], [0.0, 1.0]]]], "float32")
    found = array(propagate_logits(logits, correlation, (1, 2)))
    np.testing.assert_allclose(found[0, 0], [[1.5, 0.5], [0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("target", [(3, 2), (12, 8), (7, 5)])
def test_logits_spread_from_sender_to_receiver(target):
    layer, features = example(3)
    correlation = array(layer(features))
    logits = np.random.default_rng(4).normal(0, 3, (2, *target, 3)).astype("float32")
    step = compiled(lambda z, c: propagate_logits(z, c, (3, 2)), [])
    found = array(step(ops.convert_to_tensor(logits), ops.convert_to_tensor(correlation)))
    assert found.shape == (2, 3, 2, 3)
    np.testing.assert_allclose(found, spread_by_hand(logits, correlation, (3, 2)), rtol=1e-4, atol=1e-5)


def test_slopes_reach_the_map_and_its_layers_but_not_the_logits():
    layer, features = example(5)
    random = np.random.default_rng(6)
    logits, pull = random.normal(size=(2, 6, 4, 3)).astype("float32"), random.normal(size=(2, 3, 2, 3))
    weight = ops.convert_to_tensor(pull.astype("float32"))

    def reading(x):
        sent, received = ((lambda y, d=d: dense(d, y)) for d in (layer.sender, layer.receiver))
        return np.sum(pull * spread_by_hand(logits, map_by_hand(x, sent, received, 5), (3, 2)))

    def loss(x):
        return ops.sum(weight * propagate_logits(ops.convert_to_tensor(logits), layer(x), (3, 2)))

    expected = finite_difference(reading, features)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(gradient(loss, features), expected, rtol=5e-3, atol=2e-4)
    correlation = ops.convert_to_tensor(array(layer(features)))
    assert not gradient(lambda z: ops.sum(weight * propagate_logits(z, correlation, (3, 2))), logits).any()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_map_is_float32_under_any_policy(policy):
    plain, features = example(7)
    keras.config.set_dtype_policy(policy)
    try:
        layer = CorrelationMap(5)
        layer.build((None, 3, 2, 4))
    finally:
        keras.config.set_dtype_policy("float32")
    layer.set_weights(plain.get_weights())
    half = ops.cast(features, policy.removeprefix("mixed_"))
    found = layer(half)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(array(found), array(plain(ops.cast(half, "float32"))), rtol=1e-6)


def test_one_place_sends_to_itself_and_large_scores_stay_finite():
    layer, features = example(8)
    np.testing.assert_array_equal(array(layer(features[:, :1, :1])), np.ones((2, 1, 1)))
    assert np.isfinite(array(layer(1e4 * features))).all()


def test_configuration_and_errors():
    layer = CorrelationMap(7)
    assert_config_round_trip(layer)
    for wrong in (0, 2.5):
        with pytest.raises(ValueError, match=f"`dim` must be a whole number of at least 1, found {wrong}"):
            CorrelationMap(wrong)
    with pytest.raises(ValueError, match=r"`features` must be \(N, h, w, D\), found \(2, 6, 4\)"):
        layer(np.zeros((2, 6, 4), "float32"))
    with pytest.raises(ValueError, match="`size` must be that of the 6 places of the map, found 2 x 2"):
        propagate_logits(np.zeros((1, 4, 4, 2), "float32"), np.zeros((1, 6, 6), "float32"), (2, 2))
