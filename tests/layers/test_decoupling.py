"""DCNet's decoupling of two predictions, pixel by pixel and class by class, and the cross supervision on its fields."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import Decoupled, decouple
from keras_semimed.losses import CrossPseudoSupervision
from tests.gradients import gradient
from tests.losses.helpers import compiled, finite_difference, softmax, value


def by_hand(z1, z2, threshold, inside=None, saturation=0.95):
    """The fields of `Decoupled`, in float64 but for the labels."""
    z1, z2 = (np.asarray(z, "float64") for z in (z1, z2))
    p1, p2 = softmax(z1), softmax(z2)
    inside = np.ones(z1.shape[:-1]) if inside is None else inside
    means = [(p.max(-1) * inside).sum() / max(inside.sum(), 1) for p in (p1, p2)]
    consistent, guide_1, guide_2, u1, u2 = np.zeros((5, *z1.shape))
    labels_1, labels_2 = np.zeros((2, *z1.shape[:-1]), "int32")
    for pixel in np.ndindex(*z1.shape[:-1]):
        best = [(0.0, 0), (0.0, 0)]
        for k in range(z1.shape[-1]):
            first, second = p1[pixel][k], p2[pixel][k]
            if first > threshold and second > threshold:
                consistent[pixel][k] = 1
                u1[pixel][k], u2[pixel][k] = z1[pixel][k], z2[pixel][k]
                best = [max(old, (p, k), key=lambda x: x[0]) for old, p in zip(best, (first, second), strict=True)]
            elif first > second:
                guide_1[pixel][k] = 1
            elif second > first:
                guide_2[pixel][k] = 1
        labels_1[pixel], labels_2[pixel] = (k for _, k in best)
    if min(means) >= saturation:
        u1, u2, labels_1, labels_2 = z1, z2, p1.argmax(-1), p2.argmax(-1)
    return Decoupled(consistent, u1, u2, guide_1, guide_2, labels_1, labels_2, min(means))


def cross_by_hand(parts, inside=None):
    inside = np.ones(parts.labels_1.shape) if inside is None else inside
    total = 0.0
    for pixel in np.argwhere(inside > 0):
        n, i, j = pixel
        total -= np.log(softmax(parts.logits_1[n, i, j])[parts.labels_2[n, i, j]])
        total -= np.log(softmax(parts.logits_2[n, i, j])[parts.labels_1[n, i, j]])
    return total / max(inside.sum(), 1)


def cross(parts, inside=None):
    return CrossPseudoSupervision()(parts.logits_1, parts.logits_2, inside, parts.labels_1, parts.labels_2)


def example(classes=3, seed=0, scale=1.5):
    """Decoders that agree on most."""
    random = np.random.default_rng(seed)
    z1 = random.normal(0, scale, (3, 4, 5, classes))
    z2 = z1 + random.normal(0, 0.4 * scale, z1.shape)
    inside = (random.uniform(size=z1.shape[:-1]) < 0.7).astype("float32")
    return z1.astype("float32"), z2.astype("float32"), inside


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("classes", "threshold", "saturation"),
    [(2, 0.6, 0.95), (3, 0.3, 0.95), (5, 0.25, 0.95), (4, 0.3, 0.3), (3, 0.9, 2)],
)
def test_fields_and_cross_supervision(classes, threshold, saturation, masked):
    z1, z2, inside = example(classes, classes)
    inside = inside if masked else None
    found = decouple(z1, z2, threshold, inside, saturation)
    expected = by_hand(z1, z2, threshold, inside, saturation)
    for name, ours, theirs in zip(Decoupled._fields, found, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(ours), theirs, rtol=1e-5, atol=1e-6, err_msg=name)
    passing = expected.consistent.sum(-1)
    assert 0 < passing.mean() < classes and (classes == 2 or saturation == 2 or passing.max() > 1)
    np.testing.assert_allclose(value(cross(found, inside)), cross_by_hand(expected, inside), rtol=1e-5)


def test_the_numbers_of_the_specification():
    z1, z2 = np.float32([[[[0, 2]]]]), np.float32([[[[0.5, 2.5]]]])
    parts = decouple(z1, z2, 0.7)
    np.testing.assert_array_equal(ops.convert_to_numpy(parts.consistent), [[[[0, 1]]]])
    assert int(parts.labels_1[0, 0, 0]) == int(parts.labels_2[0, 0, 0]) == 1
    np.testing.assert_allclose(value(parts.confidence), 0.880797, rtol=1e-5)
    np.testing.assert_allclose(value(cross(parts)), 0.205818, rtol=1e-5)
    parts = decouple(z1, z2, 0.9)
    np.testing.assert_allclose(value(cross(parts)), 2 * np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(gradient(lambda z: cross(decouple(z, z2, 0.9)), z1), 0)
    np.testing.assert_array_equal(gradient(lambda z: cross(decouple(z1, z, 0.9)), z2), 0)
    np.testing.assert_allclose(value(cross(decouple(z1, z2, 0.9, saturation=0.5))), 2 * 0.126928, rtol=1e-5)


def test_of_two_classes_the_other_one_of_a_consistent_pixel_is_in_the_rest():
    """And where none passes, the two guide in opposite directions."""
    z1, z2, _ = example(2, 7)
    c, *_, guide_1, guide_2 = (ops.convert_to_numpy(each) for each in decouple(z1, z2, 0.7)[:5])
    assert c.sum(-1).max() == 1
    np.testing.assert_array_equal(c + guide_1 + guide_2, 1)
    nothing = c.sum(-1) == 0
    assert nothing.any()
    np.testing.assert_array_equal(guide_1[nothing][:, 0], guide_2[nothing][:, 1])


def test_a_probability_at_the_threshold_does_not_pass_and_equal_ones_guide_nobody():
    z = np.zeros((1, 1, 1, 4), "float32")
    parts = decouple(z, z, 0.25)
    for field in ("consistent", "guide_1", "guide_2", "labels_1", "labels_2"):
        np.testing.assert_array_equal(ops.convert_to_numpy(getattr(parts, field)), 0)
    np.testing.assert_allclose(value(cross(parts)), 2 * np.log(4), rtol=1e-6)


@pytest.mark.parametrize("saturation", [0.95, 0.3])
def test_gradient_flows_into_the_logits_alone(saturation):
    z1, z2, inside = example(3, 4)
    fixed = by_hand(z1, z2, 0.4, inside, saturation)
    shown = np.ones(z1.shape) if saturation == 0.3 else fixed.consistent

    def moved(z, name):
        return cross_by_hand(fixed._replace(**{name: np.where(shown > 0, z, 0)}), inside)

    for name, z, function in (
        ("logits_1", z1, lambda z: cross(decouple(z, z2, 0.4, inside, saturation), inside)),
        ("logits_2", z2, lambda z: cross(decouple(z1, z, 0.4, inside, saturation), inside)),
    ):
        found = gradient(function, z)
        np.testing.assert_allclose(found, finite_difference(lambda z, name=name: moved(z, name), z), atol=1e-6)
        assert np.abs(found).max() > 1e-3 and not found[inside == 0].any()

    def others(z):
        parts = decouple(z, z, ops.max(z), ops.square(z[..., 0]))
        return sum(ops.sum(part) for part in (parts.consistent, parts.guide_1, parts.guide_2, parts.confidence))

    np.testing.assert_array_equal(gradient(others, z1), 0)


def test_what_is_taught_is_kept_where_a_class_passes():
    z1, z2, inside = example(4, 5)
    expected = by_hand(z1, z2, 0.3, inside)
    found = decouple(z1, z2, 0.3, inside).taught(z2, inside)
    labels, confidence, kept, area, p = (ops.convert_to_numpy(each) for each in found)
    np.testing.assert_array_equal(labels, expected.labels_2)
    np.testing.assert_allclose(p, softmax(z2.astype("float64")), rtol=1e-5)
    np.testing.assert_allclose(confidence, np.take_along_axis(p, labels[..., None], -1)[..., 0])
    np.testing.assert_array_equal(kept, inside * (expected.consistent.max(-1) > 0))
    np.testing.assert_array_equal(area, inside)
    assert 0 < kept.sum() < inside.sum()
    everywhere = decouple(z1, z2, 0.3, inside, 0.2).taught(z2, inside, 0.2)
    np.testing.assert_array_equal(ops.convert_to_numpy(everywhere.kept), inside)


def test_the_truth_of_the_last_images_stands_in_for_both_decoders():
    z1, z2, inside = example(3, 6)
    parts = decouple(z1, z2, 0.5, inside)
    truth = np.random.default_rng(0).integers(0, 3, (2, 4, 5))
    truth[0, 0] = 255
    found = parts.with_truth(z1, z2, truth)
    for name, expected in (("logits_1", z1), ("logits_2", z2), ("labels_1", truth), ("labels_2", truth)):
        ours, old = (ops.convert_to_numpy(getattr(each, name)) for each in (found, parts))
        np.testing.assert_array_equal(ours[1:], expected[-2:])
        np.testing.assert_array_equal(ours[:1], old[:1])
    for name in ("consistent", "guide_1", "guide_2", "confidence"):
        assert getattr(found, name) is getattr(parts, name)


def test_nothing_inside_and_extreme_logits_stay_finite():
    z1, z2, inside = example()
    parts = decouple(z1, z2, 0.5, 0 * inside)
    assert value(parts.confidence) == 0 and value(cross(parts, 0 * inside)) == 0
    np.testing.assert_array_equal(gradient(lambda z: cross(decouple(z, z2, 0.5, 0 * inside), 0 * inside), z1), 0)
    for scale in (1e4, 1e30):
        assert np.isfinite(gradient(lambda z, scale=scale: cross(decouple(z, scale * z2, 0.5)), scale * z1)).all()


def test_half_precision_is_computed_in_float32():
    halves = [ops.cast(z, "bfloat16") for z in example(3, 8)[:2]]
    rounded = [ops.convert_to_numpy(ops.cast(z, "float32")) for z in halves]
    for ours, theirs in zip(decouple(*halves, 0.4), by_hand(*rounded, 0.4), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(ours), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_compiled(dynamic_batch):
    z1, z2, inside = example(3, 9)

    def loss(z1, z2, inside):
        return cross(decouple(z1, z2, 0.4, inside), inside)

    found = compiled(loss, z1, z2, inside, dynamic_batch=dynamic_batch)
    np.testing.assert_allclose(value(found), cross_by_hand(by_hand(z1, z2, 0.4, inside), inside), rtol=1e-5)


def test_errors():
    z = np.zeros((2, 3, 3, 4), "float32")
    with pytest.raises(ValueError, match=r"`logits_1` must be \(N, H, W, K\), found \(3, 3, 4\)"):
        decouple(z[0], z, 0.5)
    for other in (z[0], z[..., :2], z[:1]):
        with pytest.raises(ValueError, match="`logits_2` must be of the shape of `logits_1` .*, found"):
            decouple(z, other, 0.5)
