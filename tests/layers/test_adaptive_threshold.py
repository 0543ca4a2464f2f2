"""The threshold of CorrMatch against its equation, written out with loops."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import AdaptiveThreshold
from tests.gradients import gradient
from tests.layers.compiled import compiled
from tests.layers.test_confidence_filter import batch
from tests.losses.helpers import assert_config_round_trip


def array(value):
    return ops.convert_to_numpy(value)


def moved_by_hand(threshold, probabilities, inside, momentum):
    """The largest confidence of each class that some pixel inside has; their mean."""
    largest: dict[int, float] = {}
    for place in np.ndindex(*inside.shape):
        if inside[place]:
            label, confidence = int(probabilities[place].argmax()), float(probabilities[place].max())
            largest[label] = max(largest.get(label, 0.0), confidence)
    if not largest:
        return threshold
    return momentum * threshold + (1 - momentum) * sum(largest.values()) / len(largest)


@pytest.mark.parametrize("classes", [2, 4])
def test_threshold_and_kept_pixels_are_those_of_the_equation(classes):
    layer, threshold = AdaptiveThreshold(classes, momentum=0.7), 0.85
    step = compiled(lambda p, v: layer(p, v, training=True), layer.variables)
    for seed in range(5):
        probabilities, inside = batch(classes, seed, absent=1 if seed == 2 else None)
        if seed == 3:
            inside[1] = 0
        found = step(ops.convert_to_tensor(probabilities), ops.convert_to_tensor(inside))
        threshold = moved_by_hand(threshold, probabilities, inside, 0.7)
        np.testing.assert_allclose(array(layer.threshold.value), threshold, rtol=1e-6)
        kept = inside * (probabilities.max(-1) >= threshold)  # by the threshold that has moved
        np.testing.assert_array_equal(array(found.kept), kept)
        np.testing.assert_array_equal(array(found.labels), probabilities.argmax(-1))
        np.testing.assert_allclose(array(found.confidence), probabilities.max(-1))
        np.testing.assert_array_equal(array(found.inside), inside)
        np.testing.assert_array_equal(array(found.probabilities), probabilities)
    assert 0 < kept.mean() < inside.mean()


def test_the_numbers_of_the_specification():
    layer = AdaptiveThreshold(3)
    p = np.array([[[(0.9, 0.05, 0.05), (0.6, 0.3, 0.1), (0.2, 0.7, 0.1), (0.1, 0.0, 0.9)]]], "float32")
    inside = np.array([[[1, 1, 1, 0]]], "float32")  # the third class lies in the padding
    layer.update(p, inside)
    np.testing.assert_allclose(array(layer.threshold.value), 0.84995, rtol=1e-7)


def test_with_maxima_near_one_it_tightens_by_itself():
    sure = np.array([[[(1.0, 0.0)]]], "float32")
    layer = AdaptiveThreshold(2)
    for _ in range(1000):
        layer.update(sure)
    np.testing.assert_allclose(array(layer.threshold.value), 0.945, atol=2e-4)


def test_it_stays_without_training_and_without_a_pixel_inside():
    layer = AdaptiveThreshold(3, initial=0.6, momentum=0.5)
    probabilities, inside = batch()
    found = layer(probabilities, inside)
    np.testing.assert_array_equal(array(found.kept), inside * (probabilities.max(-1) >= np.float32(0.6)))
    found = layer(probabilities, np.zeros_like(inside), training=True)
    assert array(found.kept).sum() == 0
    assert array(layer.threshold.value) == np.float32(0.6)
    everywhere = layer(probabilities)
    np.testing.assert_array_equal(array(everywhere.inside), np.ones(inside.shape))
    fixed = AdaptiveThreshold(3, initial=0.0, momentum=1.0)
    assert array(fixed(probabilities, training=True).kept).all() and array(fixed.threshold.value) == 0


def test_no_slope_goes_through():
    layer = AdaptiveThreshold(3)
    probabilities, inside = batch()

    def fields(p):
        with keras.StatelessScope():
            found = layer(p, inside, training=True)
        return sum(ops.sum(value) for value in (found.confidence, found.kept, found.probabilities))

    assert not gradient(fields, probabilities).any()


def test_threshold_is_saved_in_float32_under_mixed_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((6, 5, 3))
        layer = AdaptiveThreshold(3, 0.8, 0.5)
        model = keras.Model(inputs, layer(inputs).kept)
        layer(batch()[0], training=True)
        model.save(tmp_path / "filter.keras")
        loaded = keras.saving.load_model(tmp_path / "filter.keras").layers[-1]
    finally:
        keras.config.set_dtype_policy("float32")
    assert_config_round_trip(layer)
    assert loaded.get_config() == layer.get_config() and loaded.threshold.dtype == "float32"
    assert array(loaded.threshold.value) == array(layer.threshold.value) > 0.85


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "`num_classes` must be a whole number of at least 2, found 1"),
        ({"initial": 1.2}, r"`initial` must be within \[0, 1\], found 1.2"),
        ({"momentum": -0.1}, r"`momentum` must be within \[0, 1\], found -0.1"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveThreshold(**{"num_classes": 2, **arguments})
