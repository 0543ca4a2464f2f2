from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_semimed.optimizers import PolynomialDecayToZero, branch_optimizer, encoder_optimizer
from tests.losses.helpers import compiled, value


@pytest.mark.parametrize("steps", [6, 7, 49, 3000])
def test_decay_is_the_printed_one_and_stays_zero_after_the_end(steps):
    schedule = PolynomialDecayToZero(0.01, steps)
    for step in (0, 1, steps // 2, steps - 1, steps, steps + 1, 10 * steps):
        expected = 0.01 * max(1 - step / steps, 0) ** 0.9
        got = compiled(schedule, np.float32(step))
        np.testing.assert_allclose(value(got), expected, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("rate", [-1.0, np.nan, np.inf])
def test_a_rate_that_cannot_train_is_refused(rate):
    for make in (branch_optimizer, encoder_optimizer):
        with pytest.raises(ValueError, match="`learning_rate` must be a number of at least 0"):
            make(10, learning_rate=rate)


def test_decay_round_trip():
    schedule = PolynomialDecayToZero(0.01, 5, power=2.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert again.get_config() == {"learning_rate": 0.01, "total_steps": 5, "power": 2.0}
