"""The colours of classes in pictures of masks."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Colours of the classes 0, 1, 2, ... in mask files and overlays: black, then easily told apart.
COLOURS = ((0, 0, 0), (255, 255, 255), (230, 159, 0), (86, 180, 233), (0, 158, 115), (213, 94, 0), (204, 121, 167))
_IGNORED = (128, 128, 128)


def indexed(mask: np.ndarray) -> Image.Image:
    """Makes a palette image of classes `(H, W)` uint8, whose values stay; from 7 on colours repeat, 255 is grey."""
    further = [COLOURS[1 + index % (len(COLOURS) - 1)] for index in range(255 - len(COLOURS))]
    picture = Image.fromarray(mask)
    picture.putpalette([value for colour in (*COLOURS, *further, _IGNORED) for value in colour])
    return picture
