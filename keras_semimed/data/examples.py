"""One example of a data set, and the data sets that can be read without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_semimed.data.busi import BusiSource
from keras_semimed.data.progress import progress

PHANTOMS = 400
PHANTOM_SIZE = 128


class Example(NamedTuple):
    """One image as a TFDS builder or a reader gives it, at its own size."""

    name: str
    image: np.ndarray
    """`(H, W, 3)` uint8."""
    mask: np.ndarray
    """`(H, W)` uint8 class indices."""
    label: int
    group: str


def busi_examples(manual_dir: str | Path) -> Iterator[Example]:
    """Yields the images of BUSI, read from its folder or zip.

    Raises:
        FileNotFoundError: If `manual_dir` holds no BUSI.
        ValueError: If a file is damaged or an image and its masks do not fit together.
    """
    source = BusiSource(manual_dir)
    for item, group in zip(source, source.groups(), strict=True):
        yield Example(item.name, item.image, item.mask, item.label, group)


def fingerprint(name: str, manual_dir: str | Path) -> str | None:
    """Returns a hash that tells the files of a data set in `manual_dir` from others; None if it is not read from files.

    Raises:
        FileNotFoundError: If `manual_dir` holds no such data.
        ValueError: If files are missing.
    """
    return BusiSource(manual_dir).fingerprint() if name == "busi" else None


def phantom_examples() -> Iterator[Example]:
    """Yields the same phantoms as the TFDS builder, made on the spot."""
    from keras_semimed.data.phantoms import ultrasound_phantom

    for index in range(PHANTOMS):
        image, mask, label = ultrasound_phantom(index, PHANTOM_SIZE, seed=0)
        name = f"phantom_{index:04d}"
        yield Example(name, np.repeat(image[..., None], 3, axis=-1), mask, label, name)


def read_examples(name: str, manual_dir: str | Path | None) -> Iterator[Example]:
    """Yields the examples of a data set without TensorFlow, under a progress bar.

    Raises:
        ValueError: If the data set needs TensorFlow Datasets, or `manual_dir` is missing.
    """
    if name == "phantom_ultrasound":
        return iter(progress(phantom_examples(), f"making {name}", PHANTOMS))
    if name == "busi":
        if manual_dir is None:
            raise ValueError("manual_dir is missing; without TensorFlow busi is read from its folder or zip")
        return iter(progress(busi_examples(manual_dir), f"reading {name}"))
    raise ValueError(f"{name!r} is read through TensorFlow Datasets; install tensorflow and tensorflow-datasets")
