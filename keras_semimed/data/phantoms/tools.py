"""What every kind of phantom needs: checked arguments, random generators, soft steps."""

from __future__ import annotations

import numpy as np


def check_phantom(index: int, size: int, seed: int) -> None:
    """Raises ValueError unless a phantom can be made of these arguments."""
    if size < 32:
        raise ValueError(f"size is {size}; the texture needs at least 32 pixels")
    if index < 0 or seed < 0:
        raise ValueError(f"index is {index} and seed is {seed}; both must be 0 or more")


def check_count(count: int) -> None:
    """Raises ValueError unless at least one phantom is asked for."""
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least one phantom")


def generators(seed: int, index: int) -> tuple[np.random.Generator, np.random.Generator]:
    """Two independent generators for one phantom: one for what is shown, one for its texture."""
    scene, texture = (np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence([seed, index]).spawn(2))
    return scene, texture


def step(distance: np.ndarray, width: float) -> np.ndarray:
    """Soft step from 0 (distance << 0) to 1; `width` is its 10-90 % length over 4.4."""
    return 0.5 * (1.0 + np.tanh(0.5 * distance / width))


def ridge(values: np.ndarray, width: float) -> np.ndarray:
    """1 where `values` is 0, falling to 1/e at a distance of `width`."""
    return np.exp(-((values / width) ** 2))
