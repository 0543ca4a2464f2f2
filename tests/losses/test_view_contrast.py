"""The contrast between views against its equation, written out with loops."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import ViewContrastiveLoss
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, value


def contrast_by_hand(first, second, temperature, inside=None):
    """Of each image that counts, minus the logarithm of its own share among all that count."""
    first, second = (np.asarray(x, "float64") for x in (first, second))
    inside = np.ones(len(first)) if inside is None else inside
    losses = []
    for i in np.flatnonzero(inside):
        cosines = {
            j: first[i] @ second[j] / np.linalg.norm(first[i]) / np.linalg.norm(second[j])
            for j in np.flatnonzero(inside)
        }
        total = sum(np.exp(cosine / temperature) for cosine in cosines.values())
        losses.append(-np.log(np.exp(cosines[i] / temperature) / total))
    return float(np.mean(losses)) if losses else 0.0


def pair(seed, count=5, width=4):
    random = np.random.default_rng(seed)
    return [random.normal(0, 3, (count, width)).astype("float32") for _ in range(2)]


def test_the_numbers_of_the_specification():
    first, second = np.array([(1.0, 0), (0, 2)], "float32"), np.array([(3.0, 0), (0, 1)], "float32")
    np.testing.assert_allclose(value(ViewContrastiveLoss(0.5)(first, second)), 0.126928, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_loss_is_that_of_the_equation(temperature, count):
    loss = ViewContrastiveLoss(temperature)
    for seed in range(3):
        first, second = pair(seed, count)
        found, back = value(compiled(loss, first, second)), value(loss(second, first))
        np.testing.assert_allclose(found, contrast_by_hand(first, second, temperature), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(back, contrast_by_hand(second, first, temperature), rtol=1e-4, atol=1e-5)
        assert count == 1 or found != back  # from the first view to the second alone


def test_images_that_do_not_count_are_no_anchors_and_no_negatives():
    first, second = pair(4)
    inside = np.array([1, 0, 1, 1, 0], "float32")
    found = value(ViewContrastiveLoss(0.5)(first, second, inside))
    np.testing.assert_allclose(found, contrast_by_hand(first, second, 0.5, inside), rtol=1e-5)
    assert value(ViewContrastiveLoss()(first, second, np.zeros(5, "float32"))) == 0
    slope = gradient(lambda x: ViewContrastiveLoss(0.5)(x, second, inside), first)
    assert np.abs(slope[inside > 0]).min() > 0 and not slope[inside == 0].any()
    nothing = gradient(lambda x: ViewContrastiveLoss()(x, second, np.zeros(5, "float32")), first)
    np.testing.assert_array_equal(nothing, 0)


def test_slopes_by_both_views():
    first, second = pair(5, 3)
    loss = ViewContrastiveLoss(0.5)
    for found, reading, x in (
        (gradient(lambda x: loss(x, second), first), lambda x: contrast_by_hand(x, second, 0.5), first),
        (gradient(lambda x: loss(first, x), second), lambda x: contrast_by_hand(first, x, 0.5), second),
    ):
        expected = finite_difference(reading, x)
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_features_of_zero_and_half_precision_stay_finite():
    first, second = pair(6)
    first[0], second[1] = 0, 0
    assert np.isfinite(value(ViewContrastiveLoss()(first, second)))
    assert np.isfinite(gradient(lambda x: ViewContrastiveLoss()(x, second), first)).all()
    half = [ops.cast(ops.convert_to_tensor(x), "float16") for x in (first, second)]
    np.testing.assert_allclose(
        value(ViewContrastiveLoss()(*half)), value(ViewContrastiveLoss()(first, second)), rtol=0.05
    )


def test_configuration_and_errors():
    assert_config_round_trip(ViewContrastiveLoss(0.2, name="other"))
    assert ViewContrastiveLoss().temperature == 0.05
    for wrong in (0, -1, float("nan"), "warm"):
        with pytest.raises(ValueError, match=f"`temperature` must be a positive number, found {wrong!r}"):
            ViewContrastiveLoss(wrong)
