"""Guidance time, spatial concentration and complementary loss against independent NumPy readings (DiffRect)."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import ComplementaryLoss, guidance_time, spatial_concentration
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, softmax, value


def time_by_hand(labels, targets, classes):
    """999 times the mean over the classes of one minus Dice, pixel sets by class."""
    known = (labels != 255) & (targets != 255)
    losses = []
    for c in range(classes):
        ours, theirs = ((each == c) & known for each in (labels, targets))
        losses.append(1 - (2 * (ours & theirs).sum() + 1e-5) / (ours.sum() + theirs.sum() + 1e-5))
    return 999 * np.mean(losses)


def concentration_by_hand(p, inside):
    """Image by image and class by class, with SciPy-free entropies in float64."""
    found = []
    for image, mask in zip(p.astype("float64"), inside, strict=True):
        pixels = image[mask > 0]
        if len(pixels) < 2:
            continue
        for mass in pixels.T:
            q = mass / mass.sum()
            found.append(1 + np.sum(q[q > 0] * np.log(q[q > 0])) / np.log(len(pixels)))
    return np.mean(found) if found else 0.0


def complementary_by_hand(p, other, inside):
    other = other.astype("float64")
    scores = 1 - other[inside > 0]
    least = p[inside > 0].argmin(-1)
    if not len(scores):
        return 0.0
    log_softmax = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    return concentration_by_hand(other, inside) * -np.take_along_axis(log_softmax, least[:, None], -1).mean()


def example(seed, classes=3):
    random = np.random.default_rng(seed)
    p, other = (softmax(random.normal(0, 2, (3, 4, 5, classes))).astype("float32") for _ in range(2))
    inside = (random.uniform(size=(3, 4, 5)) < 0.7).astype("float32")
    inside[1] = 0
    inside[1, 0, 0] = seed % 2  # an image of one pixel or of none
    return p, other, inside


def test_the_times_of_the_specification():
    labels, targets = np.array([[[0, 0, 1, 1]]]), np.array([[[0, 1, 1, 1]]])
    assert value(guidance_time(labels, targets, 2)) == pytest.approx(266.399, abs=1e-3)
    assert value(guidance_time(labels, labels, 2)) == 0.0


@pytest.mark.parametrize("classes", [2, 4])
def test_times_of_random_labels(classes):
    random = np.random.default_rng(classes)
    for share in (0.0, 0.3, 1.0):
        labels, targets = (random.integers(0, classes, (2, 6, 7)) for _ in range(2))
        for each in (labels, targets):
            each[random.uniform(size=each.shape) < share] = 255
        found = compiled(lambda a, b: guidance_time(a, b, classes), labels, targets)
        assert value(found) == pytest.approx(time_by_hand(labels, targets, classes), rel=1e-5, abs=1e-9)
        assert (value(found) == 0) == (share == 1.0)


def test_the_complementary_numbers_of_the_specification():
    other = np.array([[[[0.8, 0.2], [0.6, 0.4]]]])
    p = np.array([[[[0.9, 0.1], [0.7, 0.3]]]])
    a, q = value(spatial_concentration(other)), value(ComplementaryLoss()(p, other))
    assert a == pytest.approx(0.048238, abs=2e-6) and q / a == pytest.approx(0.517813, abs=1e-5)
    assert q == pytest.approx(0.024978, abs=1e-6) and a * q == pytest.approx(0.0012049, abs=1e-7)
    other = np.array([[[[1.0, 0.0], [0.0, 1.0]]]])
    p = np.array([[[[0.1, 0.9], [0.7, 0.3]]]])  # least probable: 0, then 1
    assert value(spatial_concentration(other)) == pytest.approx(1, abs=1e-6)
    assert value(ComplementaryLoss()(1 - p, other)) == pytest.approx(np.log(1 + 1 / np.e), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [2, 5])
def test_random_predictions(seed, classes):
    p, other, inside = example(seed, classes)
    found = compiled(spatial_concentration, other, inside)
    np.testing.assert_allclose(value(found), concentration_by_hand(other, inside), rtol=1e-4)
    assert 0.01 < value(found) < 1
    found = compiled(ComplementaryLoss(), p, other, inside)
    np.testing.assert_allclose(value(found), complementary_by_hand(p, other, inside), rtol=1e-4)
    everywhere = np.ones_like(inside)
    np.testing.assert_allclose(value(ComplementaryLoss()(p, other)), complementary_by_hand(p, other, everywhere), 1e-4)


def test_pixels_that_do_not_count_leave_no_trace():
    p, other, _ = example(0)
    inside = np.ones((3, 4, 5), "float32")
    inside[:, 2:] = 0
    for function in (spatial_concentration, lambda x, mask=None: ComplementaryLoss()(p[:, : x.shape[1]], x, mask)):
        assert value(function(other, inside)) == pytest.approx(value(function(other[:, :2])), rel=1e-5)
        slope = gradient(lambda x, f=function: f(x, inside), other)
        assert np.abs(slope[:, :2]).min() > 0 and not slope[:, 2:].any()


def test_slopes_are_the_other_prediction_s_alone():
    p, other, inside = example(1)
    wanted = finite_difference(lambda x: concentration_by_hand(x, inside), other, 1e-6)
    np.testing.assert_allclose(gradient(lambda x: spatial_concentration(x, inside), other), wanted, atol=1e-5)
    wanted = finite_difference(lambda x: complementary_by_hand(p, x, inside), other, 1e-6)
    found = gradient(lambda x: ComplementaryLoss()(p, x, inside), other)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(wanted).max() > 0.01
    assert not gradient(lambda x: ComplementaryLoss()(x, other, inside), p).any()
    assert not gradient(lambda x: spatial_concentration(other, x), inside).any()


@pytest.mark.parametrize("case", ["nothing", "single pixels", "certain", "half"])
def test_degenerate_predictions_are_finite(case):
    p, other, inside = example(2)
    if case in ("nothing", "single pixels"):
        inside[:] = 0
        inside[:, 1, 1] = case == "single pixels"
    if case == "certain":
        other = np.eye(3, dtype="float32")[np.zeros((3, 4, 5), int)]  # two classes are nowhere
    if case == "half":
        other = other.astype("float16")
    found = [value(spatial_concentration(other, inside)), value(ComplementaryLoss()(p, other, inside))]
    slopes = gradient(lambda x: ComplementaryLoss()(p, x, inside), other)
    assert np.isfinite(found).all() and np.isfinite(slopes).all()
    if case in ("nothing", "single pixels"):
        assert found == [0.0, 0.0] and not slopes.any()


@pytest.mark.parametrize("distance", [40, 60, 90, 100, 120])
def test_a_class_that_is_nowhere_nearly_has_its_place_and_a_finite_slope(distance):
    random = np.random.default_rng(3)
    scores = random.normal(size=(2, 5, 6, 2)).astype("float32")
    inside = np.ones((2, 5, 6), "float32")
    far = scores - np.array([0, distance], "float32")
    slope = gradient(lambda x: spatial_concentration(ops.softmax(x), inside), far)
    assert np.isfinite(slope).all()
    if distance < 80:  # above, float32 has no such probabilities
        expected = concentration_by_hand(softmax(far.astype("float64")), inside)
        assert value(spatial_concentration(ops.softmax(far), inside)) == pytest.approx(expected, rel=1e-4)
        wanted = finite_difference(lambda x: concentration_by_hand(softmax(x), inside), far, 1e-5)
        np.testing.assert_allclose(slope, wanted, atol=1e-6)
        assert np.abs(wanted).max() > 1e-3


def test_certain_predictions_of_one_pixel_a_class_are_concentrated():
    p = np.eye(3, dtype="float32")[np.arange(3)].reshape(1, 1, 3, 3)
    assert value(spatial_concentration(p)) == pytest.approx(1)
    assert value(spatial_concentration(np.full((1, 3, 3, 3), 1 / 3, "float32"))) == pytest.approx(0, abs=1e-6)


def test_maps_that_do_not_fit_are_named():
    p = np.full((2, 4, 5, 3), 1 / 3, "float32")
    with pytest.raises(ValueError, match=r"`other` must be of the shape of `probabilities` \(2, 4, 5, 3\), found"):
        ComplementaryLoss()(p, p[:1])
    with pytest.raises(ValueError, match=r"`targets` must be of the shape of `labels` \(2, 4\), found \(1, 4\)"):
        guidance_time(np.zeros((2, 4), "int32"), np.zeros((1, 4), "int32"), 3)


def test_config_round_trip():
    assert_config_round_trip(ComplementaryLoss(name="other"))
    assert value(ops.convert_to_tensor(ComplementaryLoss()(*example(3)))) > 0
