"""Turns of random length: whose they are, how long, and what of them is saved."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import AlternatingTurns
from tests.layers.compiled import compiled


def number(value):
    return int(ops.convert_to_numpy(value))


def state(layer):
    return [number(v.value) for v in (layer.active, layer.counter, layer.period)]


def test_numbers_of_the_specification():
    """Periods 2, 3, 1: turns 1, 1, 2, 2, 2, 1, then the next period."""
    layer = AlternatingTurns()
    layer.period.assign(2)
    step = compiled(lambda period: layer.advance(period), layer.variables)
    found = [state(layer)[0]]
    for period in (9, 3, 9, 9, 1, 4):  # 9 comes where no turn ends
        found.append(number(step(np.int32(period))))
        assert found[-1] == state(layer)[0]
    assert found[:6] == [0, 0, 1, 1, 1, 0]
    assert state(layer) == [1, 0, 4]


@pytest.mark.parametrize(("turns", "longest", "seed"), [(2, 5, 0), (3, 4, 1), (2, 1, 2), (1, 3, 3)])
def test_turns_of_drawn_lengths_follow_each_other(turns, longest, seed):
    layer, twin = (AlternatingTurns(turns, longest, seed=seed) for _ in range(2))
    step, draw = (compiled(f, each.variables) for f, each in ((layer.advance, layer), (twin.draw, twin)))
    period, active, counter = state(layer)[2], 0, 0
    assert state(layer) == state(twin) == [0, 0, period] and 1 <= period <= longest
    for _ in range(20):
        following = number(draw())  # the stream moves at every step
        counter += 1
        if counter >= period:
            active, counter, period = (active + 1) % turns, 0, following
        assert number(step()) == active
        assert state(layer) == [active, counter, period]


def test_lengths_are_uniform_and_the_first_one_is_drawn_too():
    layer = AlternatingTurns(max_period=3)
    draw = compiled(layer.draw, layer.variables)
    counts = np.bincount([number(draw()) for _ in range(300)], minlength=4)
    assert len(counts) == 4 and counts[0] == 0 and (np.abs(counts[1:] - 100) < 30).all()
    assert {state(AlternatingTurns(max_period=3, seed=seed))[2] for seed in range(20)} == {1, 2, 3}


def test_a_length_that_is_given_is_not_drawn():
    layer = AlternatingTurns()
    before = ops.convert_to_numpy(layer.random_state.value).copy()
    layer.advance(7)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.random_state.value), before)
    layer.advance()
    assert (ops.convert_to_numpy(layer.random_state.value) != before).any()


def test_state_is_whole_numbers_and_comes_back():
    layer = AlternatingTurns(3, 6, seed=5, dtype="mixed_float16")
    for _ in range(8):
        layer.advance()
    assert [v.dtype for v in (layer.active, layer.counter, layer.period)] == ["int32"] * 3
    assert not layer.trainable_variables
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
    assert (copy.turns, copy.max_period, copy.seed) == (3, 6, 5) and copy.get_config() == layer.get_config()
    copy.set_weights(layer.get_weights())
    for _ in range(12):
        assert number(copy.advance()) == number(layer.advance()) and state(copy) == state(layer)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"turns": 0}, "`turns` must be a whole number of at least 1, found 0"),
        ({"max_period": 0}, "`max_period` must be a whole number of at least 1, found 0"),
        ({"max_period": 2.5}, "`max_period` must be a whole number of at least 1, found 2.5"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0, found -1"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        AlternatingTurns(**wrong)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True])
def test_a_length_that_is_no_length_is_named(wrong):
    layer = AlternatingTurns()
    before = state(layer)
    with pytest.raises(ValueError, match=f"`next_period` must be a whole number of at least 1, found {wrong}"):
        layer.advance(wrong)
    assert state(layer) == before
