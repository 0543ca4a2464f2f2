"""What is handed to the writers: the masks of a folder as regions of named classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.data.exchange.outlines import regions, simplified
from keras_semimed.data.exchange.shapes import Window
from keras_semimed.files import whole_file


@dataclass(frozen=True)
class Drawn:
    """A region of one class."""

    label: str
    window: Window
    """Its pixels."""
    ring: np.ndarray | None
    """The corners `(N, 2)` of its outline; None where it is to be written as pixels."""


@dataclass(frozen=True)
class DrawnImage:
    """An image and the regions in it."""

    name: str
    """The name of its file."""
    path: Path
    height: int
    width: int
    regions: list[Drawn]


def save_json(path: Path, content: Any) -> None:
    """Writes JSON in one line, as long lists of numbers would else be a line a number."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def drawn(mask: np.ndarray, names: Mapping[int, str], polygons: bool, tolerance: float) -> Iterator[Drawn]:
    """Yields the regions of a mask, class by class.

    Args:
        mask: Classes `(H, W)`.
        names: The name of each class that is written.
        polygons: Whether regions without holes are outlined.
        tolerance: See `simplified`.
    """
    height, width = mask.shape
    for value, label in names.items():
        for region in regions(mask == value):
            outlined = polygons and len(region.rings) == 1
            ring = simplified(region, tolerance, height, width) if outlined else None
            yield Drawn(label, _tight(region.window), ring)


def _tight(window: Window) -> Window:
    """Without rows and columns at the rim that hold nothing."""
    rows, columns = np.flatnonzero(window.pixels.any(1)), np.flatnonzero(window.pixels.any(0))
    pixels = window.pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Window(int(window.top + rows[0]), int(window.left + columns[0]), pixels)
