from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import CrossPseudoSupervision
from tests.gradients import gradient
from tests.losses import test_cross_entropy, test_dice
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, softmax, value


def one_way(loss, logits, labels):
    if loss == "ce":
        return test_cross_entropy.oracle(labels, logits)
    return test_dice.oracle(labels, softmax(np.asarray(logits, "float64")), first=0)


def oracle(loss, logits_1, logits_2, inside=None, labels_1=None, labels_2=None):
    labels_1 = np.argmax(logits_1, -1) if labels_1 is None else labels_1
    labels_2 = np.argmax(logits_2, -1) if labels_2 is None else labels_2
    if inside is not None:
        labels_1, labels_2 = (np.where(inside > 0, labels, 255) for labels in (labels_1, labels_2))
    return one_way(loss, logits_1, labels_2) + one_way(loss, logits_2, labels_1)


def example(shape=(2, 3, 4), classes=4, seed=0):
    random = np.random.default_rng(seed)
    logits = [random.normal(0, 2, (*shape, classes)).astype("float32") for _ in range(2)]
    inside = (random.uniform(size=shape) > 0.3).astype("float32")
    labels = [random.integers(0, classes, shape).astype("int32") for _ in range(2)]
    labels[0].flat[::5] = 255
    return *logits, inside, *labels


@pytest.mark.parametrize("loss", ["ce", "dice"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("given", [0, 1, 3])
def test_is_the_sum_of_both_directions(given, classes, loss):
    logits_1, logits_2, *others = example(classes=classes)
    others = others[:given]
    found = value(CrossPseudoSupervision(loss)(logits_1, logits_2, *others))
    np.testing.assert_allclose(found, oracle(loss, logits_1, logits_2, *others), rtol=1e-5)


@pytest.mark.parametrize("loss", ["ce", "dice"])
def test_gradient_flows_into_each_student_by_its_own_prediction(loss):
    logits_1, logits_2, inside, *_ = example((2, 2, 3), 3)
    function = CrossPseudoSupervision(loss)
    labels_1, labels_2 = (np.where(inside > 0, logits.argmax(-1), 255) for logits in (logits_1, logits_2))
    by_1 = gradient(lambda x: function(x, logits_2, inside), logits_1)
    by_2 = gradient(lambda x: function(logits_1, x, inside), logits_2)
    np.testing.assert_allclose(by_1, finite_difference(lambda x: one_way(loss, x, labels_2), logits_1), atol=1e-5)
    np.testing.assert_allclose(by_2, finite_difference(lambda x: one_way(loss, x, labels_1), logits_2), atol=1e-5)
    np.testing.assert_array_equal(gradient(lambda x: function(logits_1, logits_2, x), inside), 0)


def test_the_numbers_of_the_specification():
    first = np.log(np.array([[[[0.9, 0.1], [0.4, 0.6]]]], "float32"))
    second = np.log(np.array([[[[0.8, 0.2], [0.7, 0.3]]]], "float32"))
    loss = CrossPseudoSupervision()
    np.testing.assert_allclose(value(loss(first, second)), 1.2243838, rtol=1e-5)
    slopes = [[[[-0.05, 0.05], [-0.3, 0.3]]]]
    np.testing.assert_allclose(gradient(lambda x: loss(x, second), first), slopes, atol=1e-6)
    for inside, expected in (((1, 0), 0.3285041), ((0, 0), 0.0)):
        found = value(loss(first, second, np.array([[inside]], "float32")))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_both_parts_of_a_batch_are_one_mean():
    p = np.exp(-np.array([1.0, 0.6, 0.6, 0.6]) / 2)  # one image of 4 pixels, three of 12; the sum of both directions
    logits = np.tile(np.log(np.stack([p, 1 - p], -1))[:, None, None, :], (1, 2, 2, 1)).astype("float32")
    labels = np.zeros(logits.shape[:-1], "int32")
    loss = CrossPseudoSupervision()
    np.testing.assert_allclose(value(loss(logits, logits, None, labels, labels)), 0.7, rtol=1e-5)
    np.testing.assert_allclose(value(loss(logits[1:], logits[1:], None, labels[1:], labels[1:])), 0.6, rtol=1e-5)


@pytest.mark.parametrize("loss", ["ce", "dice"])
@pytest.mark.parametrize("case", ["nothing inside", "all labels 255"])
def test_nothing_counts(case, loss):
    logits_1, logits_2, inside, *labels = example()
    inside = np.zeros_like(inside) if case == "nothing inside" else inside
    labels = [np.full_like(x, 255) for x in labels] if case == "all labels 255" else labels
    function = CrossPseudoSupervision(loss)
    assert value(function(logits_1, logits_2, inside, *labels)) == 0
    np.testing.assert_array_equal(gradient(lambda x: function(x, logits_2, inside, *labels), logits_1), 0)
    np.testing.assert_array_equal(gradient(lambda x: function(logits_1, x, inside, *labels), logits_2), 0)


def test_twins_learn_the_same():
    logits = example()[0]
    loss = CrossPseudoSupervision()
    by_1, by_2 = (gradient(f, logits) for f in (lambda x: loss(x, logits), lambda x: loss(logits, x)))
    np.testing.assert_array_equal(by_1, by_2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("loss", ["ce", "dice"])
def test_half_precision_is_computed_in_float32(loss, dtype):
    logits_1, logits_2, inside = (ops.cast(x, dtype) for x in example()[:3])
    rounded = [ops.convert_to_numpy(ops.cast(x, "float32")) for x in (logits_1, logits_2, inside)]
    found = value(CrossPseudoSupervision(loss)(logits_1, logits_2, inside))
    np.testing.assert_allclose(found, oracle(loss, *rounded), rtol=1e-5)


@pytest.mark.parametrize("dynamic_batch", [False, True])
@pytest.mark.parametrize("loss", ["ce", "dice"])
def test_compiled(loss, dynamic_batch):
    arrays = example()
    result = compiled(CrossPseudoSupervision(loss), *arrays, dynamic_batch=dynamic_batch)
    np.testing.assert_allclose(value(result), oracle(loss, *arrays), rtol=1e-5)


def test_config_round_trip():
    assert_config_round_trip(CrossPseudoSupervision(loss="dice", name="c"))


def test_errors():
    with pytest.raises(ValueError, match="`loss` must be 'ce' or 'dice', found 'mse'"):
        CrossPseudoSupervision("mse")
