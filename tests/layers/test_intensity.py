"""The eleven intensity operations against NumPy and Pillow."""

from __future__ import annotations

import colorsys
import functools

import numpy as np
import pytest
from keras import ops
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from keras_semimed.layers import INTENSITIES, intensity, intensity_strength
from tests.gradients import gradient
from tests.layers.compiled import compiled

LUMA = np.array([0.299, 0.587, 0.114])
FACTORS = ("contrast", "brightness", "color", "sharpness")
STATISTICS = ("autocontrast", "equalize", "contrast")  # what a pixel becomes depends on the others inside


@functools.cache
def operation(name):
    return compiled(lambda images, strength, inside=None: intensity(images, name, strength, inside), [])


def applied(images, name, strength=None, inside=None):
    strength = np.zeros(len(images)) if strength is None else strength
    arrays = [np.asarray(value, "float32") for value in (images, strength, inside) if value is not None]
    result = ops.convert_to_numpy(operation(name)(*map(ops.convert_to_tensor, arrays)))
    assert result.dtype == np.float32 and result.shape == arrays[0].shape
    return result


def strengths(name, uniform):
    return ops.convert_to_numpy(intensity_strength(name, ops.convert_to_tensor(np.asarray(uniform, "float32"))))


def equalized(channel, inside):
    levels = [int(value) for value in np.round(channel)[inside]]
    histogram = [levels.count(value) for value in range(256)]
    filled = [count for count in histogram if count]
    step = (sum(filled) - filled[-1]) // 255 if filled else 0
    if not step:
        return channel
    table = [min(255, (step // 2 + sum(histogram[:value])) // step) for value in range(256)]
    return np.array(table, "float64")[np.round(channel).astype(int)]


def by_hand(image, name, strength, inside):
    """One image, float64, pixel by pixel where the operation is one."""
    image, inside = image.astype("float64"), inside.astype(bool)
    grey = image[..., :1] if image.shape[-1] == 1 else (image @ LUMA)[..., None]
    result = image.copy()
    if name == "autocontrast" and inside.any():
        for c in range(image.shape[-1]):
            low, high = image[inside][:, c].min(), image[inside][:, c].max()
            if high > low:
                result[..., c] = np.clip((image[..., c] - low) * 255 / (high - low), 0, 255)
    elif name == "equalize":
        for c in range(image.shape[-1]):
            result[..., c] = equalized(image[..., c], inside)
    elif name == "blur":
        blur = {"sigma": (strength, strength, 0), "mode": "constant", "truncate": 20.0}
        result = ndimage.gaussian_filter(image, **blur) / ndimage.gaussian_filter(np.ones_like(image), **blur)
    elif name == "contrast":
        mean = np.floor(grey[inside].mean() + 0.5) if inside.any() else 0.0
        result = mean + strength * (image - mean)
    elif name == "brightness":
        result = strength * image
    elif name == "color":
        result = grey + strength * (image - grey)
    elif name == "sharpness":
        for y, x in np.ndindex(image.shape[0] - 2, image.shape[1] - 2):
            window = image[y : y + 3, x : x + 3]
            smooth = (window.sum((0, 1)) + 4 * window[1, 1]) / 13
            result[y + 1, x + 1] = smooth + strength * (window[1, 1] - smooth)
    elif name == "hue" and image.shape[-1] == 3:
        for place in np.ndindex(*image.shape[:2]):
            hue, saturation, brightness = colorsys.rgb_to_hsv(*image[place] / 255)
            result[place] = 255 * np.array(colorsys.hsv_to_rgb((hue + strength) % 1, saturation, brightness))
    elif name == "posterize":
        result = np.round(image) // 2 ** (8 - strength) * 2 ** (8 - strength)
    elif name == "solarize":
        result = np.where(image < strength, image, 255 - image)
    return result


def by_pillow(image, name, strength, inside):
    """One image of whole numbers through Pillow, which works with 8 bits."""
    picture, mask = Image.fromarray(image.astype("uint8")), Image.fromarray(np.uint8(255) * inside.astype("uint8"))
    if name in FACTORS:
        enhance = {"color": ImageEnhance.Color, "contrast": ImageEnhance.Contrast}
        enhance |= {"brightness": ImageEnhance.Brightness, "sharpness": ImageEnhance.Sharpness}
        return enhance[name](picture).enhance(strength)
    if name == "hue":
        hue, saturation, value = picture.convert("HSV").split()
        turned = (np.asarray(hue, "int32") + round(256 * strength)) % 256
        bands = Image.fromarray(turned.astype("uint8")), saturation, value
        return Image.merge("HSV", bands).convert("RGB")
    return {
        "autocontrast": lambda: ImageOps.autocontrast(picture, mask=mask),
        "equalize": lambda: ImageOps.equalize(picture, mask),
        "posterize": lambda: ImageOps.posterize(picture, int(strength)),
        "solarize": lambda: ImageOps.solarize(picture, int(strength)),
    }[name]()


def example(channels=3, whole=False, count=4, size=(20, 26)):
    """Images with a range of their own in each channel, and the pixels that count: all, some, few and a frame's."""
    random = np.random.default_rng(0)
    low = random.uniform(0, 100, (count, 1, 1, channels))
    images = low + random.uniform(0, 255 - low, (count, *size, channels))
    inside = np.ones((count, *size), "float32")
    inside[1] = random.uniform(size=size) > 0.4
    inside[2] = random.uniform(size=size) > 0.95
    inside[3, :6] = inside[3, :, 20:] = 0
    images[1:][inside[1:] == 0] = 0
    return (np.round(images) if whole else images).astype("float32"), inside


def some_strengths(name, count=4):
    values = strengths(name, np.random.default_rng(1).uniform(size=count))
    return values * np.tile([1, -1], count // 2) if name == "hue" else values


def test_names_in_the_order_of_the_table():
    assert INTENSITIES == (
        *("identity", "autocontrast", "equalize", "blur", "contrast", "brightness"),
        *("color", "sharpness", "hue", "posterize", "solarize"),
    )


def test_strengths_over_their_ranges():
    low, high = 0.0, 1 - 2**-24
    for name in FACTORS:
        np.testing.assert_allclose(strengths(name, [low, 0.5, high]), [0.95, 0.5, 0.05], rtol=1e-5)
    np.testing.assert_allclose(strengths("blur", [low, 0.5, high]), [0.1, 1.05, 2.0], rtol=1e-5)
    np.testing.assert_allclose(strengths("hue", [low, 0.5, high]), [0, 0.25, 0.5], rtol=1e-5)
    bits = strengths("posterize", [low, 0.2, 0.25, 0.26, 0.5, 0.51, 0.75, 0.76, high])
    np.testing.assert_array_equal(bits, [7, 7, 7, 6, 6, 5, 5, 4, 4])
    np.testing.assert_array_equal(strengths("solarize", [low, 0.001, 0.006, 0.5, high]), [255, 255, 254, 128, 1])
    for name in ("identity", "autocontrast", "equalize"):
        np.testing.assert_array_equal(strengths(name, [low, 0.5, high]), [0, 0, 0])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", INTENSITIES)
def test_each_operation_by_hand(name, channels, padded):
    images, inside = example(channels)
    strength = some_strengths(name)
    found = applied(images, name, strength, inside if padded else None)
    inside = inside if padded else np.ones_like(inside)
    expected = [by_hand(*values) for values in zip(images, [name] * 4, strength, inside, strict=True)]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    unchanged = name == "identity" or channels == 1 and name in ("color", "hue")
    assert unchanged or np.abs(found - images).max() > 1


@pytest.mark.parametrize("name", STATISTICS)
def test_padding_does_not_count(name):
    images, inside = example()
    other = np.where(inside[..., None] > 0, images, 255 - images)
    strength = [0.3, 0.5, 0.7, 0.9]
    first, second = (applied(values, name, strength, inside) for values in (images, other))
    np.testing.assert_allclose(first[inside > 0], second[inside > 0], atol=1e-3)
    everywhere = applied(images, name, strength)
    assert np.abs(first - everywhere)[inside > 0].max() > 1


@pytest.mark.parametrize(
    ("name", "tolerance", "padded"),
    [
        *(("autocontrast", 1.5, padded) for padded in (False, True)),
        *(("equalize", 0, padded) for padded in (False, True)),
        *(("posterize", 0, False), ("solarize", 0, False), ("hue", 8, False)),  # Pillow's hues have 8 bits
        *((name, 1.5, False) for name in FACTORS),
    ],
)
def test_pillow_agrees_up_to_its_rounding(name, tolerance, padded):
    images, inside = example(whole=True)
    inside = inside if padded else np.ones_like(inside)
    strength = some_strengths(name)
    if name == "hue":
        strength = np.round(256 * strength) / 256
    found = applied(images, name, strength, inside)
    for image, result, f, area in zip(images, found, strength, inside, strict=True):
        expected = np.asarray(by_pillow(image, name, float(f), area), "float32")
        np.testing.assert_allclose(result, expected, atol=tolerance)


def test_the_values_of_the_specification():
    def pixels(name, strength, *values):
        return applied(np.repeat(np.reshape(values, (1, 1, -1, 1)), 3, axis=-1), name, [strength])[0, 0, :, 0]

    np.testing.assert_allclose(pixels("brightness", 0.5, 200), 100, rtol=1e-5)
    np.testing.assert_allclose(pixels("contrast", 0.5, 200, 0), [150, 50], rtol=1e-5)  # around a mean of 100
    np.testing.assert_array_equal(pixels("posterize", strengths("posterize", [0.2])[0], 201), 200)
    np.testing.assert_array_equal(pixels("solarize", 128, 100, 200, 127, 128), [100, 55, 127, 127])
    np.testing.assert_array_equal(pixels("equalize", 0, *[0] * 255, *[100] * 255), [0] * 255 + [255] * 255)
    np.testing.assert_array_equal(pixels("equalize", 0, 10, 10, 20, 30), [10, 10, 20, 30])
    np.testing.assert_allclose(applied(np.full((1, 5, 5, 3), 77), "sharpness", [0.1]), 77, rtol=1e-6)


@pytest.mark.parametrize("name", INTENSITIES)
def test_grey_stays_grey_and_one_channel_is_a_grey_picture(name):
    images, inside = example(1)
    strength = some_strengths(name)
    three = applied(np.repeat(images, 3, axis=-1), name, strength, inside)
    np.testing.assert_allclose(np.ptp(three, axis=-1), 0, atol=1e-3)
    np.testing.assert_allclose(three[..., :1], applied(images, name, strength, inside), atol=1e-3)
    if name in ("color", "hue"):
        np.testing.assert_allclose(three[..., :1], images, atol=1e-3)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_constant_images(value):
    images = np.full_like(example()[0], value)
    for name in ("identity", "autocontrast", "equalize", "blur", "contrast", "color", "sharpness", "hue"):
        np.testing.assert_allclose(applied(images, name, [0.4] * 4), value, atol=1e-3)


def test_rounding_of_earlier_operations_is_not_stretched():
    images = applied(np.full((1, 40, 40, 3), 200.0) * [1, 0.9, 0.7], "blur", [1.7])
    images = images + np.random.default_rng(0).uniform(-1e-3, 1e-3, images.shape).astype("float32")
    np.testing.assert_array_equal(applied(images, "autocontrast"), images)


@pytest.mark.parametrize("name", INTENSITIES)
def test_nothing_inside(name):
    images, _ = example()
    found = applied(images, name, [0.5] * 4, np.zeros(images.shape[:3]))
    if name in ("autocontrast", "equalize"):
        np.testing.assert_array_equal(found, images)
    if name == "contrast":
        np.testing.assert_allclose(found, 0.5 * images, rtol=1e-5)
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 255


@pytest.mark.parametrize("name", INTENSITIES)
def test_single_pixels_in_whole_numbers(name):
    image = np.array([[[[10, 200, 90]]]], "uint8")
    strength = np.array([4.0], "float32")
    expected = by_hand(image[0], name, 4.0, np.ones((1, 1))) if name != "sharpness" else image[0]
    found = ops.convert_to_numpy(intensity(ops.convert_to_tensor(image), name, strength, np.ones((1, 1, 1), "bool")))
    np.testing.assert_allclose(found[0], np.clip(expected, 0, 255), atol=1e-3)
    assert found.dtype == np.float32


def test_no_gradient():
    images = np.full((1, 2, 2, 3), 100.0)
    assert not gradient(lambda x: ops.sum(intensity(x, "brightness", ops.ones((1,)))), images).any()
    assert not gradient(lambda x: ops.sum(intensity(images, "brightness", x)), np.ones(1)).any()


def test_errors_say_what_was_found():
    images = np.zeros((1, 4, 4, 3), "float32")
    with pytest.raises(ValueError, match="one of identity, .*solarize, found 'blurr'"):
        intensity(images, "blurr")
    with pytest.raises(ValueError, match="found 'gamma'"):
        intensity_strength("gamma", np.zeros(1))
    with pytest.raises(ValueError, match="`strength` must be given for 'blur'"):
        intensity(images, "blur")
    with pytest.raises(ValueError, match="1 or 3 channels, found 2"):
        intensity(images[..., :2], "identity")
