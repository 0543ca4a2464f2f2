"""Colour jitter as one affine map of colour space per image."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

# ITU-R BT.601 luma, the grey of most image libraries, and NTSC's YIQ space, where hue is an angle.
_LUMA = np.array([0.299, 0.587, 0.114], "float32")
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], "float32")
_YIQ_INVERSE = np.linalg.inv(_YIQ).astype("float32")


def _blend_with_grey(factor: Any) -> Any:
    """Returns `factor * I + (1 - factor) * grey` as `(N, 3, 3)` matrices."""
    factor = factor[:, None, None]
    grey = ops.convert_to_tensor(np.tile(_LUMA, (1, 3, 1)))
    return factor * ops.eye(3, dtype="float32")[None] + (1.0 - factor) * grey


def _hue_rotation(turns: Any) -> Any:
    """Returns the matrices `(N, 3, 3)` that turn I and Q by `turns` full turns and leave Y."""
    cosine, sine = ops.cos(2 * np.pi * turns), ops.sin(2 * np.pi * turns)
    zero, one = ops.zeros_like(turns), ops.ones_like(turns)
    rotation = ops.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine], axis=-1)
    rotation = ops.reshape(rotation, (-1, 3, 3))
    yiq, inverse = ops.convert_to_tensor(_YIQ[None]), ops.convert_to_tensor(_YIQ_INVERSE[None])
    return ops.matmul(ops.matmul(inverse, rotation), yiq)


def colour_jitter(images: Any, brightness: Any, contrast: Any, saturation: Any, hue: Any) -> Any:
    """Scales brightness, contrast and saturation, turns the hue, and clips to 0..255.

    In this order: `b x`; blend with the image's mean grey; blend with each pixel's grey; rotate the hue.
    All four are affine in the colour of a pixel, so they are applied as one matrix and one offset per image
    and clipped once at the end. On one channel saturation and hue do nothing, as on a grey picture
    stored in three.

    Args:
        images: `(N, H, W, C)` float32, 0..255, C = 1 or 3.
        brightness: `(N,)` factor; 1 changes nothing.
        contrast: `(N,)` factor; 1 changes nothing.
        saturation: `(N,)` factor; 1 changes nothing, 0 makes the image grey.
        hue: `(N,)` in full turns; 0 changes nothing.

    Returns:
        `(N, H, W, C)` float32, 0..255.
    """
    means = brightness[:, None] * ops.mean(images, axis=(1, 2))  # (N, C)
    if images.shape[-1] == 1:
        scale = (brightness * contrast)[:, None, None, None]
        offset = ((1.0 - contrast)[:, None] * means)[:, None, None, :]
        return ops.clip(scale * images + offset, 0.0, 255.0)
    colour = ops.matmul(_hue_rotation(hue), _blend_with_grey(saturation))  # (N, 3, 3)
    # The offset is grey, and neither saturation nor hue changes a grey.
    offset = (1.0 - contrast) * ops.sum(means * ops.convert_to_tensor(_LUMA[None]), axis=-1)
    colour = colour * (brightness * contrast)[:, None, None]
    images = ops.einsum("nhwc,ndc->nhwd", images, colour)
    return ops.clip(images + offset[:, None, None, None], 0.0, 255.0)
