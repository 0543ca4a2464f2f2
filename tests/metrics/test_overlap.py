from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.metrics import Dice, IoU
from tests.losses.helpers import assert_config_round_trip, compiled, value


def image_score(metric_class, true, predicted, num_classes, ignore_value=255):
    """Score of one image from sets of pixels; None where all of it is ignored."""
    pixels = [index for index in np.ndindex(*true.shape) if true[index] != ignore_value]
    if not pixels:
        return None
    scores = []
    for k in range(1, num_classes):
        a = {index for index in pixels if true[index] == k}
        b = {index for index in pixels if predicted[index] == k}
        if a | b:
            dice = 2 * len(a & b) / (len(a) + len(b))
            scores.append(dice if metric_class is Dice else len(a & b) / len(a | b))
    return np.mean(scores) if scores else 1.0


def oracle(metric_class, true, probabilities, num_classes, weights=None):
    scores, total = 0.0, 0.0
    for n in range(len(true)):
        score = image_score(metric_class, true[n], probabilities[n].argmax(-1), num_classes)
        if score is not None:
            weight = 1.0 if weights is None else weights[n]
            scores += weight * score
            total += weight
    return scores / total if total else 0.0


def example(images, num_classes, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, num_classes, (images, 4, 5)).astype("uint8")
    true[:, 0, 1] = 255
    return true, rng.random((images, 4, 5, num_classes)).astype("float32"), rng.random(images).astype("float32")


def measure(metric, *batches):
    for batch in batches:
        metric.update_state(*batch)
    return value(metric.result())


@pytest.mark.parametrize("metric_class", [Dice, IoU])
@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_streams_the_mean_over_images(metric_class, num_classes, weighted):
    true, probabilities, weights = example(5, num_classes)
    true[1] = 255
    true[2][true[2] == 1] = 0
    weights = weights if weighted else None
    batches = []
    for part in (slice(0, 3), slice(3, 5)):
        batches.append((true[part], probabilities[part], weights[part] if weighted else None))
    result = measure(metric_class(num_classes), *batches)
    np.testing.assert_allclose(result, oracle(metric_class, true, probabilities, num_classes, weights), rtol=1e-5)


def test_hand_computed():
    true = np.array([[[1, 1, 0, 0]]])
    predicted = np.array([[[0, 1, 1, 0]]])
    probabilities = np.eye(2, dtype="float32")[predicted]
    np.testing.assert_allclose(measure(Dice(), (true, probabilities)), 0.5, rtol=1e-6)
    np.testing.assert_allclose(measure(IoU(), (true, probabilities)), 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("metric_class", [Dice, IoU])
@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [
        ([0, 0, 0], [0, 0, 0], 1.0),  # no lesion, none found
        ([0, 0, 0], [0, 1, 0], 0.0),  # false alarm
        ([1, 0, 0], [0, 0, 0], 0.0),  # missed
        ([1, 0, 0], [1, 0, 0], 1.0),  # classes 2 and 3 are absent and do not count
        ([1, 0, 255], [1, 0, 1], 1.0),  # a false pixel under the ignore value
        ([255, 255, 255], [1, 0, 1], 0.0),  # no image at all
    ],
)
def test_absent_classes_and_ignored_pixels(metric_class, true, predicted, expected):
    probabilities = np.eye(4, dtype="float32")[np.array([[predicted]])]
    assert measure(metric_class(4), (np.array([[true]]), probabilities)) == expected


@pytest.mark.parametrize("metric_class", [Dice, IoU])
def test_an_ignored_image_leaves_the_mean(metric_class):
    true, probabilities, _ = example(3, 2)
    true[1] = 255
    rest = measure(metric_class(), (true[[0, 2]], probabilities[[0, 2]]))
    np.testing.assert_allclose(measure(metric_class(), (true, probabilities)), rest, rtol=1e-6)


@pytest.mark.parametrize("metric_class", [Dice, IoU])
def test_reset(metric_class):
    true, probabilities, _ = example(3, 2)
    metric = metric_class()
    assert value(metric.result()) == 0
    first = measure(metric, (true, probabilities))
    metric.reset_state()
    assert value(metric.result()) == 0
    assert measure(metric, (true, probabilities)) == first


@pytest.mark.parametrize("metric_class", [Dice, IoU])
@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_compiled(metric_class, dynamic_batch):
    true, probabilities, weights = example(3, 3)
    metric = metric_class(3)

    def function(*batch):
        return metric.stateless_result(metric.stateless_update_state([ops.zeros(()), ops.zeros(())], *batch))

    result = compiled(function, true, probabilities, weights, dynamic_batch=dynamic_batch)
    np.testing.assert_allclose(value(result), oracle(metric_class, true, probabilities, 3, weights), rtol=1e-5)


@pytest.mark.parametrize("metric_class", [Dice, IoU])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_predictions(metric_class, dtype):
    true, probabilities, _ = example(2, 2)
    probabilities = np.round(probabilities * 8) / 8  # exact in both types
    half = ops.cast(probabilities, dtype)
    expected = oracle(metric_class, true, probabilities, 2)
    np.testing.assert_allclose(measure(metric_class(), (true, half)), expected, rtol=1e-5)


@pytest.mark.parametrize("metric_class", [Dice, IoU])
def test_config_round_trip(metric_class):
    assert_config_round_trip(metric_class(3, ignore_value=7, name="m"))
    assert metric_class().name == metric_class.__name__.lower()


def test_errors():
    true, probabilities, weights = example(2, 3)
    with pytest.raises(ValueError, match="`num_classes` must be at least 2 .*, found 1"):
        Dice(1)
    with pytest.raises(ValueError, match=r"dice expects .* \(N, H, W, 2\), found \(2, 4, 5\) and \(2, 4, 5, 3\)"):
        Dice(2).update_state(true, probabilities)
    with pytest.raises(ValueError, match=r"one sample_weight an image, shape \(N,\), found \(2, 4, 5\)"):
        Dice(3).update_state(true, probabilities, np.ones(true.shape, "float32"))
