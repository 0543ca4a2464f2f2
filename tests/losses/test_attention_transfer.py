"""DCNet's imitation of features against an independent NumPy reading."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import AttentionTransfer
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, value


def attention_by_hand(features):
    """Image by image: a vector over the positions."""
    found = []
    for image in np.asarray(features, "float64"):
        strength = np.array([np.mean(image[place] ** 2) for place in np.ndindex(*image.shape[:-1])])
        found.append(strength / max(np.sqrt(np.sum(strength**2)), 1e-12))
    return np.array(found)


def by_hand(features, targets):
    pairs = zip(features, targets, strict=True)
    return sum(np.mean((attention_by_hand(e) - attention_by_hand(d)) ** 2) for e, d in pairs)


def example(seed=0):
    """Two levels, other channels."""
    random = np.random.default_rng(seed)
    shapes = ((3, 4, 2, 5), (3, 2, 1, 7)), ((3, 4, 2, 3), (3, 2, 1, 7))
    return [[random.normal(size=shape).astype("float32") for shape in level] for level in shapes]


@pytest.mark.parametrize("seed", range(3))
def test_value_and_slope(seed):
    features, targets = example(seed)
    loss = AttentionTransfer()
    np.testing.assert_allclose(value(loss(features, targets)), by_hand(features, targets), rtol=1e-5)
    single = value(loss(features[:1], targets[:1])), value(loss(features[1:], targets[1:]))
    np.testing.assert_allclose(sum(single), value(loss(features, targets)), rtol=1e-6)
    found = gradient(lambda e: loss([e, features[1]], targets), features[0])
    expected = finite_difference(lambda e: by_hand([e, features[1]], targets), features[0])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found).max() > 1e-3
    np.testing.assert_array_equal(gradient(lambda d: loss(features, [d, targets[1]]), targets[0]), 0)


def test_the_numbers_of_the_specification():
    e, d = np.float32([1, 2]).reshape(1, 2, 1, 1), np.float32([2, 1]).reshape(1, 1, 2, 1).reshape(1, 2, 1, 1)
    loss = AttentionTransfer()
    for factor in (1, 3, -3):
        np.testing.assert_allclose(value(loss([factor * e], [d])), 9 / 17, rtol=1e-6)


def test_each_image_is_normalised_by_itself():
    features, targets = example(4)
    factors = np.float32([1e-3, 1, 1e3]).reshape(3, 1, 1, 1)
    scaled = value(AttentionTransfer()([factors * e for e in features], targets))
    np.testing.assert_allclose(scaled, by_hand(features, targets), rtol=1e-4)


def test_maps_of_zeros_have_no_attention_and_no_gradient():
    features, targets = example()
    loss, zeros = AttentionTransfer(), np.zeros_like(features[0])
    assert value(loss([zeros], [0 * targets[0]])) == 0 and value(loss([], [])) == 0
    found = value(loss([zeros], targets[:1]))
    np.testing.assert_allclose(found, np.mean(attention_by_hand(targets[0]) ** 2), rtol=1e-5)
    np.testing.assert_array_equal(gradient(lambda e: loss([e], targets[:1]), zeros), 0)
    some = features[0] * np.float32([0, 1, 1]).reshape(3, 1, 1, 1)
    assert np.isfinite(gradient(lambda e: loss([e], targets[:1]), some)).all()


def test_half_precision_is_computed_in_float32():
    features, targets = ([ops.cast(100 * each, "float16") for each in side] for side in example())
    rounded = [[ops.convert_to_numpy(ops.cast(each, "float32")) for each in side] for side in (features, targets)]
    np.testing.assert_allclose(value(AttentionTransfer()(features, targets)), by_hand(*rounded), rtol=1e-5)


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_compiled(dynamic_batch):
    features, targets = example()

    def loss(*maps):
        return AttentionTransfer()(maps[:2], maps[2:])

    found = compiled(loss, *features, *targets, dynamic_batch=dynamic_batch)
    np.testing.assert_allclose(value(found), by_hand(features, targets), rtol=1e-5)


def test_config_round_trip_and_errors():
    assert_config_round_trip(AttentionTransfer(name="a"))
    features, targets = example()
    with pytest.raises(ValueError, match="`targets` must be as many as `features`, 2, found 1"):
        AttentionTransfer()(features, targets[:1])
    for wrong in (targets[0][:, :2], targets[0][0], targets[0][:1]):
        with pytest.raises(ValueError, match="`targets` must be .* as large as `features` .*, found"):
            AttentionTransfer()(features[:1], [wrong])
