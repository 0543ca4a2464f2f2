from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import SoftmaxConsistency
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, softmax, value

DISTANCES = ["squared", "kl", "cross_entropy"]


def oracle(distance, logits, targets, weights=None, inside=None):
    p, q = softmax(np.asarray(logits, "float64")), np.asarray(targets, "float64")
    total, image = 0.0, 0.0
    for place in np.ndindex(*p.shape[:-1]):
        if distance == "squared":
            d = sum((a - b) ** 2 for a, b in zip(p[place], q[place], strict=True)) / p.shape[-1]
        else:
            d = -sum(b * np.log(a) for a, b in zip(p[place], q[place], strict=True))
            if distance == "kl":
                d += sum(b * np.log(b) for b in q[place] if b > 0)
        here = 1.0 if inside is None else float(inside[place])
        total += here * (1.0 if weights is None else float(weights[place])) * d
        image += here
    return total / image if image else 0.0


def example(shape=(2, 3, 4), classes=4, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (*shape, classes)).astype("float32")
    targets = softmax(random.normal(0, 2, (*shape, classes))).astype("float32")
    weights = random.uniform(0, 2, shape).astype("float32")
    return logits, targets, weights, (random.uniform(size=shape) > 0.3).astype("float32")


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("shape", "classes"), [((5,), 3), ((2, 3, 4), 2), ((2, 3, 4), 4)])
def test_matches_the_sums(shape, classes, masked, weighted, distance):
    logits, targets, weights, inside = example(shape, classes)
    weights, inside = weights if weighted else None, inside if masked else None
    found = value(SoftmaxConsistency(distance)(logits, targets, weights, inside))
    np.testing.assert_allclose(found, oracle(distance, logits, targets, weights, inside), rtol=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradient_flows_into_the_logits_alone(distance):
    logits, targets, weights, inside = example((2, 2, 3), 3)
    loss = SoftmaxConsistency(distance)
    result = gradient(lambda x: loss(x, targets, weights, inside), logits)
    expected = finite_difference(lambda x: oracle(distance, x, targets, weights, inside), logits)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert np.all(result[inside == 0] == 0)
    np.testing.assert_array_equal(gradient(lambda x: loss(logits, x, weights, inside), targets), 0)
    np.testing.assert_array_equal(gradient(lambda x: loss(logits, targets, x, inside), weights), 0)
    np.testing.assert_array_equal(gradient(lambda x: loss(logits, targets, weights, x), inside), 0)


def test_the_numbers_of_the_specifications():
    def logits(*rows):
        return np.log(np.array([[rows]], "float32"))

    squared = SoftmaxConsistency()
    target = np.array([[[[0.6, 0.4]]]], "float32")
    np.testing.assert_allclose(value(squared(logits((0.9, 0.1)), target)), 0.09, rtol=1e-5)
    three = np.array([[[[0.5, 0.3, 0.2]]]], "float32")
    np.testing.assert_allclose(value(squared(logits((0.7, 0.2, 0.1)), three)), 0.02, rtol=1e-5)
    result = gradient(lambda x: squared(x, target), logits((0.9, 0.1)))
    np.testing.assert_allclose(result, [[[[0.054, -0.054]]]], rtol=1e-4)

    pair, targets = logits((0.9, 0.1), (0.5, 0.5)), np.array([[[[0.6, 0.4], [0.4, 0.6]]]], "float32")
    for inside, expected in (((1, 0), 0.09), ((1, 1), 0.05), ((0, 0), 0.0)):
        found = value(squared(pair, targets, inside=np.array([[inside]], "float32")))
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    kept = np.array([[[1, 0]]], "float32")
    targets = np.array([[[[0.9, 0.1], [0.4, 0.6]]]], "float32")
    found = value(SoftmaxConsistency("kl")(logits((0.5, 0.5), (0.5, 0.5)), targets, kept))
    np.testing.assert_allclose(found, 0.18403, atol=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("case", ["nothing inside", "all weights 0"])
def test_nothing_counts(case, distance):
    logits, targets, weights, inside = example()
    inside = np.zeros_like(inside) if case == "nothing inside" else inside
    weights = np.zeros_like(weights) if case == "all weights 0" else weights
    loss = SoftmaxConsistency(distance)
    assert value(loss(logits, targets, weights, inside)) == 0
    np.testing.assert_array_equal(gradient(lambda x: loss(x, targets, weights, inside), logits), 0)


@pytest.mark.parametrize("distance", DISTANCES)
def test_certain_targets_and_extreme_logits_stay_finite(distance):
    logits = np.array([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], "float32")
    targets = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], "float32")
    loss = SoftmaxConsistency(distance)
    expected = {"squared": (2 / 3 + 2 / 9) / 2}.get(distance, (2e4 + np.log(3)) / 2)
    np.testing.assert_allclose(value(loss(logits, targets)), expected, rtol=1e-5)
    assert np.all(np.isfinite(gradient(lambda x: loss(x, targets), logits)))


def test_equal_predictions_have_no_distance():
    logits = example()[0]
    for distance in ("squared", "kl"):
        found = value(SoftmaxConsistency(distance)(logits, softmax(logits.astype("float64")).astype("float32")))
        np.testing.assert_allclose(found, 0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_half_precision_is_computed_in_float32(distance, dtype):
    arrays = [ops.cast(x, dtype) for x in example()]
    rounded = [ops.convert_to_numpy(ops.cast(x, "float32")) for x in arrays]
    np.testing.assert_allclose(value(SoftmaxConsistency(distance)(*arrays)), oracle(distance, *rounded), rtol=1e-5)


@pytest.mark.parametrize("dynamic_batch", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
def test_compiled(distance, dynamic_batch):
    arrays = example()
    result = compiled(SoftmaxConsistency(distance), *arrays, dynamic_batch=dynamic_batch)
    np.testing.assert_allclose(value(result), oracle(distance, *arrays), rtol=1e-5)


def test_config_round_trip():
    assert_config_round_trip(SoftmaxConsistency(distance="kl", name="s"))


def test_errors():
    with pytest.raises(ValueError, match="`distance` must be one of .*, found 'l1'"):
        SoftmaxConsistency("l1")
    logits = np.zeros((2, 3, 3, 4), "float32")
    for shape in ((2, 3, 3), (2, 3, 3, 2)):
        with pytest.raises(ValueError, match="`targets` must be probabilities of the shape of the logits"):
            SoftmaxConsistency()(logits, np.zeros(shape, "float32"))
