"""Numbers as sines and cosines of many frequencies, for a network to tell times apart (DiffRect)."""

from __future__ import annotations

import math
from typing import Any

from keras import ops


def sinusoidal_code(values: Any, size: int = 128) -> Any:
    """`sin(t w_i)`, then `cos(t w_i)`, with `w_i = 10000^(-i / (size / 2 - 1))`.

    Args:
        values: t, integers or floats. Shape: `(N,)`.
        size: of the code, even and at least 4.

    Returns:
        Shape: `(N, size)`, float32, without gradient.

    Raises:
        ValueError: for another size.
    """
    if size < 4 or size % 2:
        raise ValueError(f"`size` must be an even number of at least 4, found {size!r}.")
    half = size // 2
    frequencies = ops.exp(ops.arange(half, dtype="float32") * (-math.log(10000.0) / (half - 1)))
    angles = ops.stop_gradient(ops.cast(values, "float32"))[:, None] * frequencies[None, :]
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)
