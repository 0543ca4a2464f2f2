"""Masks at their own size, small enough to be kept for a whole data set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class PackedMask(NamedTuple):
    """A mask as runs of equal pixels, row by row."""

    shape: tuple[int, int]
    """Height and width."""
    starts: np.ndarray
    """Where each run begins, int32."""
    values: np.ndarray
    """The class of each run, uint8."""

    def unpacked(self) -> np.ndarray:
        """Returns the mask `(H, W)` uint8."""
        size = self.shape[0] * self.shape[1]
        return np.repeat(self.values, np.diff(self.starts, append=size)).reshape(self.shape)


def pack_mask(mask: np.ndarray) -> PackedMask:
    """Packs a mask of classes `(H, W)` uint8."""
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1]).astype("int32")
    return PackedMask((int(mask.shape[0]), int(mask.shape[1])), starts, flat[starts].astype("uint8"))
