"""Reads the images that are predicted; threads read the next batch while the present one is predicted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_semimed.data.images import read_image
from keras_semimed.data.images.letterbox import Fitted, letterbox, stretch

KEPT = 4_000_000
"""Pixels up to which an image stays in memory until it is written."""


class Read(NamedTuple):
    """An image that waits for the network, or what is wrong with it."""

    name: str
    file: Path
    problem: str | None = None
    fitted: Fitted | None = None
    shape: tuple[int, int] = (0, 0)
    """Height and width of the file's image."""
    image: np.ndarray | None = None
    """The file's image; None where it has more than `KEPT` pixels."""
    digest: str = ""


def read_ahead(
    pool: ThreadPoolExecutor, files: Mapping[str, Path], size: int, batch_size: int, keep_aspect: bool
) -> Iterator[list[Read]]:
    """Batches of read files; the next one is read while the present one is predicted."""
    names = list(files)
    ahead: list[list[Future]] = []
    for start in range(0, len(names), batch_size):
        batch = names[start : start + batch_size]
        ahead.append([pool.submit(_read, name, files[name], size, keep_aspect) for name in batch])
        if len(ahead) == 2:
            yield [future.result() for future in ahead.pop(0)]
    for futures in ahead:
        yield [future.result() for future in futures]


def _read(name: str, file: Path, size: int, keep_aspect: bool) -> Read:
    try:
        image = whole_image(file)
        fitted = (letterbox if keep_aspect else stretch)(image, None, size)
        height, width = image.shape[:2]
        kept = image if height * width <= KEPT else None
        return Read(name, file, None, fitted, (height, width), kept, file_digest(file))
    except (ValueError, OSError, ImportError, MemoryError) as error:
        return Read(name, file, str(error).removeprefix(f"{file}: ") or type(error).__name__)


def whole_image(file: Path) -> np.ndarray:
    """`read_image` for ordinary files alone; of a pipe nothing might ever come.

    Raises:
        ValueError: If it is a pipe, a device or the like, or as `read_image` does.
    """
    if file.exists() and not file.is_file():
        raise ValueError(f"{file}: is no ordinary file; remove it")
    return read_image(file)


def file_digest(file: Path) -> str:
    """The first digits of a file's SHA-256."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]
