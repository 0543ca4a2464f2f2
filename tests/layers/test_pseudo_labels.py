"""Pseudo-labels: what is kept, what leaves the mean, and what moves with the boxes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import PseudoLabels, hard_labels, neighbour
from tests.gradients import gradient
from tests.losses.helpers import compiled, finite_difference, softmax, value


def arrays(pseudo):
    return PseudoLabels(*(None if field is None else ops.convert_to_numpy(field) for field in pseudo))


def example(shape=(3, 4, 5), classes=4, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (*shape, classes)).astype("float32")
    labels = random.integers(0, classes, shape).astype("int32")
    labels.flat[::5] = 255
    kept = random.uniform(size=shape).astype("float32")
    inside = (random.uniform(size=shape) > 0.3).astype("float32")
    return logits, PseudoLabels(labels, random.uniform(size=shape).astype("float32"), kept, inside)


def cross_entropy_oracle(pseudo, logits):
    total, image = 0.0, 0
    logarithms = np.log(softmax(np.asarray(logits, "float64")))
    for place in np.ndindex(*pseudo.labels.shape):
        if pseudo.inside[place] and pseudo.labels[place] != 255:
            total -= float(pseudo.kept[place]) * logarithms[place][pseudo.labels[place]]
            image += 1
    return total / image if image else 0.0


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4)])
@pytest.mark.parametrize("masked", [False, True])
def test_hard_labels_keep_what_reaches_the_threshold_inside(shape, masked):
    logits, pseudo = example(shape)
    inside = pseudo.inside if masked else None
    found = arrays(hard_labels(logits, inside, threshold=0.7))
    probabilities = softmax(logits.astype("float64"))
    inside = np.ones(shape) if inside is None else inside
    np.testing.assert_array_equal(found.labels, logits.argmax(-1))
    np.testing.assert_allclose(found.confidence, probabilities.max(-1), rtol=1e-6)
    np.testing.assert_array_equal(found.inside, inside)
    np.testing.assert_array_equal(found.kept, inside * (probabilities.max(-1) >= 0.7))
    assert 0 < found.kept.sum() < inside.sum() and found.probabilities is None
    assert [field.dtype for field in found[:4]] == ["int32", "float32", "float32", "float32"]


def test_threshold_zero_keeps_all_above_one_nothing_and_equality_counts():
    logits = np.zeros((1, 2, 2, 2), "float32")
    for threshold, kept in ((0.0, 1.0), (0.5, 1.0), (0.5001, 0.0), (1.01, 0.0)):
        np.testing.assert_array_equal(arrays(hard_labels(logits, threshold=threshold)).kept, kept)
    np.testing.assert_array_equal(arrays(hard_labels(logits, threshold=ops.ones(()) * 0.5)).kept, 1.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    logits = ops.cast(example()[0], dtype)
    rounded = ops.convert_to_numpy(ops.cast(logits, "float32")).astype("float64")
    pseudo = hard_labels(logits, threshold=0.6)
    np.testing.assert_allclose(arrays(pseudo).confidence, softmax(rounded).max(-1), rtol=1e-5)
    found = value(pseudo.cross_entropy(logits))
    np.testing.assert_allclose(found, cross_entropy_oracle(arrays(pseudo), rounded), rtol=1e-5)


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4)])
def test_cross_entropy_is_the_mean_over_what_is_image(shape):
    logits, pseudo = example(shape)
    np.testing.assert_allclose(value(pseudo.cross_entropy(logits)), cross_entropy_oracle(pseudo, logits), rtol=1e-5)
    result = gradient(pseudo.cross_entropy, logits)
    expected = finite_difference(lambda x: cross_entropy_oracle(pseudo, x), logits)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_the_numbers_of_the_specification():
    zeros = np.zeros((1, 1, 2, 2), "float32")
    weak = np.log(np.array([[[[0.96, 0.04], [0.4, 0.6]]]], "float32"))
    np.testing.assert_allclose(value(hard_labels(weak, threshold=0.95).cross_entropy(zeros)), 0.34657, atol=1e-5)

    weak = np.log(np.array([[[[0.99, 0.01], [0.6, 0.4], [0.99, 0.01]]]], "float32"))
    strong = np.log(np.array([[[[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]]]], "float32"))
    pseudo = hard_labels(weak, np.array([[[1, 1, 0]]], "float32"), 0.95)
    np.testing.assert_allclose(value(pseudo.cross_entropy(strong)), 0.11157, atol=1e-5)

    losses = np.array([0.2, 0.4, 1.0, 2.0])
    labels = PseudoLabels(np.zeros(4, "int32"), None, np.array([1, 1, 0, 0], "float32"), np.ones(4, "float32"))
    logits = np.log(np.stack([np.exp(-losses), 1 - np.exp(-losses)], -1)).astype("float32")
    np.testing.assert_allclose(value(labels.cross_entropy(logits)), 0.15, rtol=1e-5)


def test_known_labels_are_those_that_are_kept():
    _, pseudo = example()
    pseudo.kept[0] = 0
    found = PseudoLabels(*(ops.convert_to_tensor(field) for field in pseudo[:4])).known
    assert keras.backend.standardize_dtype(found.dtype) == "int32"
    np.testing.assert_array_equal(found, np.where(pseudo.kept > 0, pseudo.labels, 255))
    assert (np.unique(ops.convert_to_numpy(found)[0]) == 255).all()


@pytest.mark.parametrize("case", ["outside", "ignored"])
def test_nothing_counts(case):
    logits, pseudo = example()
    if case == "outside":
        pseudo = pseudo._replace(inside=np.zeros_like(pseudo.inside))
    else:
        pseudo = pseudo._replace(labels=np.full_like(pseudo.labels, 255))
    assert value(pseudo.cross_entropy(logits)) == 0
    np.testing.assert_array_equal(gradient(pseudo.cross_entropy, logits), 0)


def test_nothing_kept_is_zero_with_a_gradient_of_zero():
    logits, _ = example()
    pseudo = hard_labels(logits, threshold=1.1)
    assert value(pseudo.cross_entropy(logits)) == 0
    np.testing.assert_array_equal(gradient(pseudo.cross_entropy, logits), 0)


def test_labels_are_constants():
    logits, other = example()

    def loss(weak):
        pseudo = hard_labels(weak, other.inside)
        return ops.sum(pseudo.confidence) + pseudo._replace(kept=pseudo.confidence).cross_entropy(other.kept[..., None])

    np.testing.assert_array_equal(gradient(loss, logits), 0)
    pseudo = other._replace(labels=other.labels % 4)
    by_kept = gradient(lambda kept: pseudo._replace(kept=kept).cross_entropy(logits), pseudo.kept)
    np.testing.assert_array_equal(by_kept, 0)


def test_every_field_is_mixed_with_the_same_boxes():
    random = np.random.default_rng(1)
    _, own = example()
    own = own._replace(probabilities=random.uniform(size=(*own.labels.shape, 4)).astype("float32"))
    boxes = (random.uniform(size=own.labels.shape) > 0.5).astype("float32")
    tensors = PseudoLabels(*(ops.convert_to_tensor(field) for field in own))
    mixed = arrays(tensors.mixed(PseudoLabels(*(neighbour(field) for field in tensors)), boxes))
    for found, field in zip(mixed, own, strict=True):
        for n, y, x in np.ndindex(*boxes.shape):
            np.testing.assert_array_equal(found[n, y, x], field[n - 1 if boxes[n, y, x] else n, y, x])
    assert mixed.labels.dtype == np.int32
    assert tensors._replace(probabilities=None).mixed(tensors, boxes).probabilities is None


def test_a_box_brings_the_partners_label_and_its_padding():
    own = hard_labels(np.log(np.array([[[[0.99, 0.01]]]], "float32")), threshold=0.95)
    partner = hard_labels(np.log(np.array([[[[0.45, 0.55]]]], "float32")), threshold=0.95)
    box, zeros = np.ones((1, 1, 1), "float32"), np.zeros((1, 1, 1, 2), "float32")
    assert value(own.mixed(partner, box).cross_entropy(zeros)) == 0
    exchanged = arrays(partner.mixed(own, box))
    assert exchanged.kept == 1 and exchanged.labels == 0

    pair = hard_labels(np.full((1, 1, 2, 2), [5.0, -5.0], "float32"), threshold=0.95)
    padded = pair._replace(inside=ops.zeros((1, 1, 2)), kept=ops.zeros((1, 1, 2)))
    mixed = pair.mixed(padded, np.array([[[1, 0]]], "float32"))
    logits = np.log(np.array([[[[0.5, 0.5], [np.exp(-0.3), 1 - np.exp(-0.3)]]]])).astype("float32")
    np.testing.assert_allclose(value(mixed.cross_entropy(logits)), 0.3, rtol=1e-5)


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_compiled(dynamic_batch):
    weak, other = example()
    strong = example(seed=1)[0]

    def loss(weak, strong, inside):
        return hard_labels(weak, inside, 0.5).cross_entropy(strong)

    result = compiled(loss, weak, strong, other.inside, dynamic_batch=dynamic_batch)
    expected = cross_entropy_oracle(arrays(hard_labels(weak, other.inside, 0.5)), strong)
    np.testing.assert_allclose(value(result), expected, rtol=1e-5)


def test_no_gradient_flows_into_the_logits_that_label():
    weak, other = example()
    strong = example(seed=1)[0]
    result = gradient(lambda x: hard_labels(x, other.inside, 0.5).cross_entropy(strong), weak)
    np.testing.assert_array_equal(result, 0)
    assert keras.backend.standardize_dtype(hard_labels(weak).labels.dtype) == "int32"


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4)])
def test_soft_cross_entropy_in_loops_and_its_slope(shape):
    logits, pseudo = example(shape)
    wanted = np.random.default_rng(5).dirichlet(np.ones(4), shape).astype("float32")

    def oracle(logits):
        logarithms, total, image = np.log(softmax(np.asarray(logits, "float64"))), 0.0, 0
        for place in np.ndindex(*shape):
            if pseudo.inside[place] and pseudo.labels[place] != 255:
                total -= float(pseudo.kept[place]) * float(wanted[place].astype("float64") @ logarithms[place])
                image += 1
        return total / image

    def term(logits):
        fields = pseudo._replace(probabilities=wanted)
        return PseudoLabels(*map(ops.convert_to_tensor, fields)).soft_cross_entropy(logits)

    np.testing.assert_allclose(value(term(ops.convert_to_tensor(logits))), oracle(logits), rtol=1e-5)
    slope = ops.convert_to_numpy(gradient(term, logits))
    np.testing.assert_allclose(slope, finite_difference(oracle, logits), rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="soft labels need `probabilities`"):
        PseudoLabels(*map(ops.convert_to_tensor, pseudo[:4])).soft_cross_entropy(logits)


def test_soft_labels_that_are_sure_are_hard_labels():
    logits, pseudo = example()
    sure = np.eye(4, dtype="float32")[np.where(pseudo.labels == 255, 0, pseudo.labels)]
    found = PseudoLabels(*map(ops.convert_to_tensor, pseudo._replace(probabilities=sure)))
    np.testing.assert_allclose(value(found.soft_cross_entropy(logits)), cross_entropy_oracle(pseudo, logits), rtol=1e-5)
