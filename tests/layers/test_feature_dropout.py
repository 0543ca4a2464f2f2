"""Feature dropout: whole channels, image by image and level by level, in training alone."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import FeatureDropout
from tests.gradients import gradient
from tests.layers.compiled import compiled


def numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


def levels(seed=0):
    random = np.random.default_rng(seed)
    shapes = {"skip_2": (3, 4, 5, 6), "output": (3, 2, 2, 8)}
    return {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def test_whole_channels_are_dropped_and_the_others_doubled():
    layer = FeatureDropout()
    step = compiled(lambda x: layer(x, training=True), layer.variables)
    found = numpy(step(ops.ones((20, 3, 2, 30))))
    assert set(np.unique(found)) == {0.0, 2.0}
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1, :1], found.shape))
    channels = found[:, 0, 0]
    assert abs(channels.mean() - 1) < 0.1
    assert len(np.unique(channels, axis=0)) == 20 and np.unique(channels, axis=1).shape[1] > 25
    assert (numpy(step(ops.ones((20, 3, 2, 30)))) != found).any()


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9])
def test_the_rate_is_the_share_dropped_and_the_mean_stays(rate):
    factors = numpy(FeatureDropout(rate, seed=3).draw(200, 100))
    assert factors.shape == (200, 100) and factors.dtype == "float32"
    np.testing.assert_allclose(np.unique(factors), [0, 1 / (1 - rate)], rtol=1e-6)
    assert abs((factors == 0).mean() - rate) < 0.02


def test_given_factors_multiply_the_channels():
    features, random = levels(), np.random.default_rng(1)
    factors = {name: random.uniform(size=(3, x.shape[-1])).astype("float32") for name, x in features.items()}
    found = numpy(FeatureDropout()(features, factors, training=True))
    assert list(found) == list(features)
    for name, feature in features.items():
        for n, y, x, d in np.ndindex(*feature.shape):
            np.testing.assert_allclose(found[name][n, y, x, d], feature[n, y, x, d] * factors[name][n, d], rtol=1e-6)
    alone = numpy(FeatureDropout()(features["output"], factors["output"], training=True))
    np.testing.assert_array_equal(alone, found["output"])
    vector = numpy(FeatureDropout()(features["output"][:, 0, 0], factors["output"], training=True))
    np.testing.assert_array_equal(vector, found["output"][:, 0, 0])


def test_levels_are_drawn_apart_and_in_the_order_of_their_names():
    features = {"b": np.ones((4, 2, 2, 16), "float32"), "a": np.ones((4, 1, 1, 16), "float32")}
    found = numpy(FeatureDropout(seed=2)(features, training=True))
    assert (found["a"][:, 0, 0] != found["b"][:, 0, 0]).any()
    again = numpy(FeatureDropout(seed=2)(dict(reversed(features.items())), training=True))
    for name in features:
        np.testing.assert_array_equal(found[name], again[name])


@pytest.mark.parametrize("training", [False, None])
def test_nothing_happens_outside_of_training_nor_at_rate_zero(training):
    layer, features = FeatureDropout(), levels()
    before = numpy(layer.random_state.value)
    for factors in (None, {name: np.zeros((3, x.shape[-1]), "float32") for name, x in features.items()}):
        found = numpy(layer(features, factors, training=training))
        for name in features:
            np.testing.assert_array_equal(found[name], features[name])
    np.testing.assert_array_equal(numpy(layer.random_state.value), before)
    found = numpy(FeatureDropout(0.0)(features, training=True))
    for name in features:
        np.testing.assert_array_equal(found[name], features[name])


def test_gradient_flows_into_the_features_alone():
    features = levels()["output"]
    factors = numpy(FeatureDropout().draw(3, 8))
    layer = FeatureDropout()
    result = gradient(lambda x: ops.sum(layer(x, factors, training=True)), features)
    np.testing.assert_array_equal(result, np.broadcast_to(factors[:, None, None, :], features.shape))
    result = gradient(lambda x: ops.sum(layer(features, x, training=True)), factors)
    np.testing.assert_array_equal(result, 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_features_keep_their_dtype(dtype):
    layer = FeatureDropout(0.3, dtype=f"mixed_{dtype}")
    features = ops.cast(levels()["output"], dtype)
    factors = np.full((3, 8), 1 / 0.7, "float32")
    found = layer(features, factors, training=True)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    exact = numpy(ops.cast(features, "float32")) / np.float32(0.7)
    np.testing.assert_allclose(numpy(ops.cast(found, "float32")), exact, rtol=1e-2)
    plain = layer(levels()["output"], factors, training=True)
    assert keras.backend.standardize_dtype(plain.dtype) == "float32"
    assert layer.random_state.dtype == FeatureDropout().random_state.dtype


def test_config_and_stream_round_trip(tmp_path):
    layer = FeatureDropout(0.3, seed=4)
    layer.draw(2, 3)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
    assert copy.get_config() == layer.get_config() and (copy.rate, copy.seed) == (0.3, 4)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(numpy(copy.draw(5, 7)), numpy(layer.draw(5, 7)))
    inputs = keras.Input((2, 2, 8))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    np.testing.assert_array_equal(numpy(loaded.draw(5, 7)), numpy(layer.draw(5, 7)))


def test_errors():
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match="`rate` must be within"):
            FeatureDropout(rate)
    features = levels()
    with pytest.raises(
        ValueError, match="`factors` must be a dict of the features' levels .*'output'.*, found .*'skip'"
    ):
        FeatureDropout()(features, {"skip": np.ones((3, 6), "float32")}, training=True)
    with pytest.raises(ValueError, match="found a single tensor"):
        FeatureDropout()(features, np.ones((3, 6), "float32"), training=True)
