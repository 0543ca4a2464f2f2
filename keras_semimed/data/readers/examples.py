"""One example of a data set, and the data sets that can be read without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_semimed.data.progress import progress
from keras_semimed.data.readers.bus_bra import BusBraSource
from keras_semimed.data.readers.busi import BusiSource
from keras_semimed.data.readers.cvc_clinicdb import CvcClinicDbSource
from keras_semimed.data.readers.kvasir_seg import KvasirSegSource
from keras_semimed.data.readers.source import Source
from keras_semimed.data.readers.udiat import UdiatSource

SOURCES: dict[str, type[Source]] = {
    "bus_bra": BusBraSource,
    "busi": BusiSource,
    "cvc_clinicdb": CvcClinicDbSource,
    "kvasir_seg": KvasirSegSource,
    "udiat": UdiatSource,
}
PHANTOMS = 400
ENDOSCOPY_PHANTOMS = 300
PHANTOM_SIZE = 128


class Example(NamedTuple):
    """One image as a TFDS builder or a reader gives it, at its own size."""

    name: str
    image: np.ndarray
    """`(H, W, 3)` uint8."""
    mask: np.ndarray
    """`(H, W)` uint8 class indices."""
    label: int | None
    """Class of the image; None where the set has masks only."""
    group: str


def source_of(name: str, manual_dir: str | Path) -> Source:
    """Returns the files of a data set.

    Raises:
        FileNotFoundError: If `manual_dir` holds no such data.
        ValueError: If files are missing.
    """
    return SOURCES[name](manual_dir)  # type: ignore[call-arg]  # each takes its place


def fingerprint(name: str, manual_dir: str | Path) -> str | None:
    """Returns a hash that tells the files of a data set in `manual_dir` from others; None if it is not read from files.

    Raises:
        FileNotFoundError: If `manual_dir` holds no such data.
        ValueError: If files are missing.
    """
    return source_of(name, manual_dir).fingerprint() if name in SOURCES else None


def source_examples(source: Source) -> Iterator[Example]:
    """Yields the images of a set.

    Raises:
        ValueError: If a file is damaged or an image and its masks do not fit together.
    """
    for item in source:
        yield Example(item.name, item.image, item.mask, source.label(item.name), source.group(item.name))


def phantom_examples() -> Iterator[Example]:
    """Yields the same ultrasound phantoms as the TFDS builder, made on the spot."""
    from keras_semimed.data.phantoms.ultrasound import ultrasound_phantom

    for index in range(PHANTOMS):
        image, mask, label = ultrasound_phantom(index, PHANTOM_SIZE, seed=0)
        name = f"phantom_{index:04d}"
        yield Example(name, np.repeat(image[..., None], 3, axis=-1), mask, label, name)


def endoscopy_examples() -> Iterator[Example]:
    """Yields the same endoscopy phantoms as the TFDS builder, made on the spot."""
    from keras_semimed.data.phantoms.endoscopy import endoscopy_phantom

    for index in range(ENDOSCOPY_PHANTOMS):
        image, mask = endoscopy_phantom(index, PHANTOM_SIZE, seed=0)
        name = f"phantom_{index:04d}"
        yield Example(name, image, mask, None, name)


def read_examples(name: str, manual_dir: str | Path | None) -> Iterator[Example]:
    """Yields the examples of a data set without TensorFlow, under a progress bar.

    Raises:
        ValueError: If the data set needs TensorFlow Datasets, or `manual_dir` is missing.
    """
    if name == "phantom_ultrasound":
        return iter(progress(phantom_examples(), f"making {name}", PHANTOMS))
    if name == "phantom_endoscopy":
        return iter(progress(endoscopy_examples(), f"making {name}", ENDOSCOPY_PHANTOMS))
    if name not in SOURCES:
        raise ValueError(f"{name!r} is read through TensorFlow Datasets; install tensorflow and tensorflow-datasets")
    if manual_dir is None:
        raise ValueError(f"manual_dir is missing; without TensorFlow {name} is read from its folder or zip")
    source = source_of(name, manual_dir)
    return iter(progress(source_examples(source), f"reading {name}", len(source)))
