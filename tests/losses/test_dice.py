from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import DiceLoss, SegmentationLoss
from tests.gradients import gradient
from tests.losses import test_cross_entropy
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, softmax, value


def oracle(labels, probabilities, weights=None, smooth=1e-5, per_image=False, ignore_value=255, first=1):
    probabilities = np.asarray(probabilities, "float64")
    images, height, width, num_classes = probabilities.shape
    pools = [[n] for n in range(images)] if per_image else [list(range(images))]
    losses = []
    for pool in pools:
        for k in range(first, num_classes):
            overlap, size = 0.0, 0.0
            for n in pool:
                for row in range(height):
                    for column in range(width):
                        label = labels[n, row, column]
                        if label == ignore_value:
                            continue
                        w = 1.0 if weights is None else float(weights[n, row, column])
                        p, y = probabilities[n, row, column, k], float(label == k)
                        overlap += w * p * y
                        size += w * p * p + w * y * y
            losses.append(1 - (2 * overlap + smooth) / (size + smooth))
    return np.mean(losses)


def example(shape, num_classes, seed=0):
    labels, logits, weights = test_cross_entropy.example(shape, num_classes, seed)
    return labels, softmax(logits), weights


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("shape", "num_classes"), [((1, 2, 3), 2), ((3, 4, 4), 2), ((2, 5, 3), 3)])
def test_matches_the_sums(shape, num_classes, weighted, per_image):
    labels, probabilities, weights = example(shape, num_classes)
    weights = weights if weighted else None
    result = value(DiceLoss(per_image=per_image)(labels, probabilities, weights))
    np.testing.assert_allclose(result, oracle(labels, probabilities, weights, per_image=per_image), atol=1e-6)


@pytest.mark.parametrize("per_image", [False, True])
def test_gradient(per_image):
    labels, probabilities, weights = example((2, 2, 3), 3)
    loss = DiceLoss(smooth=0.1, per_image=per_image)
    result = gradient(lambda p: loss(labels, p, weights), probabilities)
    expected = finite_difference(lambda p: oracle(labels, p, weights, 0.1, per_image), probabilities)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_hand_computed():
    labels = np.array([[[1, 0]]])
    probabilities = np.array([[[[0.5, 0.5], [0.5, 0.5]]]], "float32")
    # 1 - 2 * 0.5 / (0.25 + 0.25 + 1)
    np.testing.assert_allclose(value(DiceLoss(smooth=1e-9)(labels, probabilities)), 1 / 3, rtol=1e-5)


def test_pooling_forgives_an_empty_image_and_per_image_does_not():
    labels = np.zeros((2, 2, 2), int)
    labels[0] = 1
    probabilities = np.zeros((2, 2, 2, 2), "float32")
    probabilities[0, ..., 1] = 1
    probabilities[1, 0, 0, 1] = 0.1
    assert value(DiceLoss()(labels, probabilities)) < 0.01
    assert value(DiceLoss(per_image=True)(labels, probabilities)) > 0.49


@pytest.mark.parametrize("per_image", [False, True])
def test_pixels_of_weight_0_and_ignored_pixels_leave_both_sums(per_image):
    labels, probabilities, _ = example((2, 3, 4), 3)
    loss = DiceLoss(per_image=per_image)
    kept = (labels != 255) & (np.arange(labels.size).reshape(labels.shape) % 3 > 0)
    by_weight = value(loss(labels, probabilities, kept.astype("float32")))
    by_label = value(loss(np.where(kept, labels, 255), probabilities))
    np.testing.assert_allclose(by_weight, by_label, atol=1e-7)
    changed = np.where(kept[..., None], probabilities, 1 - probabilities)
    np.testing.assert_allclose(value(loss(labels, changed, kept.astype("float32"))), by_weight, atol=1e-7)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("case", ["all ignored", "all weights 0"])
def test_nothing_counts(case, per_image):
    labels, probabilities, weights = example((2, 3, 3), 2)
    labels = np.full_like(labels, 255) if case == "all ignored" else labels
    weights = np.zeros_like(weights) if case == "all weights 0" else weights
    loss = DiceLoss(per_image=per_image)
    assert value(loss(labels, probabilities, weights)) == 0
    np.testing.assert_array_equal(gradient(lambda p: loss(labels, p, weights), probabilities), 0)


def test_background_only_is_finite():
    labels, probabilities, _ = example((2, 3, 3), 2)
    result = gradient(lambda p: DiceLoss()(np.zeros_like(labels), p), probabilities)
    assert np.all(np.isfinite(result))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    labels, probabilities, _ = example((2, 64, 64), 2)
    half = ops.cast(probabilities, dtype)
    rounded = ops.convert_to_numpy(ops.cast(half, "float32"))
    np.testing.assert_allclose(value(DiceLoss()(labels, half)), oracle(labels, rounded), atol=1e-5)


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_compiled(dynamic_batch):
    arrays = example((2, 3, 3), 2)
    arrays = tuple(a.astype("float32") if a.dtype == "float64" else a for a in arrays)
    result = compiled(DiceLoss(), *arrays, dynamic_batch=dynamic_batch)
    np.testing.assert_allclose(value(result), oracle(*arrays), atol=1e-6)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_classes", [2, 4])
def test_background_included(num_classes, weighted, per_image):
    labels, probabilities, weights = example((2, 3, 4), num_classes)
    weights = weights if weighted else None
    loss = DiceLoss(per_image=per_image, include_background=True)
    expected = oracle(labels, probabilities, weights, per_image=per_image, first=0)
    np.testing.assert_allclose(value(loss(labels, probabilities, weights)), expected, atol=1e-6)
    result = gradient(lambda p: loss(labels, p, weights), probabilities)
    expected = finite_difference(lambda p: oracle(labels, p, weights, per_image=per_image, first=0), probabilities)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_background_included_by_hand():
    labels = np.array([[[0, 1]]])
    probabilities = np.array([[[[0.8, 0.2], [0.4, 0.6]]]], "float32")
    found = value(DiceLoss(include_background=True)(labels, probabilities))
    np.testing.assert_allclose(found, ((1 - 1.6 / 1.8) + (1 - 1.2 / 1.4)) / 2, atol=2e-5)
    first, second = (np.eye(2, dtype="float32")[np.array([[maps]])] for maps in ((0, 0, 1, 1), (0, 1, 1, 1)))
    np.testing.assert_allclose(value(DiceLoss(include_background=True)(first, second)), 0.266666, atol=1e-5)
    absent = np.full((1, 1, 2, 4), [1 - 3e-2, 1e-2, 1e-2, 1e-2], "float32")  # three of four classes without a pixel
    found = value(DiceLoss(include_background=True)(np.zeros((1, 1, 2), int), absent))
    np.testing.assert_allclose(found, oracle(np.zeros((1, 1, 2), int), absent, first=0), atol=1e-5)


@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("per_image", [False, True])
def test_soft_targets(per_image, include_background):
    _, probabilities, weights = example((2, 3, 4), 3)
    targets = example((2, 3, 4), 3, seed=1)[1]
    first = 0 if include_background else 1
    p, y, w = (x.astype("float64") for x in (probabilities, targets, weights))
    p, y, w = p[..., first:], y[..., first:], w[..., None]

    def by_hand(p):
        axes = (1, 2) if per_image else (0, 1, 2)
        return (1 - (2 * (w * p * y).sum(axes) + 0.1) / ((w * p * p).sum(axes) + (w * y * y).sum(axes) + 0.1)).mean()

    loss = DiceLoss(smooth=0.1, per_image=per_image, include_background=include_background)
    np.testing.assert_allclose(value(loss(targets, probabilities, weights)), by_hand(p), atol=1e-6)
    result = gradient(lambda x: loss(targets, x, weights), probabilities)
    np.testing.assert_allclose(result[..., first:], finite_difference(by_hand, p), atol=1e-5)
    np.testing.assert_array_equal(gradient(lambda y: loss(y, probabilities, weights), targets), 0)
    np.testing.assert_array_equal(gradient(lambda w: loss(targets, probabilities, w), weights), 0)
    nothing = np.zeros_like(weights)
    assert value(loss(targets, probabilities, nothing)) == 0
    np.testing.assert_array_equal(gradient(lambda x: loss(targets, x, nothing), probabilities), 0)


def test_one_hot_targets_are_hard_labels():
    labels, probabilities, weights = example((2, 3, 4), 3)
    labels, weights = labels % 3, np.where(labels == 255, 0, weights).astype("float32")
    one_hot = np.eye(3, dtype="float32")[labels]
    for include_background in (False, True):
        loss = DiceLoss(include_background=include_background)
        hard = value(loss(labels, probabilities, weights))
        np.testing.assert_allclose(value(loss(one_hot, probabilities, weights)), hard, rtol=1e-6)


def segmentation_oracle(labels, logits, per_image=False, first=1):
    cross_entropy = test_cross_entropy.oracle(labels, logits)
    return (
        cross_entropy + oracle(labels, softmax(np.asarray(logits, "float64")), None, 1e-5, per_image, 255, first)
    ) / 2


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_segmentation_loss_is_half_of_both(num_classes, per_image):
    labels, logits, _ = test_cross_entropy.example((2, 3, 3), num_classes)
    loss = SegmentationLoss(per_image=per_image)
    np.testing.assert_allclose(value(loss(labels, logits)), segmentation_oracle(labels, logits, per_image), rtol=1e-5)
    expected = finite_difference(lambda x: segmentation_oracle(labels, x, per_image), logits)
    np.testing.assert_allclose(gradient(lambda x: loss(labels, x), logits), expected, atol=1e-5)
    np.testing.assert_allclose(value(compiled(loss, labels, logits)), value(loss(labels, logits)), rtol=1e-6)


def test_segmentation_loss_with_the_background():
    labels, logits, _ = test_cross_entropy.example((2, 3, 3), 4)
    loss = SegmentationLoss(include_background=True)
    np.testing.assert_allclose(value(loss(labels, logits)), segmentation_oracle(labels, logits, first=0), rtol=1e-5)
    expected = finite_difference(lambda x: segmentation_oracle(labels, x, first=0), logits)
    np.testing.assert_allclose(gradient(lambda x: loss(labels, x), logits), expected, atol=1e-5)


def test_segmentation_loss_with_everything_ignored():
    labels, logits, _ = test_cross_entropy.example((2, 3, 3), 2)
    labels = np.full_like(labels, 255)
    assert value(SegmentationLoss()(labels, ops.cast(logits, "bfloat16"))) == 0
    np.testing.assert_array_equal(gradient(lambda x: SegmentationLoss()(labels, x), logits), 0)


def test_config_round_trip():
    assert_config_round_trip(DiceLoss(smooth=0.5, per_image=True, ignore_value=7, include_background=True, name="d"))
    assert_config_round_trip(
        SegmentationLoss(smooth=0.5, per_image=True, ignore_value=7, include_background=True, name="s")
    )


def test_errors():
    with pytest.raises(ValueError, match="`smooth` must be positive .*, found 0"):
        DiceLoss(smooth=0)
    with pytest.raises(ValueError, match="K >= 2 classes .* found K = 1"):
        DiceLoss()(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2, 1), "float32"))
    with pytest.raises(ValueError, match="soft labels must have the K = 3 classes .* found 2"):
        DiceLoss()(np.zeros((1, 2, 2, 2), "float32"), np.zeros((1, 2, 2, 3), "float32"))
