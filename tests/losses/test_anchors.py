from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import sample_anchors
from tests.losses.helpers import compiled


def sample(labels, certain, hard, per_group, num_classes=2, seed=0):
    noise = np.random.default_rng(seed).random(labels.shape).astype("float32")
    indices, valid = sample_anchors(labels, certain, hard, noise, num_classes, per_group)
    return ops.convert_to_numpy(indices), ops.convert_to_numpy(valid)


def one_group(hard_pixels: int, easy_pixels: int, uncertain_pixels: int):
    """One image of class 0 with so many pixels of each kind, in scrambled places."""
    order = np.random.default_rng(1).permutation(hard_pixels + easy_pixels + uncertain_pixels)
    hard = (order < hard_pixels)[None]
    certain = (order < hard_pixels + easy_pixels)[None]
    return np.zeros(hard.shape, int), certain, hard


@pytest.mark.parametrize(
    ("hard_pixels", "easy_pixels", "slots", "expected_hard", "expected_easy"),
    [
        (20, 20, 8, 4, 4),
        (20, 20, 7, 3, 4),
        (4, 4, 8, 4, 4),
        (1, 20, 8, 1, 7),
        (20, 2, 8, 6, 2),
        (0, 20, 8, 0, 8),
        (20, 0, 8, 8, 0),
        (2, 3, 8, 2, 3),
        (0, 0, 8, 0, 0),
        (20, 20, 1, 0, 1),
    ],
)
def test_half_hard_half_easy_topped_up(hard_pixels, easy_pixels, slots, expected_hard, expected_easy):
    labels, certain, hard = one_group(hard_pixels, easy_pixels, uncertain_pixels=9)
    indices, valid = sample(labels, certain, hard, slots)
    assert indices.shape == valid.shape == (slots, 1, 2)
    drawn = indices[:, 0, 0][valid[:, 0, 0]]
    assert len(set(drawn)) == len(drawn)
    assert np.all(certain[0, drawn])
    assert np.sum(hard[0, drawn]) == expected_hard
    assert np.sum(~hard[0, drawn]) == expected_easy
    assert not np.any(valid[:, 0, 1])


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize(("batch", "pixels", "slots"), [(1, 5, 4), (3, 30, 6), (2, 6, 20)])
def test_every_group_of_a_random_batch(batch, pixels, slots, num_classes):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, num_classes, (batch, pixels))
    labels[0, 0] = 255
    certain, hard = rng.random(labels.shape) > 0.3, rng.random(labels.shape) > 0.6
    indices, valid = sample(labels, certain, hard, slots, num_classes)
    assert indices.shape == valid.shape == (slots, batch, num_classes)
    assert np.all((indices >= 0) & (indices < pixels))
    for b in range(batch):
        for k in range(num_classes):
            drawn = indices[:, b, k][valid[:, b, k]]
            hard_pool = {p for p in range(pixels) if labels[b, p] == k and certain[b, p] and hard[b, p]}
            easy_pool = {p for p in range(pixels) if labels[b, p] == k and certain[b, p] and not hard[b, p]}
            assert len(set(drawn)) == len(drawn) == min(slots, len(hard_pool) + len(easy_pool))
            assert set(drawn) <= hard_pool | easy_pool
            wanted_hard = min(len(hard_pool), max(slots // 2, slots - len(easy_pool)))
            assert len(hard_pool & set(drawn)) == wanted_hard


def test_first_slots_of_a_large_draw_are_a_small_draw():
    labels, certain, hard = one_group(6, 15, 5)
    many, many_valid = sample(labels, certain, hard, 16)
    few, few_valid = sample(labels, certain, hard, 5)
    np.testing.assert_array_equal(many[:5][few_valid], few[few_valid])
    np.testing.assert_array_equal(many_valid[:5], few_valid)


def test_every_pixel_of_a_kind_is_as_likely():
    draws, pixels = 2000, 10
    labels, certain = np.zeros((draws, pixels), int), np.ones((draws, pixels), bool)
    hard = np.tile(np.arange(pixels) < 4, (draws, 1))
    indices, valid = sample(labels, certain, hard, 4)
    assert np.all(valid[:, :, 0])
    share = np.bincount(indices[:, :, 0].ravel(), minlength=pixels) / draws
    # 2 of 4 hard and 2 of 6 easy pixels; standard deviation 0.011
    np.testing.assert_allclose(share, [2 / 4] * 4 + [2 / 6] * 6, atol=0.06)


def test_masks_may_be_numbers():
    labels, certain, hard = one_group(5, 5, 5)
    as_bool = sample(labels, certain, hard, 4)
    as_float = sample(labels.astype("uint8"), certain.astype("float32"), hard.astype("int32"), 4)
    np.testing.assert_array_equal(as_bool[0], as_float[0])
    np.testing.assert_array_equal(as_bool[1], as_float[1])


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_compiled(dynamic_batch):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, (2, 12)).astype("int32")
    certain, hard = rng.random((2, 12)) > 0.2, rng.random((2, 12)) > 0.5
    noise = rng.random((2, 12)).astype("float32")
    function = lambda *x: sample_anchors(*x, num_classes=2, per_group=4)  # noqa: E731
    eager = function(labels, certain, hard, noise)
    traced = compiled(function, labels, certain, hard, noise, dynamic_batch=dynamic_batch)
    for a, b in zip(eager, traced, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))


def test_errors():
    labels = np.zeros((1, 4), int)
    with pytest.raises(ValueError, match=r"static number of pixels, found shape \(2, None\)"):
        sample_anchors(keras.KerasTensor((2, None)), labels, labels, labels, 2, 4)
    with pytest.raises(ValueError, match="`per_group` must be at least 1, found 0"):
        sample_anchors(labels, labels, labels, labels, 2, 0)
