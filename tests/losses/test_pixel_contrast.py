from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import Anchors, PixelContrastiveLoss
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, unit, value


def oracle(embeddings, labels, valid, temperature, bank=None, bank_valid=None):
    embeddings = np.asarray(embeddings, "float64")
    anchors = [i for i in range(len(labels)) if valid[i]]
    losses = []
    for i in anchors:
        positives = [j for j in anchors if j != i and labels[j] == labels[i]]
        if not positives:
            continue
        negatives = [embeddings[j] for j in anchors if labels[j] != labels[i]]
        if bank is not None:
            for k in range(bank.shape[0]):
                for s in range(bank.shape[1]):
                    if k != labels[i] and (bank_valid is None or bank_valid[k, s]):
                        negatives.append(np.asarray(bank[k, s], "float64"))
        negative_sum = sum(np.exp(embeddings[i] @ n / temperature) for n in negatives)
        terms = []
        for p in positives:
            positive = np.exp(embeddings[i] @ embeddings[p] / temperature)
            terms.append(-np.log(positive / (positive + negative_sum)))
        losses.append(np.mean(terms))
    return np.mean(losses) if losses else 0.0


def example(slots, num_classes, depth=4, bank_size=0, seed=0):
    rng = np.random.default_rng(seed)
    embeddings = unit(rng.normal(size=(slots, depth))).astype("float32")
    labels = rng.integers(0, num_classes, slots).astype("int32")
    valid = rng.random(slots) > 0.2
    bank = unit(rng.normal(size=(num_classes, bank_size, depth))).astype("float32") if bank_size else None
    bank_valid = (rng.random((num_classes, bank_size)) > 0.4).astype("float32") if bank_size else None
    return embeddings, labels, valid, bank, bank_valid


def contrast(loss, embeddings, labels, valid, bank=None, bank_valid=None):
    return loss.contrast(Anchors(ops.convert_to_tensor(embeddings), labels, valid), bank, bank_valid)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("bank_size", [0, 3])
@pytest.mark.parametrize(("slots", "num_classes"), [(3, 2), (8, 2), (8, 3)])
def test_matches_equation_11(slots, num_classes, bank_size, temperature):
    arrays = example(slots, num_classes, bank_size=bank_size)
    loss = PixelContrastiveLoss(num_classes, temperature)
    expected = oracle(*arrays[:3], temperature, *arrays[3:])
    np.testing.assert_allclose(value(contrast(loss, *arrays)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("bank_size", [0, 3])
def test_gradient(bank_size, temperature):
    embeddings, *rest = example(8, 3, bank_size=bank_size)
    loss = PixelContrastiveLoss(3, temperature)
    result = gradient(lambda x: contrast(loss, x, *rest), embeddings)
    expected = finite_difference(lambda x: oracle(x, *rest[:2], temperature, *rest[2:]), embeddings)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_hand_computed():
    embeddings = np.array([[1, 0], [1, 0], [0, 1]], "float32")
    result = contrast(PixelContrastiveLoss(temperature=1.0), embeddings, np.array([0, 0, 1]), np.ones(3, bool))
    # Both anchors of class 0: -log(e / (e + 1)); the one of class 1 has no positive.
    np.testing.assert_allclose(value(result), np.log(1 + np.exp(-1)), rtol=1e-6)


@pytest.mark.parametrize("with_bank", [False, True])
@pytest.mark.parametrize(
    ("labels", "valid", "is_zero"),
    [
        ([0, 1, 0, 1], [0, 0, 0, 0], True),  # nothing certain
        ([0, 1, 0, 1], [0, 1, 0, 0], True),  # one anchor alone
        ([0, 1, 0, 1], [1, 1, 0, 0], True),  # no positives
        ([1, 1, 1, 1], [1, 1, 1, 1], None),  # one class: 0 unless the bank holds another one
        ([0, 1, 0, 1], [1, 1, 1, 1], False),
    ],
)
def test_degenerate_batches_are_finite(labels, valid, is_zero, with_bank):
    embeddings, *_, bank, bank_valid = example(4, 2, bank_size=3)
    rest = (np.array(labels), np.array(valid, bool), bank if with_bank else None, bank_valid if with_bank else None)
    loss = PixelContrastiveLoss(2)
    result, slope = value(contrast(loss, embeddings, *rest)), gradient(lambda x: contrast(loss, x, *rest), embeddings)
    assert np.isfinite(result) and np.all(np.isfinite(slope))
    if is_zero is None:
        is_zero = not with_bank
    if is_zero:
        assert result == 0
        np.testing.assert_array_equal(slope, 0)
    else:
        assert result > 0 and np.any(slope != 0)


def test_an_empty_bank_changes_nothing():
    embeddings, labels, valid, bank, _ = example(8, 2, bank_size=3)
    loss = PixelContrastiveLoss(2)
    without = value(contrast(loss, embeddings, labels, valid))
    assert value(contrast(loss, embeddings, labels, valid, bank, np.zeros(bank.shape[:2], "float32"))) == without
    alone = np.zeros_like(labels)
    empty = (bank * 0, np.zeros(bank.shape[:2]))
    assert value(contrast(loss, embeddings, alone, valid, *empty)) == 0
    np.testing.assert_array_equal(gradient(lambda x: contrast(loss, x, alone, valid, *empty), embeddings), 0)


def test_no_gradient_into_the_bank():
    embeddings, labels, valid, bank, bank_valid = example(8, 2, bank_size=3)
    loss = PixelContrastiveLoss(2)
    slope = gradient(lambda b: contrast(loss, embeddings, labels, valid, b, bank_valid), bank)
    np.testing.assert_array_equal(slope, 0)


def test_a_bank_of_variables_is_read():
    embeddings, labels, valid, bank, bank_valid = example(8, 2, bank_size=3)
    loss = PixelContrastiveLoss(2)
    expected = value(contrast(loss, embeddings, labels, valid, bank, bank_valid))
    variables = keras.Variable(bank), keras.Variable(bank_valid)
    np.testing.assert_allclose(value(contrast(loss, embeddings, labels, valid, *variables)), expected, rtol=1e-6)


def maps(batch=2, size=4, depth=3, num_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    shape = (batch, size, size)
    embeddings = unit(rng.normal(size=(*shape, depth))).astype("float32")
    labels = rng.integers(0, num_classes, shape).astype("int32")
    certain, hard = rng.random(shape) > 0.3, rng.random(shape) > 0.5
    return embeddings, labels, certain, hard, rng.random(shape).astype("float32")


@pytest.mark.parametrize("num_classes", [2, 3])
def test_select_gathers_the_pixels_of_the_slots(num_classes):
    embeddings, labels, certain, hard, noise = maps(num_classes=num_classes)
    loss = PixelContrastiveLoss(num_classes, max_anchors=5 * 2 * num_classes)
    anchors = loss.select(embeddings, labels, certain, hard, noise)
    drawn, classes, valid = (ops.convert_to_numpy(x) for x in anchors)
    assert drawn.shape == (5 * 2 * num_classes, 3)
    # Slot-major: the group of a row follows from its number.
    for row in range(len(drawn)):
        image, label = row // num_classes % 2, row % num_classes
        assert classes[row] == label
        if valid[row]:
            same = np.all(embeddings[image] == drawn[row], axis=-1)
            assert np.any(same & (labels[image] == label) & certain[image])
    assert len(np.unique(drawn[valid], axis=0)) == np.sum(valid)
    for image in range(2):
        for label in range(num_classes):
            pool = np.sum((labels[image] == label) & certain[image])
            group = valid.reshape(5, 2, num_classes)[:, image, label]
            assert np.sum(group) == min(5, pool)


def test_call_is_select_then_contrast():
    embeddings, *rest = maps()
    bank, bank_valid = example(1, 2, depth=3, bank_size=4)[3:]
    loss = PixelContrastiveLoss(2, temperature=0.2, max_anchors=24)
    anchors = loss.select(embeddings, *rest)
    expected = oracle(*(ops.convert_to_numpy(x) for x in anchors), 0.2, bank, bank_valid)
    np.testing.assert_allclose(value(loss(embeddings, *rest, bank, bank_valid)), expected, rtol=1e-5)
    slope = gradient(lambda x: loss(x, *rest, bank, bank_valid), embeddings)
    assert np.all(slope[~rest[1]] == 0) and np.any(slope[rest[1]] != 0)


def test_nothing_certain_gives_0():
    embeddings, labels, certain, hard, noise = maps()
    rest = (labels, np.zeros_like(certain), hard, noise)
    loss = PixelContrastiveLoss(max_anchors=24)
    assert value(loss(embeddings, *rest)) == 0
    np.testing.assert_array_equal(gradient(lambda x: loss(x, *rest), embeddings), 0)


def test_per_group():
    loss = PixelContrastiveLoss(2)
    assert loss.per_group(8) == 64
    assert loss.per_group(1) == 100
    assert loss.per_group(5000) == 1
    assert int(loss.per_group(ops.convert_to_tensor(8))) == 64
    assert int(loss.per_group(ops.convert_to_tensor(1))) == 100


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_compiled(dynamic_batch):
    arrays = maps()
    bank, bank_valid = example(1, 2, depth=3, bank_size=4)[3:]
    loss = PixelContrastiveLoss(2, max_anchors=24)
    result = compiled(lambda *x: loss(*x, bank, bank_valid), *arrays, dynamic_batch=dynamic_batch)
    np.testing.assert_allclose(value(result), value(loss(*arrays, bank, bank_valid)), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    embeddings, *rest = maps()
    half = ops.cast(embeddings, dtype)
    loss = PixelContrastiveLoss(max_anchors=24)
    expected = value(loss(ops.cast(half, "float32"), *rest))
    np.testing.assert_allclose(value(loss(half, *rest)), expected, rtol=1e-6)


def test_config_round_trip():
    assert_config_round_trip(PixelContrastiveLoss(3, 0.1, 64, 8, name="p"))


def test_errors():
    with pytest.raises(ValueError, match="`temperature` must be positive, found 0"):
        PixelContrastiveLoss(temperature=0)
    for shape in ((4, 3), (2, None, None, 3)):
        with pytest.raises(
            ValueError, match=rf"`embeddings` must have shape \(B, H, W, D\) .* found {re.escape(str(shape))}"
        ):
            PixelContrastiveLoss().select(keras.KerasTensor(shape), *[np.zeros((4,))] * 4)
