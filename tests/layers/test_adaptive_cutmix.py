"""Adaptive CutMix: confidence, what each round shows, and how boxes, partners and chances are distributed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_semimed.layers import AdaptiveBoxes, AdaptiveCutMix, adaptive_cutmix, image_confidence
from keras_semimed.layers.cutmix import clipped_boxes
from tests.gradients import gradient
from tests.layers.compiled import compiled


def confidence_of(probabilities, inside=None):
    function = compiled(image_confidence, [])
    arguments = (probabilities,) if inside is None else (probabilities, inside)
    return ops.convert_to_numpy(function(*(ops.convert_to_tensor(values) for values in arguments)))


def drawing(layer, size, confidence):
    """Returns a function that draws for images of the given confidence, compiled once."""
    step = compiled(lambda values: layer.draw(size, values), layer.variables)
    confidence = ops.convert_to_tensor(np.asarray(confidence, "float32"))
    return lambda: AdaptiveBoxes(*map(ops.convert_to_numpy, step(confidence)))


def mixed(layer, unlabeled, labeled, boxes):
    result = layer.mix(
        *(keras.tree.map_structure(ops.convert_to_tensor, value) for value in (unlabeled, labeled, boxes))
    )
    return ops.convert_to_numpy(result)


def mixed_by_hand(unlabeled, labeled, boxes):
    injected = unlabeled.copy()
    for u, y, x in np.ndindex(*boxes.injection_boxes.shape):
        if boxes.injected[u] and boxes.injection_boxes[u, y, x]:
            injected[u, y, x] = labeled[boxes.partners[u] % len(labeled), y, x]
    result = unlabeled.copy()
    for u, y, x in np.ndindex(*boxes.mixing_boxes.shape):
        if boxes.mixing_boxes[u, y, x]:
            result[u, y, x] = injected[boxes.partners[u], y, x]
    return result


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [((1.0, 0.0), 1.0), ((0.5, 0.5), 0.0), ((0.9, 0.1), 0.47790), ((0.25,) * 4, 0.0), ((0, 1, 0, 0), 1.0)],
)
def test_the_confidences_of_the_specification(pixel, expected):
    probabilities = np.tile(np.array(pixel, "float32"), (2, 3, 3, 1))
    np.testing.assert_allclose(confidence_of(probabilities), expected, atol=1e-5)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_confidence_is_the_mean_over_the_pixels_inside(num_classes):
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(num_classes, 0.3), (4, 5, 6)).astype("float32")
    probabilities[0, 0, 0] = np.eye(num_classes)[1]
    inside = (random.uniform(size=(4, 5, 6)) > 0.4).astype("float32")
    inside[3] = 0
    expected = np.zeros(4)
    for n in range(3):
        values = []
        for y, x in np.argwhere(inside[n]):
            p = probabilities[n, y, x].astype("float64")
            entropy = sum(-value * np.log(value) for value in p if value > 0)
            values.append(p.max() * (1 - entropy / np.log(num_classes)))
        expected[n] = np.mean(values)
    found = confidence_of(probabilities, inside)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found[3] == 0
    everywhere = confidence_of(probabilities)
    np.testing.assert_allclose(everywhere, confidence_of(probabilities, np.ones_like(inside)), rtol=1e-6)
    assert not np.allclose(everywhere, found)


def test_confidence_needs_two_classes_and_passes_no_gradient():
    with pytest.raises(ValueError, match="at least 2 classes.*found 1"):
        image_confidence(np.ones((1, 2, 2, 1), "float32"))
    probabilities = np.random.default_rng(0).dirichlet((1, 1), (1, 2, 2))
    assert not gradient(lambda x: ops.sum(image_confidence(x)), probabilities).any()


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "bool"])
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("labeled_count", [2, 5, 7])
def test_mixing_by_hand(dtype, channels, labeled_count):
    random = np.random.default_rng(0)
    count, size = 5, 6
    unlabeled = random.integers(0, 256, (count, size, size, *channels)).astype(dtype)
    labeled = random.integers(0, 256, (labeled_count, size, size, *channels)).astype(dtype)
    if dtype == "bool":
        unlabeled, labeled = np.ones_like(unlabeled), np.zeros_like(labeled)
    boxes = AdaptiveBoxes(
        random.permutation(count).astype("int32"),
        np.array([1, 0, 1, 1, 0], "float32"),
        *(random.uniform(size=(2, count, size, size)) > 0.5).astype("float32"),
    )
    found = mixed(AdaptiveCutMix(), unlabeled, labeled, boxes)
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, mixed_by_hand(unlabeled, labeled, boxes))


def test_the_rounds_of_the_specification():
    first, second = np.zeros((2, 2, 8, 8), "float32")
    first[0, 1:6, 1:6] = 1  # the injection box of image 0
    second[:, 3:8, 3:8] = 1
    boxes = AdaptiveBoxes(np.array([1, 0], "int32"), np.array([1, 0], "float32"), first, second)
    unlabeled = np.stack([np.full((8, 8), value, "int32") for value in (0, 1)])
    labeled = np.stack([np.full((8, 8), value, "int32") for value in (10, 11)])
    found = mixed(AdaptiveCutMix(), unlabeled, labeled, boxes)
    np.testing.assert_array_equal(found[0], np.where(second[0] > 0, 1, 0))  # nothing labelled
    np.testing.assert_array_equal(found[1], np.where(second[1] > 0, np.where(first[0] > 0, 11, 0), 1))


def test_mixing_passes_no_gradient():
    layer = AdaptiveCutMix()
    boxes = layer.draw(4, ops.zeros((2,)))
    assert not gradient(lambda x: ops.sum(layer.mix(x, x, boxes)), np.ones((2, 4, 4))).any()


@pytest.mark.parametrize("per_image", [False, True])
def test_areas_and_centres(per_image, monkeypatch):
    records = []

    def recorded(area, centres, height, width):
        records.append((ops.convert_to_numpy(area), ops.convert_to_numpy(centres), height, width))
        return clipped_boxes(area, centres, height, width)

    monkeypatch.setattr(adaptive_cutmix, "clipped_boxes", recorded)
    size, count, batches = 20, *((1000, 1) if per_image else (40, 200))
    layer = AdaptiveCutMix(injection_beta=(8, 2), mixing_beta=(3, 4), per_image=per_image)
    for _ in range(batches):
        boxes = layer.draw(size, ops.zeros((count,)))
        for found, (area, centres, *sides) in zip(boxes[2:], records[-2:], strict=True):
            assert np.shape(area) == ((count,) if per_image else ()) and sides == [size, size]
            np.testing.assert_array_equal(found, clipped_boxes(area, centres, size, size))
    for kind, (a, b) in enumerate([(8, 2), (3, 4)]):
        areas, centres = (np.concatenate([np.atleast_1d(record[i]) for record in records[kind::2]]) for i in (0, 1))
        assert stats.kstest(1 - areas, stats.beta(a, b).cdf).pvalue > 0.001
        assert set(np.unique(centres)) == set(range(3, 20))  # 20 / 8 = 2.5
        if not per_image:
            for axis in (0, 1):
                assert stats.chisquare(np.bincount(centres[:, axis])[3:]).pvalue > 0.001
            assert abs(np.corrcoef(centres.T)[0, 1]) < 0.05
    areas = [np.concatenate([np.atleast_1d(record[0]) for record in records[kind::2]]) for kind in (0, 1)]
    assert abs(np.corrcoef(areas)[0, 1]) < 0.2


def test_the_unsure_are_injected_and_partners_are_a_permutation():
    layer = AdaptiveCutMix(seed=2)
    confidence = np.array([0.0, 0.2, 0.7, 1.0])
    draw = drawing(layer, 4, confidence)
    draws = [draw() for _ in range(400)]
    injected = np.mean([draw.injected for draw in draws], axis=0)
    np.testing.assert_allclose(injected, 1 - confidence, atol=0.08)
    assert injected[3] == 0 and injected[0] == 1
    partners = np.stack([draw.partners for draw in draws])
    np.testing.assert_array_equal(np.sort(partners, axis=1), np.tile(np.arange(4), (400, 1)))
    for image in range(4):
        assert stats.chisquare(np.bincount(partners[:, image], minlength=4)).pvalue > 0.001
    assert [values.dtype for values in draws[0]] == ["int32", "float32", "float32", "float32"]
    assert [values.shape for values in draws[0]] == [(4,), (4,), (4, 4, 4), (4, 4, 4)]


def test_the_largest_random_numbers_stay_inside(monkeypatch):
    monkeypatch.setattr(keras.random, "uniform", lambda shape, **options: ops.full(shape, 1 - 2**-24, "float32"))
    monkeypatch.setattr(adaptive_cutmix, "clipped_boxes", lambda area, centres, height, width: centres)
    for size in (1, 7, 224, 513):
        assert (ops.convert_to_numpy(AdaptiveCutMix().draw(size, ops.zeros((2,))).mixing_boxes) == size - 1).all()


def test_same_seed_same_boxes_and_the_stream_goes_on_after_loading():
    def draws(layer, times):
        draw = drawing(layer, 16, [0.3, 0.5, 0.1, 0.9, 0.5, 0.4])
        return np.stack([np.concatenate([np.ravel(values) for values in draw()]) for _ in range(times)])

    layer = AdaptiveCutMix(seed=3)
    first = draws(layer, 3)
    np.testing.assert_array_equal(first, draws(AdaptiveCutMix(seed=3), 3))
    assert (first[0] != first[1]).any() and (first[0] != draws(AdaptiveCutMix(seed=4), 1)).any()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(draws(again, 2), draws(layer, 2))
    assert len(layer.variables) == 1


def test_arguments_come_back_from_the_configuration():
    layer = AdaptiveCutMix(injection_beta=(5, 1), mixing_beta=[2, 2], per_image=True, seed=7, name="mix")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    assert (again.injection_beta, again.mixing_beta, again.per_image, again.seed) == ((5, 1), (2, 2), True, 7)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has batches of unknown size")
@pytest.mark.parametrize("per_image", [False, True])
def test_batches_of_unknown_size(per_image):
    import tensorflow as tf

    layer = AdaptiveCutMix(per_image=per_image)

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8), "int32")] * 2)
    def step(unlabeled, labeled):
        boxes = layer.draw(8, ops.zeros((ops.shape(unlabeled)[0],)))
        return layer.mix(unlabeled, labeled, boxes), *boxes

    unlabeled, labeled = np.arange(3 * 64).reshape(3, 8, 8), -np.arange(1, 2 * 64 + 1).reshape(2, 8, 8)
    found, *boxes = map(ops.convert_to_numpy, step(unlabeled.astype("int32"), labeled.astype("int32")))
    np.testing.assert_array_equal(found, mixed_by_hand(unlabeled, labeled, AdaptiveBoxes(*boxes)))


@pytest.mark.parametrize(
    "argument",
    [
        {"injection_beta": (8, 0)},
        {"injection_beta": (8, 2, 1)},
        {"mixing_beta": (2.5, 4)},
        {"seed": -1},
        {"seed": None},
    ],
)
def test_wrong_arguments_are_named(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        AdaptiveCutMix(**argument)


def test_both_kinds_of_boxes_lie_in_places_of_their_own():
    layer = AdaptiveCutMix(injection_beta=(9, 1), mixing_beta=(9, 1), seed=4)
    drawn = layer.draw(64, ops.zeros((400,)))
    boxes = (ops.convert_to_numpy(kind) for kind in (drawn.injection_boxes, drawn.mixing_boxes))
    rows = [np.argmax(kind.max(2), axis=1) for kind in boxes]
    assert abs(np.corrcoef(*rows)[0, 1]) < 0.15
