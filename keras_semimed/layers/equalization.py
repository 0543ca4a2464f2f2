"""Histogram equalization: a table of grey levels for each channel of each image, from the pixels that show image."""

from __future__ import annotations

from typing import Any

from keras import ops

_LEVELS = 256


def equalization_tables(counts: Any) -> tuple[Any, Any]:
    """Makes the tables that spread grey levels evenly, as Pillow's `ImageOps.equalize` does.

    With h the histogram of n pixels and g = floor((n - h of the highest filled level) / 255), level v becomes
    `min(255, floor((floor(g / 2) + sum_{j < v} h_j) / g))`. g is 0 where one level alone is filled, or none, and
    where hardly any pixels lie below the highest one: nothing to spread.

    Args:
        counts: histograms. Shape: `(..., 256)`, int32.

    Returns:
        The tables, `(..., 256)` int32, 0..255, and which of them apply (g > 0), `(..., 1)` booleans.
    """
    levels = ops.arange(_LEVELS, dtype="int32")
    highest = ops.max(ops.where(counts > 0, levels, 0), axis=-1, keepdims=True)
    step = ops.sum(ops.where(levels < highest, counts, 0), axis=-1, keepdims=True) // 255
    below = ops.cumsum(counts, axis=-1) - counts
    tables = ops.minimum((step // 2 + below) // ops.maximum(step, 1), _LEVELS - 1)
    return tables, step > 0


def equalize(images: Any, inside: Any) -> Any:
    """Equalizes each channel of each image by itself.

    Args:
        images: `(N, H, W, C)` float32, 0..255. Values are rounded to look them up; channels without a table stay.
        inside: `(N, H, W)` float32, 1 where a pixel counts in the histogram, else 0. The table is applied to all.

    Returns:
        `(N, H, W, C)` float32, 0..255.
    """
    shape = ops.shape(images)
    channels = shape[0] * shape[3]
    levels = ops.cast(ops.clip(ops.round(images), 0.0, _LEVELS - 1.0), "int32")
    starts = ops.reshape(ops.arange(channels, dtype="int32") * _LEVELS, (shape[0], 1, 1, shape[3]))
    places = ops.reshape(levels + starts, (-1,))  # of each value in the histograms of all channels, one after the other
    weights = ops.reshape(ops.broadcast_to(inside[..., None], shape), (-1,))
    # Summed in float32, exact below 2^24: TensorFlow's GPU sums whole numbers on the host.
    counts = ops.segment_sum(weights, places, num_segments=channels * _LEVELS)
    tables, applies = equalization_tables(ops.cast(ops.reshape(counts, (channels, _LEVELS)), "int32"))
    equalized = ops.take(ops.cast(ops.reshape(tables, (-1,)), "float32"), places)
    applies = ops.reshape(applies, (shape[0], 1, 1, shape[3]))
    return ops.where(applies, ops.reshape(equalized, shape), images)
