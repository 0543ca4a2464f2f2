"""What pseudo-labels are trusted by, against lists in plain Python."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import LossMixture
from tests.gradients import gradient
from tests.layers.compiled import compiled
from tests.layers.test_mixture import fit_by_hand, losses, scores_by_hand
from tests.losses.helpers import assert_config_round_trip


def array(value):
    return ops.convert_to_numpy(value)


class ByHand:
    """The queue and the recent pseudo-losses as lists, the newest first."""

    def __init__(self, size, window):
        self.size, self.window = size, window
        self.queue, self.recent = [], [[], []]

    def update(self, values, present):
        self.queue = [v for v, p in zip(values, present, strict=True) if p] + self.queue
        self.queue = self.queue[: self.size]

    def scale(self, values, inside):
        found = []
        for row, before in zip(values, self.recent, strict=True):
            known = [v for v, p in zip(row, inside, strict=True) if p] + before[: max(self.window - len(row), 0)]
            width = max(known) - min(known)
            found.append([(v - min(known)) / width if width else 0.0 for v in row])
        return np.clip(found, 0, 1)

    def remember(self, values, present):
        for view, row in enumerate(values):
            new = [v for v, p in zip(row, present, strict=True) if p]
            self.recent[view] = (new + self.recent[view])[: self.window]


def test_queue_keeps_the_newest_losses_that_count():
    layer, hand = LossMixture(10, 4), ByHand(10, 4)
    step = compiled(layer.update, layer.variables)
    random = np.random.default_rng(0)
    for turn in range(6):
        values = random.exponential(size=4).astype("float32")
        present = random.integers(0, 2, 4).astype("float32") if turn else np.zeros(4, "float32")
        step(ops.convert_to_tensor(values), ops.convert_to_tensor(present))
        hand.update(values.tolist(), present)
        count = int(array(layer.count.value))
        assert count == len(hand.queue)
        np.testing.assert_allclose(array(layer.queue.value)[:count], hand.queue)
    assert count == 10
    layer.update(np.arange(25, dtype="float32"))  # more than it holds
    np.testing.assert_array_equal(array(layer.queue.value), np.arange(10))


def test_what_is_not_finite_stays_out():
    layer = LossMixture(5, 4)
    layer.update(np.array([1.0, np.nan, 2.0, np.inf], "float32"))
    assert int(array(layer.count.value)) == 2 and array(layer.queue.value)[:2].tolist() == [1, 2]
    layer.remember(np.array([[1.0, np.nan, 2.0], [1.0, 3.0, np.inf]], "float32"))
    assert int(array(layer.recent_count.value)) == 1


def test_the_numbers_of_the_specification():
    layer = LossMixture()
    found = layer.scale(np.array([(0.2, 1.0, 0.6), (5.0, 5.0, 5.0)], "float32"))
    np.testing.assert_allclose(array(found), [(0, 1, 0.5), (0, 0, 0)], atol=1e-6)
    for state, value in ((layer.shares, (0.5, 0.5)), (layer.means, (0.1, 0.8)), (layer.variances, (0.01, 0.01))):
        state.assign(np.array(value, "float32"))
    posterior, trusted = layer(np.array([(0.45, 0.3), (0.45, 0.5)], "float32"))
    np.testing.assert_allclose(array(posterior), [0.5, 0.970688], atol=2e-6)
    np.testing.assert_array_equal(array(trusted), [0, 1])


@pytest.mark.parametrize(("window", "count"), [(8, 3), (8, 8), (4, 6), (7, 2)])
def test_losses_are_scaled_by_the_newest_before_them(window, count):
    layer, hand = LossMixture(4, window), ByHand(4, window)
    scale, remember = (compiled(method, layer.variables) for method in (layer.scale, layer.remember))
    random = np.random.default_rng(window)
    extremes = 0
    for turn in range(7):
        values = random.exponential(1 + (turn == 2), (2, count)).astype("float32")
        inside = np.ones(count, "float32")
        inside[1:2] = turn != 3
        found = array(scale(*map(ops.convert_to_tensor, (values, inside))))
        np.testing.assert_allclose(found, hand.scale(values.astype("float64"), inside), rtol=1e-5, atol=1e-6)
        extremes += (found == 0).sum() + (found == 1).sum()
        remember(*map(ops.convert_to_tensor, (values, inside)))
        hand.remember(values.tolist(), inside)
        filled = int(array(layer.recent_count.value))
        np.testing.assert_allclose(array(layer.recent.value)[:, :filled], hand.recent)
    assert filled == window
    assert (extremes > 7 * 4 - 3) == (count >= window)  # a bare batch always has 0 and 1


def test_each_view_is_scaled_apart_and_nothing_inside_gives_zero():
    layer = LossMixture(4, 6)
    layer.remember(np.array([(0.0, 4.0), (2.0, 3.0)], "float32"))
    found = layer.scale(np.array([(1.0, 2.0), (1.0, 2.0)], "float32"))
    np.testing.assert_allclose(array(found), [(0.25, 0.5), (0.0, 0.5)])
    empty = LossMixture(4, 6).scale(np.array([(1.0, 2.0), (1.0, 2.0)], "float32"), np.zeros(2, "float32"))
    np.testing.assert_array_equal(array(empty), 0)


@pytest.mark.parametrize("seed", range(3))
def test_fit_scales_the_queue_first(seed):
    layer = LossMixture(64, 4)
    values = 0.3 + 2.5 * losses(seed, count=(64, 20, 100)[seed])
    layer.update(values)
    kept = values[:64].astype("float64")
    expected, _ = fit_by_hand((kept - kept.min()) / (kept.max() - kept.min()))
    compiled(layer.fit, layer.variables)()
    for state, value in zip((layer.shares, layer.means, layer.variances), expected, strict=True):
        np.testing.assert_allclose(array(state.value), value, rtol=2e-4, atol=1e-5)
    x = np.linspace(0, 1, 9).astype("float32")
    posterior, trusted = compiled(layer, layer.variables)(ops.convert_to_tensor(np.stack([x, x])))
    scores = np.exp(scores_by_hand(x.astype("float64"), *expected))
    np.testing.assert_allclose(array(posterior), scores[0] / scores.sum(0), atol=1e-3)
    np.testing.assert_array_equal(array(trusted), array(posterior) > 0.7)
    assert 0 < array(trusted).sum() < 9


def test_it_is_fitted_when_it_is_due_and_there_is_a_loss():
    layer = LossMixture(64, 4)
    fit = compiled(layer.fit, layer.variables)
    fit(ops.convert_to_tensor(True))  # an empty queue
    assert array(layer.means.value).tolist() == [0.5, 0.5]
    layer.update(losses(0, count=64))
    fit(ops.convert_to_tensor(False))
    assert array(layer.means.value).tolist() == [0.5, 0.5]
    fit(ops.convert_to_tensor(True))
    assert array(layer.means.value)[0] < 0.2 < array(layer.means.value)[1]
    before = [array(v.value) for v in (layer.shares, layer.means, layer.variances)]
    layer.update(5 * losses(1, count=64))
    fit(ops.convert_to_tensor(False))
    for state, value in zip((layer.shares, layer.means, layer.variances), before, strict=True):
        np.testing.assert_array_equal(array(state.value), value)


@pytest.mark.parametrize("count", [1, 5])
def test_losses_that_are_all_the_same_tell_nothing_apart(count):
    layer = LossMixture(8, 4)
    layer.update(np.full(count, 0.3, "float32"))
    layer.fit()
    posterior, trusted = layer(np.array([(0.0, 0.5, 1.0)] * 2, "float32"))
    np.testing.assert_allclose(array(posterior), 1, atol=1e-5)
    assert array(trusted).all()


def test_before_the_fit_nobody_is_trusted_and_the_threshold_is_strict():
    posterior, trusted = LossMixture()(np.zeros((2, 3), "float32"))
    assert array(posterior).tolist() == [0.5] * 3 and not array(trusted).any()
    assert not array(LossMixture(threshold=0.5)(np.zeros((2, 3), "float32"))[1]).any()
    assert array(LossMixture(threshold=0.4)(np.zeros((2, 3), "float32"))[1]).all()


def test_no_slope_goes_through_and_calls_move_nothing():
    layer = LossMixture(64, 8)
    layer.update(losses(2))
    layer.fit()
    before = [array(v.value) for v in layer.variables]
    values = np.random.default_rng(0).exponential(size=(2, 5)).astype("float32")

    def posterior(x):
        with keras.StatelessScope():
            scaled = layer.scale(x)
            layer.remember(x)
            layer.update(x[0])
            return ops.sum(layer(scaled)[0]) + ops.sum(scaled)

    assert not gradient(posterior, values).any()
    layer(layer.scale(values))
    for variable, value in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(array(variable.value), value)


def test_state_is_float32_or_whole_under_mixed_precision_and_comes_back():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = LossMixture(8, 4, 0.6, name="mixture")
    finally:
        keras.config.set_dtype_policy("float32")
    assert {str(v.dtype) for v in layer.variables} <= {"float32", "int32"}
    assert_config_round_trip(layer)
    assert (layer.size, layer.window, layer.threshold) == (8, 4, 0.6)
    layer.update(losses(3, count=8))
    layer.fit()
    copy = LossMixture.from_config(layer.get_config())
    copy.set_weights(layer.get_weights())
    x = np.full((2, 1), 0.3, "float32")
    np.testing.assert_array_equal(array(copy(x)[0]), array(layer(x)[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "`size` must be a whole number of at least 1, found 0"),
        ({"window": 0.5}, "`window` must be a whole number of at least 1, found 0.5"),
        ({"threshold": -0.1}, "`threshold` must be a number of at least 0, found -0.1"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        LossMixture(**arguments)
