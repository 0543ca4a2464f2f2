"""Colour jitter against a NumPy version that works through its steps one after the other."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from keras import ops

from keras_semimed.layers.photometric import colour_jitter

LUMA = np.array([0.299, 0.587, 0.114])
YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def _jitter(images, brightness, contrast, saturation, hue):
    values = [np.array(value, "float32") for value in (brightness, contrast, saturation, hue)]
    tensors = [ops.convert_to_tensor(value) for value in (np.asarray(images, "float32"), *values)]
    return ops.convert_to_numpy(colour_jitter(*tensors))


def _by_hand(image, brightness, contrast, saturation, hue):
    image = brightness * image.astype("float64")
    image = contrast * image + (1 - contrast) * (image @ LUMA).mean()
    image = saturation * image + (1 - saturation) * (image @ LUMA)[..., None]
    angle = 2 * np.pi * hue
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    image = np.einsum("hwc,dc->hwd", image, np.linalg.inv(YIQ) @ turn @ YIQ)
    return np.clip(image, 0, 255)


@pytest.mark.parametrize(
    "factors",
    [
        (1.4, 1, 1, 0),
        (1, 0.5, 1, 0),
        (1, 1.5, 1, 0),
        (1, 1, 0.3, 0),
        (1, 1, 1.5, 0),
        (1, 1, 1, 0.2),
        (0.7, 1.3, 0.6, -0.25),
    ],
)
def test_each_step_and_all_together(factors):
    images = np.random.default_rng(0).uniform(0, 255, (2, 4, 5, 3)).astype("float32")
    other = (0.9, 1.1, 1.2, 0.1)  # parameters are per image: the second image has its own
    result = _jitter(images, *zip(factors, other, strict=True))
    np.testing.assert_allclose(result[0], _by_hand(images[0], *factors), atol=2e-3)
    np.testing.assert_allclose(result[1], _by_hand(images[1], *other), atol=2e-3)


def test_neutral_factors_change_nothing():
    images = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(_jitter(images, [1], [1], [1], [0]), images, atol=1e-3)


def test_hue_turns_the_colour_wheel():
    red = np.full((1, 1, 1, 3), [160.0, 60.0, 60.0])
    # YIQ runs the other way round than the wheel of HSV, and its hues are not evenly spaced: compare roughly.
    turned = _jitter(red, [1], [1], [1], [1 / 3])[0, 0, 0] / 255
    hue = colorsys.rgb_to_hsv(*turned)[0]
    assert min(abs(hue - 1 / 3), abs(hue - 2 / 3)) < 0.1
    np.testing.assert_allclose(turned @ LUMA, red[0, 0, 0] @ LUMA / 255, atol=1e-4)


def test_one_channel_is_a_grey_picture():
    grey = np.random.default_rng(0).uniform(0, 255, (2, 4, 5, 1)).astype("float32")
    factors = ([0.8, 1.3], [1.4, 0.6], [0.2, 1.5], [0.2, -0.1])
    three = _jitter(np.repeat(grey, 3, axis=-1), *factors)
    np.testing.assert_allclose(np.repeat(_jitter(grey, *factors), 3, axis=-1), three, atol=0.05)
