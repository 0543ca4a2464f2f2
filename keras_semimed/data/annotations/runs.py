"""Masks as the lengths of runs, the first of background: what COCO calls uncompressed RLE, and CVAT's masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_semimed.data.annotations.fields import shown


def lengths(flat: np.ndarray) -> list[int]:
    """Returns the lengths of the runs of a flat bool array, beginning with the False ones, of which there may be 0."""
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], ends, [len(flat)]])).tolist()
    return [0, *runs] if len(flat) and flat[0] else runs


def from_lengths(runs: Sequence[Any], size: int, where: str) -> np.ndarray:
    """Returns the flat bool array of `size` that `lengths` was given.

    Raises:
        ValueError: If these are no lengths, or their sum is another one.
    """
    if not all(isinstance(run, int) and not isinstance(run, bool) and 0 <= run <= size for run in runs):
        raise ValueError(f"{where}: its runs must be whole numbers up to {size}, found {shown(runs)}; export it again")
    if sum(runs) != size:
        raise ValueError(f"{where}: its runs are of {sum(runs)} pixels, its size is of {size}; export it again")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)
