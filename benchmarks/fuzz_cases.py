"""Damaged and odd files, each with what a reader has to make of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.data.image_files import encoded
from tests.data.polyp_files import picture


class Case(NamedTuple):
    """One odd file in a folder or zip that is fine otherwise."""

    path: Path
    """What is read: a folder for `read_folder`, or a zip."""
    name: str
    """What an error has to contain."""
    expected: np.ndarray | None = None
    """The right pixels `(H, W, 3)`, classes `(H, W)` of a mask, or None where the file is to be reported."""
    file: Path | None = None
    """The odd image; None for a mask or a zip."""
    either: bool = False
    """Whether the format has no checksum, so that damage may pass as other pixels or be reported."""


Maker = Callable[[np.random.Generator, Path], Case]
MAKERS: dict[str, Maker] = {}


def kind(name: str) -> Callable[[Maker], Maker]:
    """Registers a maker of cases under a name."""

    def register(maker: Maker) -> Maker:
        MAKERS[name] = maker
        return maker

    return register


def good_folder(path: Path) -> Path:
    """Makes a folder with one labelled and one unlabelled image, 16 x 16."""
    for part in ("labeled/images", "labeled/masks", "unlabeled"):
        (path / part).mkdir(parents=True)
        mask = np.zeros((16, 16), "uint8")
        mask[4:9, 3:12] = 255
        (path / part / "good.png").write_bytes(encoded(mask))
    return path


def random_pixels(rng: np.random.Generator, height: int = 0) -> np.ndarray:
    """A smooth colour image `(H, W, 3)` of its own size."""
    height = height or int(rng.integers(17, 60))
    return picture(height, int(rng.integers(17, 60)), int(rng.integers(1 << 30)))


def odd_image(
    path: Path, content: bytes, expected: np.ndarray | None, name: str = "odd.png", either: bool = False
) -> Case:
    """A folder with `content` as one of its unlabelled images."""
    file = good_folder(path) / "unlabeled" / name
    file.write_bytes(content)
    if expected is not None and expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, -1)
    return Case(path, name, expected, file, either)
