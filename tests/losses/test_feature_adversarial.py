"""Noise on features and the losses under it, against their equations row by row."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import (
    trusted_adversarial_loss,
    trusted_directions,
    uncertain_directions,
    uncertain_loss,
)
from tests.gradients import gradient
from tests.losses.helpers import compiled, finite_difference, softmax, value

CLASSES = [2, 4]


def array(values):
    return ops.convert_to_numpy(values)


class Example:
    """Random features of some images, a head, labels of which one is missing, weights of which one is 0."""

    def __init__(self, seed, classes=3, count=5, width=4):
        random = np.random.default_rng(seed)
        self.kernel = random.normal(0, 1.5, (width, classes)).astype("float32")
        self.bias = random.normal(0, 0.5, classes).astype("float32")
        self.features = random.normal(0, 1, (count, width)).astype("float32")
        self.noise = random.normal(0, 1, (count, width)).astype("float32")
        self.labels = random.integers(0, classes, count).astype("int32")
        self.weights = random.integers(1, 3, count).astype("float32") / 2
        self.labels[1], self.weights[3:4] = 255, 0
        self.pairs, self.pair_noise = (random.normal(0, 1, (2, count, width)).astype("float32") for _ in range(2))

    @property
    def trusted(self):
        return self.features, self.labels, self.weights, self.kernel, self.bias

    @property
    def uncertain(self):
        return self.pairs, self.weights, self.kernel, self.bias


def logits_by_hand(f, kernel, bias):
    return np.asarray(f, "float64") @ np.asarray(kernel, "float64") + np.asarray(bias, "float64")


def trusted_by_hand(features, labels, weights, kernel, bias, noise, iterations=8):
    """The gradient of the mean cross-entropy with respect to its input, by central differences."""
    counted = np.where(labels == 255, 0, weights).astype("float64")
    found = np.zeros(features.shape)
    for row in np.flatnonzero(counted):
        d = noise[row].astype("float64") / (np.linalg.norm(noise[row]) + 1e-8)

        def mean(x, row=row):
            p = softmax(logits_by_hand(features[row] + x, kernel, bias))
            return -counted[row] * np.log(p[labels[row]]) / counted.sum()

        for _ in range(iterations):
            d = finite_difference(mean, d, step=1e-5)
        found[row] = d
    return found


def kl(p, q):
    return float(np.sum(p * (np.log(p) - np.log(q))))


def uncertain_by_hand(features, weights, kernel, bias, noise, iterations=8, xi=1e-3):
    """The gradient of the mean divergence from the other view's clean prediction, by central differences."""
    weights, found = weights.astype("float64"), np.zeros(features.shape)
    for view, row in np.ndindex(*features.shape[:2]):
        if not weights[row]:
            continue
        other = softmax(logits_by_hand(features[1 - view, row], kernel, bias))
        d = noise[view, row].astype("float64")

        def mean(x, view=view, row=row, other=other):
            q = softmax(logits_by_hand(features[view, row] + x, kernel, bias))
            return weights[row] * kl(other, q) / weights.sum()

        for _ in range(iterations):
            u = finite_difference(mean, xi * d, step=1e-5)
            d = u / (np.linalg.norm(u) + 1e-8)
        found[view, row] = d
    return found


def trusted_loss_by_hand(features, labels, weights, kernel, bias, directions):
    counted = np.where(labels == 255, 0, weights).astype("float64")
    p = softmax(logits_by_hand(features + directions, kernel, bias))
    entries = [-np.log(p[i, labels[i]]) if counted[i] else 0.0 for i in range(len(labels))]
    return float(np.sum(counted * entries) / counted.sum()) if counted.any() else 0.0


def uncertain_loss_by_hand(features, weights, kernel, bias, directions, noisy=None):
    """Of clean features, and of those that noise is added to, the same unless they are given."""
    p = softmax(logits_by_hand(features, kernel, bias))
    q = softmax(logits_by_hand((features if noisy is None else noisy) + directions, kernel, bias))
    entries = [kl(p[0, i], q[1, i]) + kl(p[1, i], q[0, i]) for i in range(features.shape[1])]
    return float(np.sum(weights * entries) / weights.sum()) if np.any(weights) else 0.0


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("iterations", [1, 2, 8])
def test_trusted_noise_is_the_raw_gradient(classes, iterations):
    example = Example(classes, classes)
    found = array(compiled(lambda *x: trusted_directions(*x, iterations), *example.trusted, example.noise))
    expected = trusted_by_hand(*example.trusted, example.noise, iterations)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert not found[1].any() and not found[3].any() and np.abs(found[[0, 2, 4]]).max(1).min() > 1e-4
    bound = np.sqrt(2) * np.linalg.norm(example.kernel) * example.weights / example.weights[[0, 2, 4]].sum()
    assert (np.linalg.norm(found, axis=1) <= bound).all()


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("iterations", [1, 2, 8])
def test_uncertain_noise_has_length_one_and_is_crossed(classes, iterations):
    example = Example(classes + 10, classes)
    found = array(compiled(lambda *x: uncertain_directions(*x, iterations), *example.uncertain, example.pair_noise))
    expected = uncertain_by_hand(*example.uncertain, example.pair_noise, iterations)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), np.tile(example.weights > 0, (2, 1)), atol=1e-5)
    far = uncertain_directions(*example.uncertain, example.pair_noise, iterations, xi=0.5)
    np.testing.assert_allclose(
        array(far), uncertain_by_hand(*example.uncertain, example.pair_noise, iterations, 0.5), rtol=2e-3, atol=2e-3
    )


def test_the_numbers_of_the_specification():
    kernel, bias = np.array([[1.0, -1.0]], "float32"), np.zeros(2, "float32")
    one, label, weight = np.zeros((1, 1), "float32"), np.zeros(1, "int32"), np.ones(1, "float32")
    noise = np.full((1, 1), 2.5, "float32")
    first, second = (trusted_directions(one, label, weight, kernel, bias, noise, n) for n in (1, 2))
    np.testing.assert_allclose(array(first), -0.238406, atol=1e-6)
    np.testing.assert_allclose(array(second), -1.233989, atol=1e-6)
    found = value(trusted_adversarial_loss(one, label, weight, kernel, bias, first))
    np.testing.assert_allclose(found, 0.959707, atol=1e-6)
    pairs = np.zeros((2, 1, 1), "float32")
    for start in (0.7, -0.7):
        apart = uncertain_directions(pairs, weight, kernel, bias, np.full((2, 1, 1), start, "float32"))
        np.testing.assert_allclose(np.abs(array(apart)), 1, atol=1e-4)
        np.testing.assert_allclose(value(uncertain_loss(pairs, weight, kernel, bias, apart)), 0.867562, atol=1e-4)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("seed", range(2))
def test_losses_are_those_of_the_equations(classes, seed):
    example = Example(seed, classes)
    d = 0.5 * example.noise
    found = value(compiled(trusted_adversarial_loss, *example.trusted, d))
    np.testing.assert_allclose(found, trusted_loss_by_hand(*example.trusted, d), rtol=1e-5)
    d = 0.5 * example.pair_noise
    found = value(compiled(uncertain_loss, *example.uncertain, d))
    np.testing.assert_allclose(found, uncertain_loss_by_hand(*example.uncertain, d), rtol=1e-5)
    assert found > 1e-2


@pytest.mark.parametrize("place", ["features", "kernel", "bias"])
def test_slopes_of_the_losses(place):
    """The trusted loss trains the head alone; of the uncertain one the clean features have a slope, the noisy none."""
    example = Example(3)
    names = ("features", "labels", "weights", "kernel", "bias", "directions")
    d = 0.3 * example.noise
    given = dict(zip(names, (*example.trusted, d), strict=True))
    found = gradient(lambda x: trusted_adversarial_loss(**{**given, place: x}), given[place])
    if place == "features":
        assert not found.any()
    else:
        expected = finite_difference(lambda x: trusted_loss_by_hand(**{**given, place: x}), given[place])
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    given = dict(zip(("features", "weights", "kernel", "bias", "directions"), (*example.uncertain, d), strict=True))
    given["directions"] = 0.3 * example.pair_noise
    found = gradient(lambda x: uncertain_loss(**{**given, place: x}), given[place])
    noisy = example.pairs.astype("float64")  # a constant
    expected = finite_difference(lambda x: uncertain_loss_by_hand(**{**given, place: x}, noisy=noisy), given[place])
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    for name, function in (("directions", uncertain_loss), ("weights", uncertain_loss)):
        assert not gradient(lambda x, name=name, f=function: f(**{**given, name: x}), given[name]).any()


def test_noise_is_a_constant():
    example = Example(4)
    for place in (0, 2, 3, 4, 5):
        given = [*example.trusted, example.noise]

        def length(x, place=place, given=given):
            return ops.sum(trusted_directions(*[x if i == place else v for i, v in enumerate(given)]))

        assert not gradient(length, given[place]).any()
    for place in range(5):
        given = [*example.uncertain, example.pair_noise]

        def apart(x, place=place, given=given):
            return ops.sum(uncertain_directions(*[x if i == place else v for i, v in enumerate(given)]))

        assert not gradient(apart, given[place]).any()


def test_nothing_that_counts_gives_exactly_zero():
    example = Example(5)
    none = np.zeros(5, "float32")
    for labels, weights in ((example.labels, none), (np.full(5, 255, "int32"), example.weights)):
        given = (example.features, labels, weights, example.kernel, example.bias)
        away = array(trusted_directions(*given, example.noise))
        assert not away.any() and value(trusted_adversarial_loss(*given, away)) == 0
        slope = gradient(lambda k, g=given, d=away: trusted_adversarial_loss(*g[:3], k, g[4], d), example.kernel)
        np.testing.assert_array_equal(slope, 0)
    apart = array(uncertain_directions(example.pairs, none, example.kernel, example.bias, example.pair_noise))
    assert not apart.any() and value(uncertain_loss(example.pairs, none, example.kernel, example.bias, apart)) == 0
    slope = gradient(lambda f: uncertain_loss(f, none, example.kernel, example.bias, apart), example.pairs)
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("scale", [0.0, 100.0])
def test_a_head_that_is_flat_or_sure_stays_finite(scale):
    example = Example(6)
    example.kernel = scale * example.kernel
    for noise in (example.pair_noise, np.zeros_like(example.pair_noise)):
        apart = uncertain_directions(*example.uncertain, noise)
        loss = value(uncertain_loss(*example.uncertain, apart))
        assert np.isfinite(array(apart)).all() and np.isfinite(loss)
        found = gradient(lambda f, d=apart: uncertain_loss(f, *example.uncertain[1:], d), example.pairs)
        assert np.isfinite(found).all()
        away = trusted_directions(*example.trusted, noise[0])
        assert np.isfinite(array(away)).all()
        assert np.isfinite(value(trusted_adversarial_loss(*example.trusted, away)))
