from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import masked_cross_entropy
from tests.gradients import gradient
from tests.losses.helpers import compiled, finite_difference, softmax, value


def oracle(labels, logits, weights=None, normalize="valid", ignore_value=255):
    probabilities = softmax(np.asarray(logits, "float64"))
    total, weight_sum, entries = 0.0, 0.0, 0
    for index in np.ndindex(*labels.shape):
        if labels[index] == ignore_value:
            continue
        weight = 1.0 if weights is None else weights[index]
        total -= weight * np.log(probabilities[index][labels[index]])
        weight_sum += weight
        entries += 1
    divisor = weight_sum if normalize == "valid" else entries
    return total / divisor if divisor else 0.0


def example(shape, num_classes, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, shape).astype("uint8")
    labels.flat[::4] = 255
    logits = rng.normal(scale=3, size=(*shape, num_classes)).astype("float32")
    return labels, logits, rng.random(shape).astype("float32")


@pytest.mark.parametrize("normalize", ["valid", "all"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("shape", "num_classes"), [((7,), 2), ((2, 3, 4), 3), ((1, 2, 2), 2)])
def test_matches_the_mean_of_minus_log_probabilities(shape, num_classes, weighted, normalize):
    labels, logits, weights = example(shape, num_classes)
    weights = weights if weighted else None
    result = value(masked_cross_entropy(labels, logits, weights, normalize=normalize))
    np.testing.assert_allclose(result, oracle(labels, logits, weights, normalize), rtol=1e-5)


@pytest.mark.parametrize("normalize", ["valid", "all"])
def test_gradient(normalize):
    labels, logits, weights = example((2, 2, 3), 3)
    result = gradient(lambda x: masked_cross_entropy(labels, x, weights, normalize=normalize), logits)
    expected = finite_difference(lambda x: oracle(labels, x, weights, normalize), logits)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert np.all(result[labels == 255] == 0)


@pytest.mark.parametrize("normalize", ["valid", "all"])
@pytest.mark.parametrize("case", ["all ignored", "all weights 0"])
def test_nothing_counts(case, normalize):
    labels, logits, weights = example((2, 3, 3), 2)
    labels = np.full_like(labels, 255) if case == "all ignored" else labels
    weights = np.zeros_like(weights) if case == "all weights 0" else weights
    assert value(masked_cross_entropy(labels, logits, weights, normalize=normalize)) == 0
    result = gradient(lambda x: masked_cross_entropy(labels, x, weights, normalize=normalize), logits)
    np.testing.assert_array_equal(result, 0)


def test_dropped_entries_shrink_the_loss_only_when_all_count():
    labels, logits = np.array([0, 1]), np.zeros((2, 2), "float32")
    weights = np.array([1.0, 0.0], "float32")
    np.testing.assert_allclose(value(masked_cross_entropy(labels, logits, weights)), np.log(2), rtol=1e-6)
    halved = value(masked_cross_entropy(labels, logits, weights, normalize="all"))
    np.testing.assert_allclose(halved, np.log(2) / 2, rtol=1e-6)


def test_another_ignore_value_but_no_class():
    labels, logits, _ = example((2, 3, 3), 3)
    labels = np.where(labels == 0, 7, labels % 3)
    result = value(masked_cross_entropy(labels, logits, ignore_value=7))
    np.testing.assert_allclose(result, oracle(labels, logits, ignore_value=7), rtol=1e-5)
    for ignore_value in (0, 2):
        with pytest.raises(ValueError, match=f"`ignore_value` must not be .* 0 to 2, found {ignore_value}"):
            masked_cross_entropy(labels, logits, ignore_value=ignore_value)


def test_extreme_logits_stay_finite():
    labels, logits = np.array([0, 1]), np.array([[-1e4, 1e4], [-1e4, 1e4]], "float32")
    np.testing.assert_allclose(value(masked_cross_entropy(labels, logits)), 1e4, rtol=1e-6)
    assert np.all(np.isfinite(gradient(lambda x: masked_cross_entropy(labels, x), logits)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits_are_computed_in_float32(dtype):
    labels, logits, weights = example((2, 4, 4), 2)
    half = ops.cast(logits, dtype)
    result = value(masked_cross_entropy(labels, half, weights))
    rounded = ops.convert_to_numpy(ops.cast(half, "float32"))
    np.testing.assert_allclose(result, oracle(labels, rounded, weights), rtol=1e-5)


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_compiled(dynamic_batch):
    arrays = example((2, 3, 3), 2)
    result = compiled(masked_cross_entropy, *arrays, dynamic_batch=dynamic_batch)
    np.testing.assert_allclose(value(result), oracle(*arrays), rtol=1e-5)


def test_unknown_normalize():
    with pytest.raises(ValueError, match="`normalize` must be 'valid' or 'all', found 'mean'"):
        masked_cross_entropy(np.zeros(2, int), np.zeros((2, 2)), normalize="mean")
