"""Areas painted into a mask, one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_semimed.data.exchange.shapes import Annotation


class Painted(NamedTuple):
    """A mask, and what was met while it was painted."""

    mask: np.ndarray
    """Classes `(H, W)` uint8."""
    overlap: int
    """Pixels in which a class covers another one."""
    invisible: list[str]
    """Annotations that cover no pixel."""


def paint(annotations: Sequence[tuple[int, Annotation]], height: int, width: int) -> Painted:
    """Paints annotations as the tools show them: of one layer a later one above, a higher layer above all below.

    Args:
        annotations: Each with its class. Class 0 takes away what lies below.
        height: Of the image.
        width: Of the image.

    Raises:
        ValueError: If one cannot be decoded.
    """
    mask = np.zeros((height, width), "uint8")
    overlap, invisible = np.zeros((height, width), bool), []
    for value, annotation in sorted(annotations, key=lambda pair: pair[1].layer):
        window = annotation.area.window(height, width)
        if not window.pixels.any():
            invisible.append(annotation.where)
            continue
        place = window.place()
        below = mask[place]
        if value:
            overlap[place] |= window.pixels & (below > 0) & (below != value)
        below[window.pixels] = value
    return Painted(mask, int(overlap.sum()), invisible)
