"""Decoded and resized images, kept in memory or, where they are too many, in a temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

CACHES = ("auto", "memory", "disk")


class DiskRows:
    """Rows of an array that lies in a file; indexing reads those that are asked for.

    Attributes:
        shape: Of the whole, rows first.
        dtype: Of the values.
        ndim: Number of dimensions.
    """

    def __init__(self, values: np.ndarray, rows: np.ndarray):
        self._values = values
        self._rows = rows
        self.shape = (len(rows), *values.shape[1:])
        self.dtype = values.dtype
        self.ndim = values.ndim

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, tuple):
            raise IndexError("rows on disk are indexed by row only; index what comes back")
        return np.asarray(self._values[self._rows[index]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def select(self, index: np.ndarray) -> DiskRows:
        """Returns the rows at `index`, still on disk."""
        return DiskRows(self._values, self._rows[index])


class Stack:
    """Collects uint8 arrays of one shape; when they grow beyond `limit` they move to a file.

    The file is temporary and belongs to the process: it is gone when the process ends, however it does.

    Args:
        limit: Bytes to keep in memory at most.
        folder: Where a file is made; the system's temporary folder when None.
    """

    def __init__(self, limit: float, folder: str | Path | None = None):
        self._limit = limit
        self._folder = folder
        self._memory: list[np.ndarray] = []
        self._file: IO[bytes] | None = None
        self._count = 0
        self._shape: tuple[int, ...] = ()

    @property
    def place(self) -> str:
        """Where the rows are, in words."""
        return "in memory" if self._file is None else f"on disk, in {self._folder or tempfile.gettempdir()}"

    @property
    def nbytes(self) -> int:
        """Size of all rows."""
        return self._count * int(np.prod(self._shape))

    def append(self, row: np.ndarray) -> None:
        """Adds one row."""
        self._shape = row.shape
        self._count += 1
        self._memory.append(row)
        if self._file is None and self.nbytes > self._limit:
            self._file = tempfile.TemporaryFile(dir=self._folder)
        if self._file is not None:
            self._file.writelines(np.ascontiguousarray(waiting, "uint8").data for waiting in self._memory)
            self._memory.clear()

    def rows(self, order: Sequence[int]) -> np.ndarray | DiskRows:
        """Returns the rows in an order: an array where they are in memory, else `DiskRows`."""
        if self._file is None:
            return np.stack([self._memory[index] for index in order])
        self._file.flush()
        return DiskRows(np.memmap(self._file, "uint8", "r", shape=(self._count, *self._shape)), np.asarray(order))


def memory_limit(cache: str) -> float:
    """Bytes that images may take in memory: all, none, or by default a quarter of what the machine has.

    Raises:
        ValueError: If `cache` is not one of `CACHES`.
    """
    if cache not in CACHES:
        raise ValueError(f"cache={cache!r}; choose among {CACHES}")
    if cache == "auto":
        return 0.25 * machine_memory()
    return float("inf") if cache == "memory" else -1


def machine_memory() -> int:
    """Bytes of memory that the machine has; 8 GiB where it does not say."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**33
