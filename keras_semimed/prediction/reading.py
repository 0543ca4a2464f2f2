"""Reads the images that are predicted; threads read the next batch while the present one is predicted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_semimed.data.images.letterbox import Fitted
from keras_semimed.data.images.rules import ReadingRules
from keras_semimed.text import one_line

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
    pool: ThreadPoolExecutor, files: Mapping[str, Path], rules: ReadingRules, batch_size: int
) -> Iterator[list[Read]]:
    """Batches of read files; the next one is read while the present one is predicted."""
    names = list(files)
    ahead: list[list[Future]] = []
    for start in range(0, len(names), batch_size):
        batch = names[start : start + batch_size]
        ahead.append([pool.submit(_read, name, files[name], rules) for name in batch])
        if len(ahead) == 2:
            yield [future.result() for future in ahead.pop(0)]
    for futures in ahead:
        yield [future.result() for future in futures]


def _read(name: str, file: Path, rules: ReadingRules) -> Read:
    try:
        image = whole_image(file, rules)
        fitted = rules.fit(image)
        height, width = image.shape[:2]
        kept = image if height * width <= KEPT else None
        return Read(name, file, None, fitted, (height, width), kept, file_digest(file))
    except (ValueError, OSError, ImportError, MemoryError) as error:
        return Read(name, file, str(error).removeprefix(f"{one_line(file)}: ") or type(error).__name__)


def whole_image(file: Path, rules: ReadingRules) -> np.ndarray:
    """The image of an ordinary file, at its own size in three channels; of a pipe nothing might ever come.

    Raises:
        ValueError: If it is a pipe, a device or the like, or as `read_image` does.
    """
    if file.exists() and not file.is_file():
        raise ValueError(f"{file}: is no ordinary file; remove it")
    image = rules.image(file)
    return image if image.shape[-1] == 3 else np.repeat(image, 3, axis=-1)


def file_digest(file: Path) -> str:
    """The first digits of a file's SHA-256."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]
