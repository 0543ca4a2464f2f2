"""The dynamic filter against Eq. 14-18 of LoCo, written out with loops."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import ConfidenceDynamicFilter
from tests.layers.compiled import compiled


class ByHand:
    """Eq. 14-18 for K classes; an absent class keeps its local threshold."""

    def __init__(self, classes, initial=0.85, momentum=0.999, gamma=0.25):
        self.momentum, self.gamma = momentum, gamma
        self.overall, self.local = initial, [1 / classes] * classes

    def __call__(self, probabilities, valid):
        labels, confidence = probabilities.argmax(-1), probabilities.max(-1)
        alpha = {}
        for c in range(len(self.local)):
            members = [q for q, k, v in zip(confidence.flat, labels.flat, valid.flat, strict=True) if v and k == c]
            if members:
                alpha[c] = sum(map(float, members)) / len(members)
        for c, value in alpha.items():
            self.local[c] = self.momentum * self.local[c] + (1 - self.momentum) * value
        if alpha:
            mean = sum(alpha.values()) / len(alpha)
            self.overall = self.momentum * self.overall + (1 - self.momentum) * mean
        thresholds = [self.overall * (value / max(self.local)) ** self.gamma for value in self.local]
        kept = np.zeros(labels.shape)
        for place in np.ndindex(*labels.shape):
            kept[place] = valid[place] and confidence[place] >= thresholds[labels[place]]
        return thresholds, kept


def batch(classes=3, seed=0, absent=None):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (2, 6, 5, classes))
    logits[..., 0] += 2
    if absent is not None:
        logits[..., absent] = -20
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return probabilities.astype("float32"), (random.uniform(size=(2, 6, 5)) > 0.2).astype("float32")


@pytest.mark.parametrize("classes", [2, 3])
def test_thresholds_and_kept_pixels_are_those_of_the_equations(classes):
    layer = ConfidenceDynamicFilter(classes, momentum=0.7)
    expected = ByHand(classes, momentum=0.7)
    step = compiled(lambda p, v: layer(p, v, training=True), layer.variables)
    for seed in range(6):
        probabilities, valid = batch(classes, seed, absent=1 if seed == 2 else None)
        found = step(ops.convert_to_tensor(probabilities), ops.convert_to_tensor(valid))
        thresholds, kept = expected(probabilities.astype("float64"), valid)
        np.testing.assert_allclose(ops.convert_to_numpy(layer.thresholds()), thresholds, rtol=1e-5)
        np.testing.assert_array_equal(ops.convert_to_numpy(found.kept), kept)
        np.testing.assert_array_equal(ops.convert_to_numpy(found.labels), probabilities.argmax(-1))
        np.testing.assert_allclose(ops.convert_to_numpy(found.confidence), probabilities.max(-1))
    assert 0 < kept.mean() < valid.mean()
    assert len({round(value, 4) for value in thresholds}) == classes  # they differ, the least sure class lowest


def test_before_training_all_classes_have_the_initial_threshold():
    layer = ConfidenceDynamicFilter(4, initial=0.9)
    np.testing.assert_allclose(ops.convert_to_numpy(layer.thresholds()), [0.9] * 4)
    probabilities, valid = batch(4)
    layer(probabilities, valid)  # without training nothing moves
    np.testing.assert_allclose(ops.convert_to_numpy(layer.thresholds()), [0.9] * 4)


def test_a_batch_without_a_valid_pixel_changes_and_keeps_nothing():
    layer = ConfidenceDynamicFilter(3, momentum=0.5)
    probabilities, valid = batch()
    layer(probabilities, valid, training=True)
    before = layer.get_weights()
    found = layer(probabilities, np.zeros_like(valid), training=True)
    assert ops.convert_to_numpy(found.kept).sum() == 0
    for a, b in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_less_sure_class_is_filtered_less_strictly_than_by_a_fixed_threshold():
    random = np.random.default_rng(0)
    sure = random.uniform(0.97, 1.0, (1, 40, 20))
    unsure = random.uniform(0.6, 0.95, (1, 40, 4))
    probabilities = np.concatenate([np.stack([sure, 1 - sure], -1), np.stack([1 - unsure, unsure], -1)], axis=2).astype(
        "float32"
    )
    dynamic, fixed = ConfidenceDynamicFilter(2, momentum=0.9), ConfidenceDynamicFilter(2, fixed=0.95, momentum=0.9)
    for _ in range(50):
        of_dynamic, of_fixed = (layer(probabilities, training=True).kept for layer in (dynamic, fixed))
    thresholds = ops.convert_to_numpy(dynamic.thresholds())
    assert thresholds[1] < thresholds[0] < 0.95
    minority = [ops.convert_to_numpy(kept)[0, :, 20:].mean() for kept in (of_dynamic, of_fixed)]
    assert minority[0] > 0.2 and minority[1] < 0.05
    np.testing.assert_allclose(ops.convert_to_numpy(fixed.thresholds()), [0.95, 0.95])
    np.testing.assert_allclose(ops.convert_to_numpy(fixed.dynamic_thresholds()), thresholds)


def test_the_authors_variants():
    probabilities, valid = batch(seed=3)
    layer = ConfidenceDynamicFilter(3, initial=0.9, momentum=0.5, global_mean="pixel", maximum=0.6)
    layer(probabilities, valid, training=True)
    confidence = probabilities.max(-1)[valid > 0].astype("float64").mean()
    np.testing.assert_allclose(ops.convert_to_numpy(layer.global_threshold.value), 0.45 + confidence / 2, rtol=1e-5)
    assert ops.convert_to_numpy(layer.thresholds()).max() == np.float32(0.6)


def test_thresholds_are_saved_in_float32_under_mixed_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((6, 5, 3))
        layer = ConfidenceDynamicFilter(3, momentum=0.5, gamma=0.5)
        model = keras.Model(inputs, layer(inputs).kept)
        layer(batch()[0], training=True)
        model.save(tmp_path / "filter.keras")
        loaded = keras.saving.load_model(tmp_path / "filter.keras").layers[-1]
    finally:
        keras.config.set_dtype_policy("float32")
    assert loaded.get_config() == layer.get_config() and loaded.local_thresholds.dtype == "float32"
    for a, b in zip(layer.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes"),
        ({"initial": 1.2}, "initial"),
        ({"momentum": -0.1}, "momentum"),
        ({"gamma": -1}, "gamma"),
        ({"fixed": 95}, "fixed"),
        ({"global_mean": "image"}, "global_mean"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConfidenceDynamicFilter(**{"num_classes": 2, **arguments})
