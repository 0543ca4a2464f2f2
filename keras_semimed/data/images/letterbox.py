"""Fitting an image into a square: stretched, or with its aspect ratio kept and padding around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_semimed.data.images.packed_masks import PackedMask, pack_mask
from keras_semimed.data.images.resizing import resize_image, resize_mask

IGNORE = 255


class Fitted(NamedTuple):
    """An image in a square, and where it lies there."""

    image: np.ndarray
    """`(S, S, C)` uint8, 0 in the padding."""
    mask: np.ndarray | None
    """`(S, S)` uint8, 255 in the padding."""
    area: np.ndarray
    """`(4,)` int32: top, left, bottom, right of the image in the square, in pixels."""
    classes: tuple[int, ...] = ()
    """The classes that the mask held at its own size; 255 is none."""
    own_mask: PackedMask | None = None
    """The mask at its own size."""
    spacing: tuple[float, float] | None = None
    """Height and width of a pixel of the file in mm; None where it does not say."""


def letterbox(image: np.ndarray, mask: np.ndarray | None, size: int) -> Fitted:
    """Resizes an image and its mask into a square so that the longer side fills it.

    Args:
        image: `(H, W, 1 or 3)` uint8.
        mask: `(H, W)` uint8 class indices, or None.
        size: Side of the square S, in pixels.
    """
    height, width = image.shape[:2]
    longer = max(height, width)
    inner = (max(1, round(height * size / longer)), max(1, round(width * size / longer)))
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    area = np.array([top, left, top + inner[0], left + inner[1]], "int32")
    inside = slice(top, top + inner[0]), slice(left, left + inner[1])
    square = np.zeros((size, size, image.shape[-1]), "uint8")
    square[inside] = resize_image(image, inner)
    if mask is None:
        return Fitted(square, None, area)
    classes = np.full((size, size), IGNORE, "uint8")
    classes[inside] = resize_mask(mask, inner)
    return Fitted(square, classes, area, _classes(mask), pack_mask(mask))


def stretch(image: np.ndarray, mask: np.ndarray | None, size: int) -> Fitted:
    """Resizes an image and its mask to a square, whatever their aspect ratio; arguments as `letterbox`."""
    area = np.array([0, 0, size, size], "int32")
    if mask is None:
        return Fitted(resize_image(image, size), None, area)
    return Fitted(resize_image(image, size), resize_mask(mask, size), area, _classes(mask), pack_mask(mask))


def present(fitted: Sequence[tuple[int, ...]], num_classes: int) -> np.ndarray:
    """Returns `(N, K)` bool of the classes of N masks."""
    return np.array([[index in classes for index in range(num_classes)] for classes in fitted], bool)


def _classes(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(value for value in np.unique(mask).tolist() if value != IGNORE)


def unletterbox(image: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Cuts the padding of `letterbox` off `(S, S)` or `(S, S, C)`; resizing to the first size is left to the caller."""
    top, left, bottom, right = (int(edge) for edge in area)
    return image[top:bottom, left:right]
