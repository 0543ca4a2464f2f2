"""A moving average that is saved with the model."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import RunningMean
from tests.gradients import gradient
from tests.layers.compiled import compiled


def state(mean):
    return ops.convert_to_numpy(mean.value.value), ops.convert_to_numpy(mean.updates.value)


def test_the_first_update_copies():
    mean = RunningMean()
    step = compiled(mean.update, mean.variables)
    for share, expected in ((0.25, 0.25), (0.75, 0.2505)):
        found = ops.convert_to_numpy(step(ops.convert_to_tensor(np.float32(share))))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    value, updates = state(mean)
    np.testing.assert_allclose(value, 0.2505, rtol=1e-6)
    assert updates == 2 and updates.dtype == np.int32 and value.dtype == np.float32


@pytest.mark.parametrize("initial", [None, 0.3])
def test_each_element_that_is_present_moves(initial):
    random = np.random.default_rng(0)
    mean = RunningMean((4,), initial, momentum=0.7)
    step = compiled(mean.update, mean.variables)
    expected, counts = np.full(4, initial or 0.0), np.zeros(4, int)
    for _ in range(6):
        values, present = random.uniform(size=4).astype("float32"), random.integers(0, 2, 4)
        values[present == 0] = np.nan
        found = step(ops.convert_to_tensor(values), ops.convert_to_tensor(present.astype("float32")))
        for k in np.flatnonzero(present):
            copies = initial is None and counts[k] == 0
            expected[k] = values[k] if copies else 0.7 * expected[k] + 0.3 * values[k]
            counts[k] += 1
        np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5)
        np.testing.assert_allclose(state(mean)[0], expected, rtol=1e-5)
        np.testing.assert_array_equal(state(mean)[1], counts)
    before = state(mean)
    step(ops.ones(4), ops.convert_to_tensor(np.float32(0)))  # nobody
    np.testing.assert_array_equal(state(mean), before)
    step(ops.ones(4), ops.convert_to_tensor(np.float32(1)))
    np.testing.assert_array_equal(state(mean)[1], counts + 1)


def test_no_gradient_and_float32_under_mixed_precision():
    mean = RunningMean((3,), dtype="mixed_float16")
    mean.update(ops.cast(np.full(3, 0.1, "float32"), "float16"))
    assert mean.value.dtype == "float32" and mean.updates.dtype == "int32"

    def updated(x):  # in a scope, as JAX assigns no weight while it differentiates
        with keras.StatelessScope(state_mapping=[(v, v.value) for v in mean.variables]):
            return ops.sum(mean.update(x))

    np.testing.assert_array_equal(gradient(updated, np.ones(3, "float32")), 0)


def test_round_trip(tmp_path):
    mean = RunningMean((2, 3), 0.5, 0.9)
    mean.update(np.arange(6, dtype="float32").reshape(2, 3))
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(mean))))
    assert copy.get_config() == mean.get_config()
    copy.set_weights(mean.get_weights())
    for a, b in zip(state(copy), state(mean), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="`momentum` must be within"):
        RunningMean(momentum=1.1)
