"""The agreement of standardized logits, against its equation and against a correlation."""

from __future__ import annotations

import numpy as np
import pytest

from keras_semimed.losses import LogitAgreement
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, value


def standardized(z):
    return (z - z.mean()) / np.std(z, ddof=1)


def agreement_by_hand(logits_1, logits_2):
    rows = zip(np.asarray(logits_1, "float64"), np.asarray(logits_2, "float64"), strict=True)
    return float(np.mean([np.mean((standardized(a) - standardized(b)) ** 2) for a, b in rows]))


def pair(classes, seed=0, count=6):
    random = np.random.default_rng(seed)
    return [random.normal(1, 3, (count, classes)).astype("float32") for _ in range(2)]


def test_the_numbers_of_the_specification():
    def loss(one, two):
        return value(LogitAgreement()(np.array([one], "float32"), np.array([two], "float32")))

    np.testing.assert_allclose(loss((1, 0, -1), (0, 1, -1)), 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(loss((3, 0), (0, 0.1)), 2, rtol=1e-6)
    np.testing.assert_allclose(loss((3, 0), (0.1, 0)), 0, atol=1e-7)
    assert np.isfinite(loss((3, 0), (0, 0)))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_loss_is_that_of_the_equation(classes):
    first, second = pair(classes, classes)
    found = value(compiled(LogitAgreement(), first, second))
    np.testing.assert_allclose(found, agreement_by_hand(first, second), rtol=1e-5)
    correlations = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)])
    np.testing.assert_allclose(found, 2 * (classes - 1) / classes * (1 - correlations), rtol=1e-4)
    np.testing.assert_allclose(value(LogitAgreement()(first, 3 * first + 2)), 0, atol=1e-6)


def test_slopes_of_three_classes_and_exactly_none_of_two():
    first, second = pair(3, 1, 3)
    for found, reading, x in (
        (
            gradient(lambda x: LogitAgreement()(x, second), first),
            lambda x: agreement_by_hand(x, second), first,
        ),
        (
            gradient(lambda x: LogitAgreement()(first, x), second),
            lambda x: agreement_by_hand(first, x), second,
        ),
    ):  # fmt: skip
        expected = finite_difference(reading, x)
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    first, second = pair(2, 2)
    assert value(LogitAgreement()(first, second)) > 0
    np.testing.assert_array_equal(gradient(lambda x: LogitAgreement()(x, second), first), 0)
    np.testing.assert_array_equal(gradient(lambda x: LogitAgreement()(first, x), second), 0)


@pytest.mark.parametrize("classes", [2, 3])
def test_equal_logits_are_finite_in_value_and_slope(classes):
    first, second = pair(classes, 3)
    first[0], second[0], second[1] = 0, 5, 0
    assert np.isfinite(value(LogitAgreement()(first, second)))
    assert np.isfinite(gradient(lambda x: LogitAgreement()(x, second), first)).all()
    even = np.zeros((2, classes), "float32")
    assert value(LogitAgreement()(even, even + 1)) == 0
    assert np.isfinite(gradient(lambda x: LogitAgreement()(x, even), even)).all()


def test_images_that_do_not_count_leave_the_mean():
    first, second = pair(4, 4)
    inside = np.array([1, 0, 1, 1, 0, 1], "float32")
    found = value(LogitAgreement()(first, second, inside))
    np.testing.assert_allclose(found, agreement_by_hand(first[inside > 0], second[inside > 0]), rtol=1e-5)
    none = np.zeros(6, "float32")
    assert value(LogitAgreement()(first, second, none)) == 0
    assert not gradient(lambda x: LogitAgreement()(x, second, none), first).any()


def test_configuration():
    assert_config_round_trip(LogitAgreement(name="other"))
