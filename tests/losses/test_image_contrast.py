from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import ImageContrastiveLoss
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, unit, value

MODES = [("count", "pair"), ("weight", "pair"), ("count", "anchor")]


def oracle(embeddings, labels, weights, temperature, normalize="count", weighting="pair"):
    embeddings = np.asarray(embeddings, "float64")
    # (embedding, image) of both views
    views = [(embeddings[view, image], image) for view in range(2) for image in range(len(labels))]
    losses = []
    for i, (v_i, image_i) in enumerate(views):
        denominator = sum(np.exp(v_i @ v_j / temperature) for j, (v_j, _) in enumerate(views) if j != i)
        total, count, weight_sum = 0.0, 0, 0.0
        for p, (v_p, image_p) in enumerate(views):
            if p == i or labels[image_p] != labels[image_i]:
                continue
            pair = -np.log(np.exp(v_i @ v_p / temperature) / denominator)
            if weighting == "anchor":
                weight = weights[image_i]
            else:
                weight = 1.0 if image_p == image_i else weights[image_i] * weights[image_p]
            total += weight * pair
            count += 1
            weight_sum += weight
        losses.append(total / (count if normalize == "count" else weight_sum))
    return np.mean(losses)


def example(images, num_classes, depth=4, seed=0):
    rng = np.random.default_rng(seed)
    embeddings = unit(rng.normal(size=(2, images, depth))).astype("float32")
    labels = rng.integers(0, num_classes, images).astype("int32")
    return embeddings, labels, (rng.random(images) > 0.4).astype("float32")


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize(("normalize", "weighting"), MODES)
@pytest.mark.parametrize(("images", "num_classes"), [(1, 2), (4, 2), (4, 3), (7, 3)])
def test_matches_equations_12_and_13(images, num_classes, normalize, weighting, temperature):
    arrays = example(images, num_classes)
    loss = ImageContrastiveLoss(temperature, normalize, weighting)
    expected = oracle(*arrays, temperature, normalize, weighting)
    np.testing.assert_allclose(value(loss(*arrays)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("normalize", "weighting"), MODES)
def test_gradient(normalize, weighting):
    embeddings, *rest = example(4, 2)
    loss = ImageContrastiveLoss(0.2, normalize, weighting)
    result = gradient(lambda x: loss(x, *rest), embeddings)
    expected = finite_difference(lambda x: oracle(x, *rest, 0.2, normalize, weighting), embeddings)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalize", ["count", "weight"])
def test_without_trusted_labels_only_the_two_views_attract(normalize):
    embeddings, labels, _ = example(4, 2)
    nothing = np.zeros(4, "float32")
    own_label = np.arange(4, dtype="int32")
    loss = ImageContrastiveLoss(normalize="weight")
    by_weight = value(loss(embeddings, labels, nothing))
    by_label = value(ImageContrastiveLoss(normalize=normalize)(embeddings, own_label, nothing))
    np.testing.assert_allclose(by_weight, by_label, rtol=1e-5)


@pytest.mark.parametrize(("normalize", "weighting"), MODES)
@pytest.mark.parametrize("case", ["nothing certain", "one class", "one image", "zero embeddings"])
def test_degenerate_batches_are_finite(case, normalize, weighting):
    embeddings, labels, weights = example(1 if case == "one image" else 4, 2)
    weights = weights * 0 if case == "nothing certain" else weights
    labels = labels * 0 if case == "one class" else labels
    embeddings = embeddings * 0 if case == "zero embeddings" else embeddings
    loss = ImageContrastiveLoss(0.07, normalize, weighting)
    result, slope = value(loss(embeddings, labels, weights)), gradient(lambda x: loss(x, labels, weights), embeddings)
    assert np.isfinite(result) and np.all(np.isfinite(slope))
    if case == "one image" or (case == "nothing certain" and weighting == "anchor"):
        assert result == 0
        np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    embeddings, *rest = example(4, 2)
    half = ops.cast(embeddings, dtype)
    expected = value(ImageContrastiveLoss()(ops.cast(half, "float32"), *rest))
    np.testing.assert_allclose(value(ImageContrastiveLoss()(half, *rest)), expected, rtol=1e-6)


@pytest.mark.parametrize("dynamic_batch", [False, True])
@pytest.mark.parametrize(("normalize", "weighting"), MODES)
def test_compiled(normalize, weighting, dynamic_batch):
    arrays = example(4, 2)
    loss = ImageContrastiveLoss(0.07, normalize, weighting)
    expected = value(loss(*arrays))
    if dynamic_batch:
        # The views first, the images with an unknown number in TensorFlow.
        embeddings = arrays[0].transpose(1, 0, 2)
        function = lambda e, *rest: loss(ops.transpose(e, (1, 0, 2)), *rest)  # noqa: E731
        result = compiled(function, embeddings, *arrays[1:], dynamic_batch=True)
    else:
        result = compiled(loss, *arrays)
    np.testing.assert_allclose(value(result), expected, rtol=1e-5)


def test_config_round_trip():
    assert_config_round_trip(ImageContrastiveLoss(0.2, "weight", "pair", name="i"))
    assert_config_round_trip(ImageContrastiveLoss(0.2, "count", "anchor"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "`temperature` must be positive, found 0.0"),
        ({"normalize": "sum"}, "`normalize` must be 'count' or 'weight', found 'sum'"),
        ({"weighting": "image"}, "`weighting` must be 'pair' or 'anchor', found 'image'"),
        ({"weighting": "anchor", "normalize": "weight"}, "needs normalize='count'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageContrastiveLoss(**arguments)
