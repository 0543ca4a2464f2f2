"""The image with a mask painted on."""

from __future__ import annotations

import numpy as np

from keras_semimed.data.images.colours import COLOURS

OPACITY = 0.45


def painted(image: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    """The `(H, W, 3)` image with the classes painted on; two classes in green, as in this package's other pictures."""
    colours = np.array(COLOURS if classes > 2 else ((0, 0, 0), (0, 255, 0)), "float32")
    result, values = image.copy(), np.arange(256, dtype="float32")
    for index in range(1, classes):
        pixels = mask == index
        for channel in range(3):
            mixed = np.rint((1 - OPACITY) * values + OPACITY * colours[index, channel]).astype("uint8")
            result[..., channel][pixels] = mixed[image[..., channel][pixels]]
    return result
