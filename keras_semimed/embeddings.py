"""What losses and layers do to embeddings alike."""

from __future__ import annotations

from typing import Any

from keras import ops


def l2_normalize(x: Any) -> Any:
    """Scales each vector to length 1; a vector of zeros stays zero, with a gradient of zero.

    `ops.normalize` gives that vector a gradient of 0 / 0.

    Args:
        x: any float dtype. Shape: `(..., D)`.

    Returns:
        Shape: `(..., D)`, float32.
    """
    x = ops.cast(x, "float32")
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    positive = squares > 1e-24
    return ops.where(positive, x * ops.rsqrt(ops.where(positive, squares, 1.0)), 0.0)
