"""Eleven operations on the intensities of images, the augmentations of AugSeg (Zhao et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_semimed.layers.equalization import equalize
from keras_semimed.layers.resampling import apply_matrices, gaussian_matrix

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the grey of most image libraries
_CONSTANT = 0.5  # grey levels; a smaller spread is rounding left by earlier operations, not to be stretched to 255


def _reduction(uniform: Any) -> Any:
    """Factor of contrast, brightness, colour and sharpness: these are only ever reduced."""
    return 0.95 - 0.9 * uniform


_STRENGTHS: dict[str, Callable[[Any], Any]] = {
    "blur": lambda uniform: 0.1 + 1.9 * uniform,
    "contrast": _reduction,
    "brightness": _reduction,
    "color": _reduction,
    "sharpness": _reduction,
    "hue": lambda uniform: 0.5 * uniform,
    "posterize": lambda uniform: 8.0 - ops.maximum(ops.ceil(4.0 * uniform), 1.0),
    "solarize": lambda uniform: 256.0 - ops.maximum(ops.ceil(255.0 * uniform), 1.0),
}


def intensity_strength(name: str, uniform: Any) -> Any:
    """Turns uniform random numbers into strengths of an operation.

    blur: standard deviation 0.1 + 1.9 u in pixels; contrast, brightness, color, sharpness: factor 0.95 - 0.9 u;
    hue: 0.5 u of a turn; posterize: bits kept 8 - max(1, ceil(4 u)); solarize: threshold 256 - max(1, ceil(255 u)).

    Args:
        name: one of `INTENSITIES`.
        uniform: numbers u in [0, 1). Shape: `(N,)`.

    Returns:
        `(N,)` float32; zeros for identity, autocontrast and equalize, which have no strength.

    Raises:
        ValueError: for a name that is not in `INTENSITIES`.
    """
    _check_name(name)
    uniform = ops.stop_gradient(ops.cast(uniform, "float32"))
    return _STRENGTHS[name](uniform) if name in _STRENGTHS else ops.zeros_like(uniform)


def intensity(images: Any, name: str, strength: Any = None, inside: Any = None) -> Any:
    """Applies one operation to all images, each with its own strength; nothing is rounded unless a level is looked up.

    With x a value, l the luma of its pixel and f the strength:

    - identity: x;
    - autocontrast: (x - min) 255 / (max - min), channel by channel; a channel with less than half a grey level
      between the two is unchanged;
    - equalize: see `equalization_tables`;
    - blur: a Gaussian of standard deviation f pixels;
    - contrast: m + f (x - m), m the mean luma of the image, rounded;
    - brightness: f x;
    - color: l + f (x - l);
    - sharpness: s + f (x - s), s the mean over 3 x 3 pixels, weights 1 and in the middle 5; outermost pixels unchanged;
    - hue: see `turn_hue`, by f turns, of either sign;
    - posterize: the upper f of the 8 bits of x, rounded;
    - solarize: x below the threshold f, else 255 - x.

    Images of one channel are grey: color and hue do nothing.

    Args:
        images: `(N, H, W, C)`, any dtype, 0..255, C = 1 or 3.
        name: one of `INTENSITIES`.
        strength: `(N,)`, see `intensity_strength`; not needed for identity, autocontrast and equalize.
        inside: `(N, H, W)`, 1 where a pixel shows image; only these count in the minimum, maximum, histogram and mean
            of autocontrast, equalize and contrast. None for all. Without any, the first two leave the image alone and
            the mean is 0.

    Returns:
        `(N, H, W, C)` float32, 0..255, without gradient.

    Raises:
        ValueError: for a name that is not in `INTENSITIES`, a strength that is missing, or another number of channels.
    """
    _check_name(name)
    images = ops.stop_gradient(ops.cast(images, "float32"))
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"intensity operations need images with 1 or 3 channels, found {images.shape[-1]}.")
    if strength is not None:
        strength = ops.stop_gradient(ops.cast(strength, "float32"))[:, None, None, None]
    elif name in _STRENGTHS:
        raise ValueError(f"`strength` must be given for {name!r}; intensity_strength makes it from uniform numbers.")
    inside = ops.ones_like(images[..., 0]) if inside is None else ops.stop_gradient(ops.cast(inside, "float32"))
    return ops.clip(_OPERATIONS[name](images, strength, inside), 0.0, 255.0)


def turn_hue(images: Any, turns: Any) -> Any:
    """Turns the hue of HSV and keeps saturation and value.

    With top the largest and spread the largest minus the smallest of a pixel's channels, and h its hue in turns, the
    channels n = 5, 3, 1 (red, green, blue) become `top - spread clip(min(k, 4 - k), 0, 1)`, k = (n + 6 (h + d)) mod 6.

    Args:
        images: `(N, H, W, C)` float32, C = 1 (unchanged) or 3.
        turns: d, in full turns. Shape: `(N, 1, 1, 1)`.

    Returns:
        `(N, H, W, C)` float32.
    """
    if images.shape[-1] == 1:
        return images
    red, green, blue = (images[..., channel] for channel in range(3))
    top = ops.maximum(ops.maximum(red, green), blue)
    spread = top - ops.minimum(ops.minimum(red, green), blue)
    divisor = ops.where(spread > 0, spread, 1.0)
    sector = ops.where(
        ops.equal(top, red),
        (green - blue) / divisor,
        ops.where(ops.equal(top, green), 2.0 + (blue - red) / divisor, 4.0 + (red - green) / divisor),
    )  # 6 h
    sector = sector + 6.0 * turns[..., 0]

    def channel(number: float) -> Any:
        place = sector + number
        place = place - 6.0 * ops.floor(place / 6.0)
        return top - spread * ops.clip(ops.minimum(place, 4.0 - place), 0.0, 1.0)

    return ops.stack([channel(5.0), channel(3.0), channel(1.0)], axis=-1)


def _luma(images: Any) -> Any:
    """`(N, H, W, 1)`: the grey of each pixel."""
    if images.shape[-1] == 1:
        return images
    return sum(weight * images[..., channel : channel + 1] for channel, weight in enumerate(_LUMA))


def _identity(images: Any, strength: Any, inside: Any) -> Any:
    return images


def _autocontrast(images: Any, strength: Any, inside: Any) -> Any:
    shown = inside[..., None] > 0
    low = ops.min(ops.where(shown, images, 255.0), axis=(1, 2), keepdims=True)
    high = ops.max(ops.where(shown, images, 0.0), axis=(1, 2), keepdims=True)
    stretched = high - low >= _CONSTANT  # without any pixel inside: 0 - 255
    scale = ops.where(stretched, 255.0 / ops.where(stretched, high - low, 1.0), 1.0)
    return (images - ops.where(stretched, low, 0.0)) * scale


def _equalize(images: Any, strength: Any, inside: Any) -> Any:
    return equalize(images, inside)


def _blur(images: Any, strength: Any, inside: Any) -> Any:
    height, width = ops.shape(images)[1:3]
    sigma = strength[:, 0, 0, 0]
    return apply_matrices(images, gaussian_matrix(sigma, height), gaussian_matrix(sigma, width))


def _contrast(images: Any, strength: Any, inside: Any) -> Any:
    total = ops.sum(inside[..., None] * _luma(images), axis=(1, 2), keepdims=True)
    mean = total / ops.maximum(ops.sum(inside, axis=(1, 2)), 1.0)[:, None, None, None]
    mean = ops.floor(mean + 0.5)
    return mean + strength * (images - mean)


def _brightness(images: Any, strength: Any, inside: Any) -> Any:
    return strength * images


def _color(images: Any, strength: Any, inside: Any) -> Any:
    luma = _luma(images)
    return luma + strength * (images - luma)


def _sharpness(images: Any, strength: Any, inside: Any) -> Any:
    if min(images.shape[1:3]) < 3:
        return images  # outermost pixels, all of them
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    middle = images[:, 1:-1, 1:-1]
    smooth = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4.0 * middle) / 13.0
    change = (1.0 - strength) * (smooth - middle)
    return images + ops.pad(change, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _hue(images: Any, strength: Any, inside: Any) -> Any:
    return turn_hue(images, strength)


def _posterize(images: Any, strength: Any, inside: Any) -> Any:
    step = ops.round(ops.power(2.0, 8.0 - strength))
    return step * ops.floor(ops.round(images) / step)


def _solarize(images: Any, strength: Any, inside: Any) -> Any:
    return ops.where(images < strength, images, 255.0 - images)


_OPERATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "identity": _identity,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "color": _color,
    "sharpness": _sharpness,
    "hue": _hue,
    "posterize": _posterize,
    "solarize": _solarize,
}
INTENSITIES = tuple(_OPERATIONS)


def _check_name(name: str) -> None:
    if name not in _OPERATIONS:
        raise ValueError(f"`name` must be one of {', '.join(INTENSITIES)}, found {name!r}.")
