"""The grey levels of a mask with soft edges: which are areas, and which are only the edges between them."""

from __future__ import annotations

import numpy as np

from keras_semimed.data.images.pixels import Picture
from keras_semimed.data.images.resizing import with_channels

LEVELS = "0 is background and 255 the lesion (or 0 and 1), soft edges at half"
_WINDOW = 5  # pixels; an edge is never flat over so many
_FLAT = 12  # grey values within which a window is flat, compressed or not
NEAR = 32
"""How far from its own grey value an area of a mask may lie."""


def area_levels(values: np.ndarray) -> list[int]:
    """Returns the grey values of areas, those of their edges left out.

    Args:
        values: `(H, W)` whole numbers.

    Returns:
        The means of all flat windows of 5 x 5 pixels, each once, sorted; none where the image is smaller.
    """
    from scipy import ndimage

    if min(values.shape) < _WINDOW:
        return []
    low, high = (
        function(values, _WINDOW)[_WINDOW // 2 : -(_WINDOW // 2), _WINDOW // 2 : -(_WINDOW // 2)]
        for function in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    flat = high - low <= _FLAT
    return np.unique((low[flat] + high[flat]) // 2).tolist()


def stray_level(mask: Picture, expected: np.ndarray) -> int | None:
    """Returns the level of an area of a grey mask that lies far from all expected values, or None."""
    if mask.pixels.ndim != 2:
        return None
    levels = np.array(area_levels(mask.pixels.astype("int32")), "int32")
    if not len(levels):
        return None
    away = np.abs(levels[:, None] - np.asarray(expected, "int32")[None]).min(axis=1)
    return int(levels[away.argmax()]) if away.max() > NEAR else None


def lesion_of(mask: Picture, file: str) -> np.ndarray:
    """Turns a mask of background and lesion, with soft edges or without, into `(H, W)` bool.

    The two are 0 and 255, 0 and 65535 or 0 and 1; with soft edges the halves of the scale.

    Raises:
        ValueError: If it has colours or other levels; the message begins with `file`.
    """
    values = mask.pixels
    if values.ndim == 3:
        if np.ptp(values, axis=-1).max() > NEAR:  # more than a compression makes of a grey
            raise ValueError(f"{file}: the mask has colours, and one of grey values is expected; replace the file")
        values = with_channels(values.astype("uint8"), 1)[..., 0]
        mask = mask._replace(pixels=values)
    largest = int(values.max())
    if largest <= 1 and not mask.lossy:
        return values == 1
    scale = 65535 if largest > 255 else 255
    stray = None if scale > 255 else stray_level(mask, np.array([0, scale]))
    if largest <= scale // 2 or stray is not None:
        level = largest if stray is None else stray
        raise ValueError(
            f"{file}: the mask has an area of grey value {level}, and 0 and {scale}, or 0 and 1, are expected; replace "
            "the file, or read the images with from_folder and say which value is which class with mask_values"
        )
    return values > scale // 2
