"""DCNet's threshold and the confidence that it follows, against an independent NumPy reading."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import ConsistencyThreshold, mean_confidence
from tests.gradients import gradient
from tests.layers.compiled import compiled
from tests.losses.helpers import assert_config_round_trip, softmax, value


def state(layer):
    return float(ops.convert_to_numpy(layer.threshold.value))


def test_the_numbers_of_the_specification():
    layer = ConsistencyThreshold(2)
    step = compiled(layer.update, layer.variables)
    assert state(layer) == 0.5
    for rate, confidences, expected in ((0.1, (0.8, 0.9), 0.53), (0.2, (0.95, 0.7), 0.564)):
        found = step(ops.convert_to_tensor(np.float32(confidences)), ops.convert_to_tensor(np.float32(rate)))
        np.testing.assert_allclose([value(found), state(layer)], expected, rtol=1e-6)
    layer.threshold.assign(0.25)
    np.testing.assert_allclose(value(layer.update((0.2, 0.2), 0.001)), 0.25)
    np.testing.assert_allclose(value(layer.update((0.999, 0.99), 1.0)), 0.95)


@pytest.mark.parametrize(("classes", "limits"), [(2, (0.25, 0.95)), (4, (0.0, 1.0)), (6, (0.4, 0.6))])
def test_follows_the_lower_confidence_ever_closer(classes, limits):
    random = np.random.default_rng(classes)
    layer, expected = ConsistencyThreshold(classes, *limits), 1 / classes
    np.testing.assert_allclose(state(layer), expected, rtol=1e-6)  # not clipped before an update
    for step in range(9):
        rate = min((step + 1) / 8, 1)
        pair = random.uniform(1 / classes, 1, 2).astype("float32")
        if step == 4:
            pair[step % 2] = 0  # nothing inside
        else:
            moved = [(1 - rate) * expected + rate * each for each in pair]
            expected = min(max(min(moved), limits[0]), limits[1])
        np.testing.assert_allclose(value(layer.update(pair, rate)), expected, rtol=1e-5)
        np.testing.assert_allclose(state(layer), expected, rtol=1e-5)
    assert expected == pytest.approx(np.clip(pair.min(), *limits), rel=1e-5)  # all memory is gone


def test_no_gradient_and_float32_under_mixed_precision():
    layer = ConsistencyThreshold(3, dtype="mixed_float16")
    layer.update(ops.cast(np.array([0.7, 0.8]), "float16"), 0.5)
    assert layer.threshold.dtype == "float32" and not layer.trainable_variables

    def updated(confidences):
        with keras.StatelessScope(state_mapping=[(layer.threshold, layer.threshold.value)]):
            return layer.update(confidences, confidences[0])

    np.testing.assert_array_equal(gradient(updated, np.float32([0.7, 0.8])), 0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("classes", [2, 5])
def test_mean_confidence(classes, masked):
    random = np.random.default_rng(classes)
    logits = random.normal(0, 2, (3, 4, 5, classes)).astype("float32")
    inside = (random.uniform(size=(3, 4, 5)) < 0.6).astype("float32") if masked else None
    best = softmax(logits.astype("float64")).max(-1)
    expected = best.mean() if inside is None else best[inside > 0].mean()
    np.testing.assert_allclose(value(mean_confidence(logits, inside)), expected, rtol=1e-5)
    np.testing.assert_array_equal(gradient(lambda x: mean_confidence(x, inside), logits), 0)
    assert value(mean_confidence(logits, np.zeros((3, 4, 5)))) == 0
    np.testing.assert_allclose(value(mean_confidence(0 * logits)), 1 / classes, rtol=1e-6)


def test_round_trip():
    layer = ConsistencyThreshold(3, 0.1, 0.8, name="filter")
    assert_config_round_trip(layer)
    layer.update((0.7, 0.6), 0.5)
    copy = ConsistencyThreshold.from_config(layer.get_config())
    copy.set_weights(layer.get_weights())
    assert state(copy) == state(layer) and (copy.minimum, copy.maximum, copy.num_classes) == (0.1, 0.8, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "`num_classes` must be a whole number of at least 2, found 1"),
        ({"num_classes": 2.5}, "`num_classes` must be a whole number of at least 2, found 2.5"),
        ({"num_classes": 2, "minimum": "a"}, r"`minimum` must be within \[0, 1\], found 'a'"),
        ({"num_classes": 2, "maximum": "a"}, "`maximum` must be .*, found 'a' with a `minimum` of 0.25"),
        ({"num_classes": 2, "minimum": -0.1}, r"`minimum` must be within \[0, 1\], found -0.1"),
        ({"num_classes": 2, "maximum": 1.5}, "`maximum` must be .*, found 1.5"),
        ({"num_classes": 2, "minimum": 0.9, "maximum": 0.5}, "`maximum` must be .*, found 0.5 .* 0.9"),
    ],
)
def test_errors_name_argument_and_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConsistencyThreshold(**arguments)
