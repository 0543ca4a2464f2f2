"""Batches of one size, so that a compiled function sees one shape."""

from __future__ import annotations

import numpy as np


def filled(batch: np.ndarray, size: int) -> np.ndarray:
    """A batch of `size` images: what is missing is filled up with copies of the first one. Shape: `(N, ...)`."""
    return np.concatenate([batch, np.repeat(batch[:1], max(size - len(batch), 0), axis=0)])
