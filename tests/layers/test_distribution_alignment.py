"""Distribution alignment, against a queue of Python."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import DistributionAlignment
from tests.gradients import gradient
from tests.layers.compiled import compiled
from tests.losses.helpers import softmax


def numpy(value):
    return ops.convert_to_numpy(value)


def batches(count, images=5, classes=3, seed=0):
    random = np.random.default_rng(seed)
    return [softmax(random.normal(0, 2, (images, classes))).astype("float32") for _ in range(count)]


def aligned(p, q):
    weighed = np.asarray(p, "float64") / np.maximum(q, 1e-12)
    return weighed / weighed.sum(-1, keepdims=True)


def test_the_numbers_of_the_specification():
    layer = DistributionAlignment(2)
    found = numpy(layer(np.array([[0.9, 0.1], [0.7, 0.3]], "float32"), training=True))
    np.testing.assert_allclose(found, [[0.69231, 0.30769], [0.36842, 0.63158]], atol=1e-5)
    # A class that is always predicted with 0.8 is predicted no more often than the other.
    found = numpy(DistributionAlignment(2)(np.array([[0.8, 0.2]], "float32"), training=True))
    np.testing.assert_allclose(found, [[0.5, 0.5]], rtol=1e-5)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_the_last_batches_count(momentum):
    layer = DistributionAlignment(3, size=4, momentum=momentum)
    step = compiled(lambda p, inside: layer(p, inside, training=True), layer.variables)
    queue, mean = np.zeros((4, 3)), None
    for index, p in enumerate(batches(7)):
        inside = np.array([1, 1, 0, 1, 0], "float32")
        found = numpy(step(ops.convert_to_tensor(p), ops.convert_to_tensor(inside)))
        batch = p[inside > 0].astype("float64").mean(0)
        queue[index % 4] = batch
        mean = batch if mean is None else 0.9 * mean + 0.1 * batch
        frequency = queue.sum(0) if momentum is None else mean
        np.testing.assert_allclose(found, aligned(p, frequency), rtol=1e-4)
    state = layer.queue if momentum is None else layer.mean
    np.testing.assert_allclose(numpy(state.value), queue if momentum is None else mean, rtol=1e-5)
    assert numpy(layer.updates.value) == 7
    assert state.dtype == "float32" and layer.updates.dtype == "int32"
    before = [numpy(v.value) for v in layer.variables]
    p = batches(1, seed=1)[0]
    for training in (False, None):  # used as it stands
        np.testing.assert_allclose(numpy(layer(p, training=training)), aligned(p, frequency), rtol=1e-4)
    for variable, value in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable.value), value)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_what_does_not_count_moves_nothing(momentum):
    layer = DistributionAlignment(3, size=2, momentum=momentum)
    p = batches(1)[0]
    np.testing.assert_allclose(numpy(layer(p)), p, rtol=1e-5)  # before the first batch
    np.testing.assert_allclose(numpy(layer(p, np.zeros(5, "float32"), training=True)), p, rtol=1e-5)
    layer(np.full((5, 3), np.nan, "float32"), training=True)
    assert numpy(layer.updates.value) == 0 and not any(numpy(v.value).any() for v in layer.variables)
    layer(p, training=True)
    assert numpy(layer.updates.value) == 1
    np.testing.assert_allclose(numpy(layer.queue[0] if momentum is None else layer.mean), p.mean(0), rtol=1e-5)


def test_a_class_that_is_never_predicted_stays_finite():
    layer = DistributionAlignment(3)
    p = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], "float32")
    np.testing.assert_allclose(numpy(layer(p, training=True)), aligned(p, p.mean(0)), rtol=1e-5)
    found = numpy(layer(np.array([[0.4, 0.4, 0.2], [0, 0, 0]], "float32")))
    np.testing.assert_allclose(found[0], [0, 0, 1], atol=1e-6)  # the rarest takes all
    np.testing.assert_array_equal(found[1], 0)


def test_no_gradient_and_float32_under_mixed_precision():
    layer = DistributionAlignment(3, dtype="mixed_float16")
    assert {v.dtype for v in layer.variables} == {"float32", "int32"}
    half = ops.cast(batches(1)[0], "float16")
    assert keras.backend.standardize_dtype(layer(half).dtype) == "float32"

    def first(x):
        with keras.StatelessScope(state_mapping=[(v, v.value) for v in layer.variables]):
            return ops.sum(layer(x, training=True)[:, 0])

    np.testing.assert_array_equal(gradient(first, batches(1)[0]), 0)


@pytest.mark.parametrize("momentum", [None, 0.5])
def test_round_trip(momentum):
    layer = DistributionAlignment(3, size=5, momentum=momentum)
    layer(batches(1)[0], training=True)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
    assert copy.get_config() == layer.get_config()
    copy.set_weights(layer.get_weights())
    p = batches(1, seed=1)[0]
    np.testing.assert_array_equal(numpy(copy(p)), numpy(layer(p)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_labels": 1}, "`num_labels` must be a whole number of at least 2, found 1"),
        ({"size": 0}, "`size` must be a whole number of at least 1, found 0"),
        ({"momentum": 1.5}, r"`momentum` must be within \[0, 1\], found 1.5"),
    ],
)
def test_errors(wrong, message):
    with pytest.raises(ValueError, match=message):
        DistributionAlignment(**{"num_labels": 3, **wrong})
    with pytest.raises(ValueError, match=r"`probabilities` must be \(U, 3\), found \(5, 2\)"):
        DistributionAlignment(3)(np.ones((5, 2), "float32"))
