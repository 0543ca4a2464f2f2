"""The head against its layers written out, over all entries and over members alone."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import MLPHead
from tests.gradients import gradient
from tests.layers.compiled import compiled

FEATURES = np.random.default_rng(0).normal(size=(12, 5)).astype("float32")
MEMBERS = (np.random.default_rng(1).uniform(size=12) > 0.4).astype("float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def head(units=3, hidden_units=(7, 6), seed=2, shape=(None, 5), **arguments):
    """A head whose BatchNorms do something: random scales, offsets and moving statistics."""
    layer = MLPHead(units, hidden_units, **arguments)
    layer.build(shape)
    random = np.random.default_rng(seed)
    layer.set_weights([random.uniform(0.5, 1.5, w.shape) * random.choice([-1, 1], w.shape) for w in layer.weights])
    for norm in layer.norms:
        norm.moving_variance.assign(np.abs(numpy(norm.moving_variance)))
    return layer


def by_hand(layer, x, slope=0.1, members=None, training=True):
    x = x.astype("float64")
    for dense, norm in zip(layer.hidden, layer.norms, strict=True):
        x = x @ numpy(dense.kernel) + numpy(dense.bias)
        among = x if members is None else x[members > 0]
        among = among.reshape(-1, x.shape[-1])
        mean, variance = among.mean(0), among.var(0)
        if not training:
            mean, variance = numpy(norm.moving_mean), numpy(norm.moving_variance)
        x = (x - mean) / np.sqrt(variance + 1e-5) * numpy(norm.gamma) + numpy(norm.beta)
        x = np.where(x > 0, x, slope * x)
    return x @ numpy(layer.output_layer.kernel) + numpy(layer.output_layer.bias)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("hidden_units", "slope"), [((7,), 0.2), ((7, 6), 0.1), ((), 0.0)])
def test_layers_in_order(hidden_units, slope, training):
    layer = head(hidden_units=hidden_units, negative_slope=slope)
    expected = by_hand(layer, FEATURES, slope, training=training)
    np.testing.assert_allclose(numpy(layer(FEATURES, training=training)), expected, rtol=1e-3, atol=1e-4)
    assert len(layer.hidden) == len(layer.norms) == len(hidden_units)


def test_on_a_map():
    layer, maps = head(shape=(None, 3, 2, 5)), FEATURES.reshape(2, 3, 2, 5)
    expected = by_hand(layer, maps)
    np.testing.assert_allclose(numpy(layer(maps, training=True)), expected, rtol=1e-3, atol=1e-4)
    members = MEMBERS.reshape(2, 3, 2)
    expected = by_hand(layer, maps, members=members)[members > 0]
    found = numpy(layer(maps, mask=members, training=True))[members > 0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_statistics_are_those_of_the_members(dtype):
    layer, alone = head(), head()
    step = compiled(lambda x, m: layer(x, mask=m, training=True), layer.variables)
    found = numpy(step(ops.convert_to_tensor(FEATURES), ops.convert_to_tensor(MEMBERS.astype(dtype))))
    np.testing.assert_allclose(found[MEMBERS > 0], by_hand(layer, FEATURES, members=MEMBERS)[MEMBERS > 0], atol=1e-3)
    alone(FEATURES[MEMBERS > 0], training=True)
    for a, b in zip(layer.non_trainable_variables, alone.non_trainable_variables, strict=True):
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=0.05)  # PyTorch's own moments move by M / (M - 1)
    expected = by_hand(layer, FEATURES, training=False)
    found = numpy(layer(FEATURES, mask=MEMBERS, training=False))  # the mask is for training
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_without_a_member_nothing_moves_and_nothing_overflows():
    layer = head()
    before = [numpy(variable) for variable in layer.variables]
    step = compiled(lambda x, m: layer(x, mask=m, training=True), layer.variables)
    found = numpy(step(ops.convert_to_tensor(FEATURES), ops.zeros(12)))
    assert np.isfinite(found).all()
    for old, variable in zip(before, layer.variables, strict=True):
        np.testing.assert_array_equal(old, numpy(variable))


def test_members_learn_from_members_alone():
    layer, members = head(), ops.convert_to_tensor(MEMBERS)

    def loss(x):  # in a scope, as JAX assigns no weight while it differentiates
        with keras.StatelessScope(state_mapping=[(v, v.value) for v in layer.variables]):
            return ops.sum(ops.square(layer(x, mask=members, training=True)) * members[:, None])

    result = gradient(loss, FEATURES)
    assert np.abs(result[MEMBERS > 0]).max() > 1e-3 and np.isfinite(result).all()
    np.testing.assert_array_equal(result[MEMBERS == 0], 0)


def test_float32_under_mixed_precision():
    layer = MLPHead(3, (7,), dtype="mixed_float16")
    found = layer(ops.cast(FEATURES, "float16"), training=True)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert {variable.dtype for variable in layer.variables} == {"float32"}
    rounded = FEATURES.astype("float16")
    np.testing.assert_allclose(numpy(found), by_hand(layer, rounded), rtol=1e-3, atol=1e-4)


def test_config_and_file_round_trip(tmp_path):
    layer = MLPHead(3, (7, 6), 0.2, name="head")
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
    assert copy.get_config() == layer.get_config()
    inputs = keras.Input((5,))
    model = keras.Model(inputs, head()(inputs))
    model.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras")
    np.testing.assert_allclose(loaded.predict(FEATURES, verbose=0), model.predict(FEATURES, verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, (2,)), "units"), ((2, (3, 0)), "hidden_units"), ((2, (3,), -0.1), "negative_slope")],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLPHead(*arguments)
