from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.thresholds import (
    DualThreshold,
    average_momentum,
    class_wise_confidence,
    confidence_threshold,
    consistency_ramp,
    entropy,
    release_uncertainty_threshold,
    uncertainty_threshold,
    view_uncertainty,
)
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, softmax, value


@pytest.mark.parametrize(("maximum", "expected"), [(0.99, (1, 1.5, 2, 2.5)), (0.5, (1, 1.5, 2.25, 3.125))])
def test_a_teacher_is_the_mean_of_the_students_until_its_momentum_is_reached(maximum, expected):
    teacher = 7.0
    for updates, (student, after) in enumerate(zip((1, 2, 3, 4), expected, strict=True), start=1):
        momentum = value(average_momentum(updates, maximum))
        teacher = momentum * teacher + (1 - momentum) * student
        np.testing.assert_allclose(teacher, after, rtol=1e-6)
        traced = compiled(lambda n: average_momentum(n, maximum), np.array(updates, "int32"))
        assert value(traced) == momentum
    np.testing.assert_allclose(value(average_momentum(10**6, 0.999)), 0.999)


def entropy_oracle(p):
    return -sum(q * math.log(q) for q in np.asarray(p, "float64") if q > 0)


def probabilities(shape=(3, 4), num_classes=2, seed=0):
    logits = np.random.default_rng(seed).normal(scale=2, size=(*shape, num_classes))
    return softmax(logits).astype("float32")


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (uncertainty_threshold, (0.75, 0.5, 0.25)),
        (confidence_threshold, (0.855104, 0.902925, 0.923287)),
        (release_uncertainty_threshold, (0.521028, 0.569508, 0.693147)),
    ],
)
def test_schedules_at_the_start_the_middle_and_the_end(schedule, values):
    for progress, expected in zip((0.0, 0.5, 1.0), values, strict=True):
        np.testing.assert_allclose(value(schedule(progress)), expected, atol=2e-6)
        traced = compiled(schedule, np.array(progress, "float32"))
        np.testing.assert_allclose(value(traced), expected, atol=2e-6)
    assert value(schedule(-3.0)) == value(schedule(0.0))
    assert value(schedule(1.5)) == value(schedule(1.0))


def test_schedules_take_other_ends():
    np.testing.assert_allclose(value(uncertainty_threshold(0.5, 1.0, 0.5)), 0.75, rtol=1e-6)
    expected = 0.6 + 0.3 * math.log(2) * math.exp(-0.125)
    np.testing.assert_allclose(value(confidence_threshold(0.5, 0.6, 0.3)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[0, 0], [0, 1]], [0.95 - 0.45 * 0.25, 0.95 - 0.45 * 0.75]),
        ([[1, 1], [1, 1]], [0.5, 0.95]),
        ([[0, 1, 2, 2]], [0.95 - 0.45 * 0.75, 0.95 - 0.45 * 0.75, 0.95 - 0.45 * 0.5]),
    ],
)
def test_class_wise_confidence(labels, expected):
    result = class_wise_confidence(np.array(labels), len(expected))
    np.testing.assert_allclose(ops.convert_to_numpy(result), expected, rtol=1e-6)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_entropy(num_classes):
    p = probabilities(num_classes=num_classes)
    expected = [[entropy_oracle(q) for q in row] for row in p]
    np.testing.assert_allclose(ops.convert_to_numpy(entropy(p)), expected, atol=1e-6)
    uniform = np.full((1, num_classes), 1 / num_classes, "float32")
    np.testing.assert_allclose(ops.convert_to_numpy(entropy(uniform)), math.log(num_classes), rtol=1e-6)


def test_entropy_of_a_sure_prediction_is_0_with_finite_gradient():
    p = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(entropy(p)), 0)
    assert np.all(np.isfinite(gradient(lambda x: ops.sum(entropy(x)), p)))


def keep_oracle(p, progress, selection, combine, uncertainty=None):
    kappa = 0.25 + 0.25 * (math.cos(math.pi * progress) + 1)
    tau = 0.75 + 0.25 * math.exp(-0.5 * (1 - progress) ** 2) * math.log(2)
    labels, weight = np.zeros(p.shape[:-1], int), np.zeros(p.shape[:-1])
    for index in np.ndindex(*p.shape[:-1]):
        labels[index] = int(np.argmax(p[index]))
        u = entropy_oracle(p[index]) if uncertainty is None else uncertainty[index]
        certain, confident = u <= kappa, max(p[index]) >= tau
        weight[index] = {
            "none": True,
            "confidence": confident,
            "uncertainty": certain,
            "dual": (certain and confident) if combine == "all" else (certain or confident),
        }[selection]
    return labels, weight


@pytest.mark.parametrize("combine", ["all", "any"])
@pytest.mark.parametrize("selection", ["none", "confidence", "uncertainty", "dual"])
@pytest.mark.parametrize(("shape", "num_classes"), [((40,), 2), ((2, 5, 4), 3)])
def test_selection_matches_equation_7(shape, num_classes, selection, combine):
    p = probabilities(shape, num_classes)
    other = np.random.default_rng(1).random(shape).astype("float32")
    select = DualThreshold(selection, combine)
    for progress in (0.0, 0.5, 1.0):
        for uncertainty in (None, other):
            result = select(p, progress, uncertainty)
            labels, weight = keep_oracle(p, progress, selection, combine, uncertainty)
            np.testing.assert_array_equal(ops.convert_to_numpy(result.labels), labels)
            np.testing.assert_array_equal(ops.convert_to_numpy(result.weight), weight)
            assert keras.backend.standardize_dtype(result.labels.dtype) == "int32"
            assert keras.backend.standardize_dtype(result.weight.dtype) == "float32"
            np.testing.assert_allclose(value(result.kappa), value(uncertainty_threshold(progress)))
            np.testing.assert_allclose(value(result.tau), value(confidence_threshold(progress)))


def inverse_entropy(kappa):
    """The larger probability of two classes with entropy kappa, by bisection."""
    low, high = 0.5, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy_oracle([middle, 1 - middle]) > kappa else (low, middle)
    return low


def test_two_classes_need_one_threshold_only():
    p = np.linspace(0.501, 0.999, 400)
    p = np.stack([p, 1 - p], axis=-1).astype("float32")
    for progress in (0.0, 0.3, 0.85, 0.86, 1.0):
        result = DualThreshold("dual")(p, progress)
        threshold = max(value(result.tau), inverse_entropy(value(result.kappa)) if value(result.kappa) < 0.693 else 0.5)
        single = DualThreshold("confidence", confidence=threshold)(p, progress)
        np.testing.assert_array_equal(ops.convert_to_numpy(result.weight), ops.convert_to_numpy(single.weight))
    stricter = [inverse_entropy(value(uncertainty_threshold(t))) > value(confidence_threshold(t)) for t in (0.85, 0.86)]
    assert stricter == [False, True]


def test_constant_thresholds():
    p = np.array([[0.9, 0.1], [0.6, 0.4]], "float32")
    result = DualThreshold("dual", confidence=0.8, uncertainty=0.7)(p, 0.5)
    np.testing.assert_array_equal(ops.convert_to_numpy(result.weight), [1, 0])
    np.testing.assert_allclose([value(result.kappa), value(result.tau)], [0.7, 0.8], rtol=1e-6)
    # Entropy of (0.9, 0.1): 0.325
    strict = DualThreshold("dual", confidence=0.8, uncertainty=0.3)(p, 0.5)
    np.testing.assert_array_equal(ops.convert_to_numpy(strict.weight), [0, 0])


def test_release_thresholds():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.39, 0.61]], "float32")
    # Shares 0.75 and 0.25: thresholds 0.8375 and 0.6125.
    select = DualThreshold("confidence", confidence="class_wise", uncertainty="release")
    result = select(p, 0.0)
    np.testing.assert_allclose(ops.convert_to_numpy(result.tau), [0.8375, 0.6125], rtol=1e-6)
    np.testing.assert_allclose(value(result.kappa), 0.521028, atol=2e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(result.weight), [1, 1, 1, 0])
    p[3] = [0.38, 0.62]
    np.testing.assert_array_equal(ops.convert_to_numpy(select(p, 0.0).weight), [1, 1, 1, 1])
    # Entropy of (0.38, 0.62): 0.664, over kappa at the start, under it at the end.
    both = DualThreshold("dual", "all", "class_wise", "release")
    np.testing.assert_array_equal(ops.convert_to_numpy(both(p, 0.0).weight), [1, 1, 1, 0])
    np.testing.assert_array_equal(ops.convert_to_numpy(both(p, 1.0).weight), [1, 1, 1, 1])


def test_no_gradient():
    p = probabilities()
    select = DualThreshold()
    slope = gradient(lambda x: ops.sum(select(x, 0.5).weight * ops.max(select(x, 0.5, x[..., 0]).weight)), p)
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_compared_in_float32(dtype):
    half = ops.cast(probabilities((50,), 3), dtype)
    rounded = ops.convert_to_numpy(ops.cast(half, "float32"))
    result = DualThreshold()(half, ops.cast(0.5, dtype))
    np.testing.assert_array_equal(ops.convert_to_numpy(result.weight), keep_oracle(rounded, 0.5, "dual", "all")[1])
    assert keras.backend.standardize_dtype(entropy(half).dtype) == "float32"


@pytest.mark.parametrize("dynamic_batch", [False, True])
@pytest.mark.parametrize("confidence", ["scheduled", "class_wise", 0.7])
def test_compiled(confidence, dynamic_batch):
    p = probabilities((2, 6), 3)
    select = DualThreshold(confidence=confidence)
    traced = compiled(lambda x: select(x, ops.max(x) * 0 + 0.5), p, dynamic_batch=dynamic_batch)
    for a, b in zip(select(p, 0.5), traced, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-6)


def test_config_round_trip():
    assert_config_round_trip(DualThreshold("uncertainty", "any", 0.9, "release"))
    assert_config_round_trip(DualThreshold("none", "all", "class_wise", 0.4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"selection": "both"}, "`selection` must be one of .*'dual'.* found 'both'"),
        ({"combine": "or"}, "`combine` must be one of 'all', 'any', found 'or'"),
        ({"confidence": "release"}, "`confidence` must be 'scheduled', 'class_wise' or within .* found 'release'"),
        ({"confidence": 1.5}, "`confidence` must be .* found 1.5"),
        (
            {"uncertainty": "class_wise"},
            "`uncertainty` must be 'scheduled', 'release' or a number .* found 'class_wise'",
        ),
        ({"uncertainty": -0.1}, "`uncertainty` must be .* found -0.1"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        DualThreshold(**arguments)


def test_view_uncertainty_and_ramp_by_hand():
    weak, strong = np.array([[0.9, 0.1]], "float32"), np.array([[0.1, 0.9]], "float32")
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(ops.convert_to_numpy(view_uncertainty(weak, strong, "mean")), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(
        ops.convert_to_numpy(view_uncertainty(weak, strong, "disagreement")), np.log(2) - entropy, rtol=1e-5
    )
    np.testing.assert_allclose(float(consistency_ramp(ops.zeros(()))), np.exp(-5), rtol=1e-5)
    assert float(consistency_ramp(ops.ones(()))) == 1.0
