"""The thresholds of InfoMatch against their equations, written out with loops."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import SelfAdaptiveThreshold
from tests.gradients import gradient
from tests.layers.compiled import compiled
from tests.losses.helpers import assert_config_round_trip, softmax


def array(value):
    return ops.convert_to_numpy(value)


class ByHand:
    """tau and P, and what they keep."""

    def __init__(self, classes, momentum):
        self.tau, self.means, self.momentum = 1 / classes, [1 / classes] * classes, momentum

    def update(self, probabilities, inside):
        rows = [p for p, shown in zip(np.asarray(probabilities, "float64"), inside, strict=True) if shown]
        if not rows:
            return
        m = self.momentum
        self.tau = m * self.tau + (1 - m) * sum(max(p) for p in rows) / len(rows)
        self.means = [m * old + (1 - m) * sum(p[c] for p in rows) / len(rows) for c, old in enumerate(self.means)]

    @property
    def thresholds(self):
        return np.array([self.tau * mean / max(self.means) for mean in self.means])

    def kept(self, probabilities, inside):
        return np.array(
            [s and max(p) >= self.thresholds[p.argmax()] for p, s in zip(probabilities, inside, strict=True)]
        )


def batch(classes, seed, count=6):
    random = np.random.default_rng(seed)
    return softmax(random.normal(0, 1.5, (count, classes))).astype("float32"), np.ones(count, "float32")


@pytest.mark.parametrize("classes", [2, 4])
def test_thresholds_and_kept_images_are_those_of_the_equations(classes):
    layer, hand = SelfAdaptiveThreshold(classes, momentum=0.6), ByHand(classes, 0.6)
    step = compiled(lambda p, v: layer(p, v, training=True), layer.variables)
    shares = []
    for seed in range(6):
        probabilities, inside = batch(classes, seed)
        inside[:2] = seed != 3
        found = step(ops.convert_to_tensor(probabilities), ops.convert_to_tensor(inside))
        hand.update(probabilities, inside)
        np.testing.assert_allclose(array(layer.global_threshold.value), hand.tau, rtol=1e-5)
        np.testing.assert_allclose(array(layer.class_means.value), hand.means, rtol=1e-5)
        np.testing.assert_allclose(array(layer.thresholds()), hand.thresholds, rtol=1e-5)
        np.testing.assert_array_equal(array(found.kept), hand.kept(probabilities, inside))
        np.testing.assert_array_equal(array(found.labels), probabilities.argmax(-1))
        np.testing.assert_array_equal(array(found.confidence), probabilities.max(-1))
        np.testing.assert_array_equal(array(found.probabilities), probabilities)
        np.testing.assert_array_equal(array(found.inside), inside)
        shares.append(array(found.kept).mean())
    assert 0 < np.mean(shares) < 1


def test_the_numbers_of_the_specification():
    layer = SelfAdaptiveThreshold(2, momentum=0.9)
    found = layer(np.array([(0.9, 0.1), (0.6, 0.4)], "float32"), training=True)
    np.testing.assert_allclose(array(layer.global_threshold.value), 0.525, rtol=1e-6)
    np.testing.assert_allclose(array(layer.class_means.value), [0.525, 0.475], rtol=1e-6)
    np.testing.assert_allclose(array(layer.thresholds()), [0.525, 0.475], rtol=1e-6)
    assert array(found.kept).tolist() == [1, 1]
    layer = SelfAdaptiveThreshold(3, momentum=1.0)
    layer.global_threshold.assign(0.8)
    layer.class_means.assign(np.array([0.6, 0.3, 0.1], "float32"))
    found = layer(np.array([(0.35, 0.45, 0.2), (0.75, 0.15, 0.1)], "float32"), training=True)
    np.testing.assert_allclose(array(layer.thresholds()), [0.8, 0.4, 0.1333], atol=1e-4)
    assert array(found.kept).tolist() == [1, 0]


def test_at_first_everything_is_kept_and_equal_confidence_is_enough():
    layer = SelfAdaptiveThreshold(4, momentum=1.0)
    even = np.full((2, 4), 0.25, "float32")
    assert array(layer(even, training=True).kept).tolist() == [1, 1]
    layer = SelfAdaptiveThreshold(2, momentum=1.0)
    layer.global_threshold.assign(0.75)
    assert array(layer(np.array([(0.75, 0.25), (0.7, 0.3)], "float32")).kept).tolist() == [1, 0]


def test_memory_of_a_thousand_steps():
    layer = SelfAdaptiveThreshold(2)
    for _ in range(1000):
        layer.update(np.array([(0.9, 0.1)], "float32"))
    np.testing.assert_allclose(array(layer.global_threshold.value), 0.75, atol=5e-3)


def test_it_stays_without_training_and_without_an_image_that_counts():
    layer = SelfAdaptiveThreshold(3, momentum=0.5)
    probabilities, inside = batch(3, 1)
    layer(probabilities)
    found = layer(probabilities, np.zeros_like(inside), training=True)
    assert not array(found.kept).any()
    np.testing.assert_array_equal(array(layer.global_threshold.value), np.float32(1 / 3))
    np.testing.assert_array_equal(array(layer.class_means.value), np.full(3, 1 / 3, "float32"))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_step_that_overflows_moves_no_threshold(wrong):
    layer, (probabilities, inside) = SelfAdaptiveThreshold(3, momentum=0.5), batch(3, 1)
    layer.update(probabilities, inside)
    before = [array(v.value) for v in layer.variables]
    probabilities[2] = wrong
    found = layer(probabilities, inside, training=True)
    for variable, value in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(array(variable.value), value)
    assert np.isfinite(array(found.kept)).all() and np.isfinite(before[0])


def test_no_slope_goes_through():
    layer, (probabilities, inside) = SelfAdaptiveThreshold(3), batch(3, 2)

    def fields(p):
        with keras.StatelessScope():
            found = layer(p, inside, training=True)
            thresholds = layer.thresholds()
        return sum(ops.sum(value) for value in (found.confidence, found.kept, found.probabilities, thresholds))

    assert not gradient(fields, probabilities).any()


def test_state_is_float32_under_mixed_precision_and_comes_back(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((3,))
        layer = SelfAdaptiveThreshold(3, 0.5)
        model = keras.Model(inputs, layer(inputs).kept)
        layer(batch(3, 0)[0], training=True)
        model.save(tmp_path / "filter.keras")
        loaded = keras.saving.load_model(tmp_path / "filter.keras").layers[-1]
    finally:
        keras.config.set_dtype_policy("float32")
    assert_config_round_trip(layer)
    assert loaded.get_config() == layer.get_config() and loaded.class_means.dtype == "float32"
    np.testing.assert_array_equal(array(loaded.class_means.value), array(layer.class_means.value))
    assert array(loaded.global_threshold.value) == array(layer.global_threshold.value) != np.float32(1 / 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_labels": 1}, "`num_labels` must be a whole number of at least 2, found 1"),
        ({"momentum": 1.5}, r"`momentum` must be within \[0, 1\], found 1.5"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        SelfAdaptiveThreshold(**{"num_labels": 2, **arguments})
