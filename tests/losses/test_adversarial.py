"""The smoothness of SS-Net against an independent NumPy reading: distance, direction, lengths."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import AdversarialSmoothness, unit_per_image
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, softmax, value


def distance(a, b, inside=None, smooth=1e-10):
    """D, class by class."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    inside = np.ones(a.shape[:-1]) if inside is None else inside
    parts = []
    for k in range(a.shape[-1]):
        overlap, own, other = (sum(inside[inside > 0] * x[..., k][inside > 0]) for x in (a * b, a * a, b * b))
        parts.append(1 - (2 * overlap + smooth) / (own + other + smooth))
    return sum(parts) / len(parts)


def lengths(values):
    return np.sqrt((np.asarray(values, "float64").reshape(len(values), -1) ** 2).sum(1))


def perturbation_by_hand(kernel, images, clean, noise, epsilon, xi, iterations=1, inside=None):
    """Of the prediction softmax(x kernel), with slopes by finite differences."""
    shape = (-1, *[1] * (images.ndim - 1))
    d = noise / lengths(noise).reshape(shape)
    for _ in range(iterations):
        slope = finite_difference(lambda d: distance(softmax((images + xi * d) @ kernel), clean, inside), d, 1e-6)
        d = slope / lengths(slope).reshape(shape)
    return epsilon * d


def example(seed=0, classes=3, channels=2, size=3):
    random = np.random.default_rng(seed)
    images = random.normal(0, 2, (2, size, size, channels)).astype("float32")
    kernel = random.normal(size=(channels, classes)).astype("float32")
    noise = random.uniform(-0.5, 0.5, images.shape).astype("float32")
    inside = (random.uniform(size=images.shape[:3]) < 0.7).astype("float32")
    return images, kernel, softmax(images @ kernel).astype("float32"), noise, inside


@pytest.mark.parametrize(("b", "expected"), [([[0.5, 0.5], [0.5, 0.5]], 1 / 3), ([[1, 0], [0, 1]], 0)])
def test_distances_of_the_specification(b, expected):
    a, b = (np.array(x, "float32").reshape(1, 1, 2, 2) for x in ([[1, 0], [0, 1]], b))
    assert value(AdversarialSmoothness()(a, b)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("smooth", [1e-10, 0.3])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_distance_and_slope(classes, padded, smooth):
    random = np.random.default_rng(classes)
    a, b = softmax(random.normal(0, 2, (2, 2, 3, 4, classes))).astype("float32")
    inside = (random.uniform(size=a.shape[:3]) < 0.6).astype("float32") if padded else None
    loss = AdversarialSmoothness(smooth=smooth)
    expected = distance(a, b, inside, smooth)
    given = (a, b) if inside is None else (a, b, inside)
    assert value(compiled(loss, *given)) == pytest.approx(expected, rel=1e-4) and expected > 0.02
    slope = gradient(lambda x: loss(x, b, inside), a)
    np.testing.assert_allclose(slope, finite_difference(lambda x: distance(x, b, inside, smooth), a), atol=1e-5)
    assert np.abs(slope).max() > 0.01
    assert not gradient(lambda x: loss(a, x, inside), b).any()
    assert value(loss(b, b, inside)) == pytest.approx(0, abs=1e-6)


def test_nothing_inside():
    _, _, clean, _, inside = example()
    other = np.ascontiguousarray(clean[::-1])
    loss = AdversarialSmoothness()
    assert value(loss(other, clean, 0 * inside)) == 0
    assert not gradient(lambda x: loss(x, clean, 0 * inside), other).any()


def test_unit_length_is_that_of_an_image():
    g = np.array([[[[3.0, 4.0]]], [[[0.0, 0.0]]], [[[-0.5, 0.0]]]], "float32")
    found = 6 * ops.convert_to_numpy(unit_per_image(g))
    np.testing.assert_allclose(found[:, 0, 0], [[3.6, 4.8], [0, 0], [-6, 0]], rtol=1e-6)
    random = np.random.default_rng(0).normal(size=(3, 4, 5, 2))
    found = ops.convert_to_numpy(unit_per_image(random))
    np.testing.assert_allclose(found, random / lengths(random)[:, None, None, None], rtol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("iterations", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_direction(seed, iterations, padded):
    images, kernel, clean, noise, inside = example(seed)
    inside = inside if padded else None
    loss = AdversarialSmoothness(2.0, 3.0, iterations)

    def found(images, kernel, clean, noise):
        return loss.perturbation(lambda x: ops.softmax(ops.matmul(x, kernel)), images, clean, noise, inside)

    result = ops.convert_to_numpy(compiled(found, images, kernel, clean, noise))
    expected = perturbation_by_hand(kernel, images, clean, noise, 2.0, 3.0, iterations, inside)
    np.testing.assert_allclose(result, expected, atol=5e-3)
    np.testing.assert_allclose(lengths(result), 2, rtol=1e-5)
    scaled = ops.convert_to_numpy(found(images, kernel, clean, 100 * noise))
    np.testing.assert_allclose(scaled, result, atol=1e-4)  # the noise may have any length


def test_a_random_perturbation_of_the_length_changes_the_prediction_less():
    images, kernel, clean, noise, _ = example(3, size=6)
    loss = AdversarialSmoothness(1.0, 1.5)

    def predict(x):
        return ops.softmax(ops.matmul(x, kernel))

    worst = loss.perturbation(predict, images, clean, noise)
    changes = []
    for seed in range(5):
        random = np.random.default_rng(seed).normal(size=images.shape)
        changes.append(
            value(loss(predict((images + random / lengths(random)[:, None, None, None]).astype("float32")), clean))
        )
    assert value(loss(predict(images + ops.convert_to_numpy(worst)), clean)) > 2 * max(changes)


def test_default_lengths():
    images = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    clean = softmax(images[..., :2] / 100).astype("float32")
    seen = []

    def predict(x):
        seen.append(ops.convert_to_numpy(ops.stop_gradient(x)))
        return ops.softmax(x[..., :2] / 100)

    found = AdversarialSmoothness().perturbation(predict, images, clean, images - 128)
    assert lengths(ops.convert_to_numpy(found))[0] / 255 == pytest.approx(9.0933, abs=1e-3)
    step = seen[0] - images
    assert lengths(step)[0] / 255 == pytest.approx(15.1555, abs=1e-3)
    np.testing.assert_allclose(step / step[0, 0, 0, 0], (images - 128) / (images - 128)[0, 0, 0, 0], atol=1e-4)


def test_no_gradient_flows_through_the_perturbation():
    images, kernel, clean, noise, _ = example()
    loss = AdversarialSmoothness(2.0, 3.0)

    def total(images=images, kernel=kernel, clean=clean, noise=noise):
        added = loss.perturbation(lambda x: ops.softmax(ops.matmul(x, kernel)), images, clean, noise)
        return ops.sum(added * np.arange(added.shape[-1], dtype="float32"))

    for name, given in (("images", images), ("kernel", kernel), ("clean", clean), ("noise", noise)):
        assert not gradient(lambda x, name=name: total(**{name: x}), given).any(), name


def test_a_prediction_that_does_not_move_gets_no_perturbation():
    images, _, clean, noise, inside = example()
    loss = AdversarialSmoothness()
    constant = ops.convert_to_tensor(clean)
    assert not ops.convert_to_numpy(loss.perturbation(lambda x: constant + 0 * ops.sum(x), images, clean, noise)).any()
    found = loss.perturbation(lambda x: ops.softmax(x), images, np.ones(images.shape, "float32") / 2, noise, 0 * inside)
    assert not ops.convert_to_numpy(found).any()


def test_slopes_do_not_vanish_in_half_precision():
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (4, 128, 128, 1)).astype("float32")
    noise = random.uniform(-0.5, 0.5, images.shape).astype("float32")

    def predict(x, dtype):
        half = 0.01 * ops.cast(x - 128, dtype)
        return ops.softmax(ops.cast(ops.concatenate([half, -half], axis=-1), "float32"))

    clean = ops.convert_to_numpy(predict(images, "float32"))
    whole, half = (
        ops.convert_to_numpy(
            AdversarialSmoothness().perturbation(lambda x, t=dtype: predict(x, t), images, clean, noise)
        )
        for dtype in ("float32", "float16")
    )
    for a, b in zip(whole, half, strict=True):
        assert (a * b).sum() > 0.99 * (a * a).sum()


def test_a_slope_that_overflows_counts_as_none():
    images, kernel, clean, noise, _ = example()

    def predict(x):
        x = ops.concatenate([x[:1] + ops.sqrt(0 * ops.abs(x[:1])), x[1:]])  # 0 with a slope of 0 times infinity
        return ops.softmax(ops.matmul(x, kernel))

    found = ops.convert_to_numpy(AdversarialSmoothness(2.0, 3.0).perturbation(predict, images, clean, noise))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(lengths(found), [0, 2], rtol=1e-5)


def test_arguments():
    assert_config_round_trip(AdversarialSmoothness(1.5, 2.5, 3, 1e-5))
    loss = AdversarialSmoothness()
    assert (loss.epsilon, loss.xi, loss.iterations, loss.smooth) == (None, None, 1, 1e-10)
    for wrong, message in (
        ({"epsilon": 0}, "`epsilon` must be a positive number or None, found 0"),
        ({"xi": -2.0}, "`xi` must be a positive number or None, found -2.0"),
        ({"iterations": 0}, "`iterations` must be a whole number of at least 1, found 0"),
        ({"smooth": 0}, "`smooth` must be positive.*found 0"),
    ):
        with pytest.raises(ValueError, match=message):
            AdversarialSmoothness(**wrong)
