"""Noise on the input of a teacher (Mean Teacher)."""

from __future__ import annotations

from typing import Any

from keras import ops


def add_clipped_noise(images: Any, noise: Any, deviation: float = 25.5) -> Any:
    """`images + deviation * clip(noise, -2, 2)`: Gaussian noise without its tails; the sum is not clipped.

    The default is a tenth of the range of the images, as the medical form of Mean Teacher has it.

    Args:
        images: values 0..255. Shape: `(N, H, W, C)`.
        noise: standard normal numbers. Shape: `(N, H, W, C)`.
        deviation: standard deviation before clipping, in grey levels.

    Returns:
        Shape: `(N, H, W, C)`, float32, without gradient.
    """
    noise = ops.clip(ops.cast(noise, "float32"), -2.0, 2.0)
    return ops.stop_gradient(ops.cast(images, "float32") + deviation * noise)
