"""From a mask to the regions in it and their outlines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from keras_semimed.data.exchange.shapes import Window, fill

MAX_CHANGE = 0.02
"""Share of a region's pixels that a simpler outline may add and take away together."""


@dataclass(frozen=True)
class Region:
    """Connected pixels; those that touch at a corner alone may be one region or two."""

    rings: Sequence[np.ndarray]
    """The outline, then those of its holes, `(N, 2)` each; exactly these pixels have their centres inside."""
    window: Window
    """The pixels."""


def regions(mask: np.ndarray) -> Iterator[Region]:
    """Yields the connected regions of a mask `(H, W)` bool.

    Their outlines go half-way between pixel centres, along the image's border around the outermost ones.
    """
    from contourpy import FillType, contour_generator

    height, width = mask.shape
    if not mask.any():
        return
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = rows[0], columns[0]
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    generator = contour_generator(z=np.pad(part, 1).astype("float32"), fill_type=FillType.OuterOffset)
    points, offsets = cast("tuple[list[np.ndarray], list[np.ndarray]]", generator.filled(0.5, 2.0))
    for corners, ends in zip(points, offsets, strict=True):
        # The padding is one pixel, and pixel centres are half a pixel from the corners of pixels.
        shifted = np.asarray(corners, "float64") + (left - 0.5, top - 0.5)
        rings = [shifted[a : b - 1] for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
        yield Region(rings, fill(rings, height, width))


def simplified(region: Region, tolerance: float, height: int, width: int) -> np.ndarray:
    """Returns the outline of a region without holes with fewer corners, `(N, 2)`.

    Args:
        region: The region.
        tolerance: How far the outline may be from the left-out corners, in pixels. Where that changes more than
            `MAX_CHANGE` of the region's pixels, a half, a quarter and then nothing of it is used. With 0 it is exact.
        height: Of the image.
        width: Of the image.
    """
    exact = region.window.whole(height, width)
    allowed = MAX_CHANGE * region.window.pixels.sum()
    for each in (tolerance, tolerance / 2, tolerance / 4):
        ring = _without_small_turns(region.rings[0], each)
        if len(ring) >= 3 and (fill([ring], height, width).whole(height, width) != exact).sum() <= allowed:
            return ring
    return _without_small_turns(region.rings[0], 0.0)


def _without_small_turns(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Ramer, Douglas and Peucker's rule for a closed line: keeps the corners that lie farther from the rest."""
    far = int(np.argmax(((ring - ring[0]) ** 2).sum(1)))
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), bool)
    keep[[0, far]] = True
    waiting = [(0, far), (far, len(closed) - 1)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        along = closed[last] - closed[first]
        beside = closed[first + 1 : last] - closed[first]
        distances = np.abs(along[0] * beside[:, 1] - along[1] * beside[:, 0]) / max(np.hypot(*along), 1e-12)
        middle = first + 1 + int(np.argmax(distances))
        if distances[middle - first - 1] > tolerance + 1e-9:
            keep[middle] = True
            waiting += [(first, middle), (middle, last)]
    return closed[:-1][keep[:-1]]
