"""Images and masks of another number of channels or another size, and as PNG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Turns `(H, W)` or `(H, W, 3)` uint8 into `(H, W, channels)`, with 1 or 3 channels."""
    if channels == 1:
        grey = pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))
        return grey[..., None]
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)


def resize_image(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resizes an image, bilinear and antialiased when it shrinks; the aspect ratio is not kept.

    Args:
        image: `(H, W, 1 or 3)` uint8.
        size: Side of the square result, or `(height, width)`.

    Returns:
        `(height, width, C)` uint8.
    """
    height, width = _height_width(size)
    pixels = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resized = np.asarray(pixels.resize((width, height), Image.Resampling.BILINEAR))
    return resized.reshape(height, width, image.shape[-1])


def resize_mask(mask: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resizes a mask of class indices; each new pixel takes the class that covers most of it.

    Args:
        mask: `(H, W)` uint8 class indices; 255 = ignore counts as a class of its own.
        size: Side of the square result, or `(height, width)`.

    Returns:
        `(height, width)` uint8 that holds no value that `mask` does not hold. A tie goes to the smaller value.
    """
    height, width = _height_width(size)
    values = np.unique(mask)
    covered = [
        np.asarray(Image.fromarray((mask == value).astype("float32")).resize((width, height), Image.Resampling.BOX))
        for value in values
    ]
    return values[np.argmax(covered, axis=0)].astype("uint8")


def class_mask(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The likeliest class of each pixel after bilinear resizing of each class' map.

    One class is resized at a time: an image has many times the pixels of the network's output.

    Args:
        probabilities: `(h, w, K)`.
        size: `(H, W)`.

    Returns:
        `(H, W)` uint8; of equal ones the first.
    """
    best, mask = _resized(probabilities[..., 0], size), np.zeros(size, "uint8")
    for index in range(1, probabilities.shape[-1]):
        values = _resized(probabilities[..., index], size)
        mask[values > best] = index
        best = np.maximum(best, values, out=values)
    return mask


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.array(Image.fromarray(np.ascontiguousarray(values)).resize(size[::-1], Image.Resampling.BILINEAR))


def encode_png(image: np.ndarray) -> io.BytesIO:
    """Encodes `(H, W, 1 or 3)` uint8 as a PNG file in memory, with one channel where all are equal.

    Decoded to its number of channels it is the same image again; a grey one is smaller and faster to read.
    """
    grey = (image == image[..., :1]).all()
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if grey else image).save(file, "PNG", compress_level=1)
    file.seek(0)
    return file


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
