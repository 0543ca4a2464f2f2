"""What annotation tools draw, as areas of pixels.

Coordinates are in pixels from the image's top left corner, as all these tools measure: the pixel in column 0 and row 0
covers x and y from 0 to 1. A pixel belongs to an area if its centre does; a centre that lies on the border belongs to
the area on its right or below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np


class Window(NamedTuple):
    """Pixels of a part of an image."""

    top: int
    left: int
    pixels: np.ndarray
    """`(h, w)` bool; may be of no pixel."""

    def place(self) -> tuple[slice, slice]:
        """Returns where it lies in the image, as an index."""
        height, width = self.pixels.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def whole(self, height: int, width: int) -> np.ndarray:
        """Returns the mask `(height, width)` bool of the image."""
        mask = np.zeros((height, width), bool)
        mask[self.place()] = self.pixels
        return mask


class Area(Protocol):
    """Something that covers pixels."""

    def window(self, height: int, width: int) -> Window:
        """Returns the pixels of an image of that size that it covers."""


@dataclass(frozen=True)
class Polygons:
    """What is in any of some polygons, each given by its corners `(N, 2)`, x first; by the even-odd rule each."""

    rings: Sequence[np.ndarray]

    def window(self, height: int, width: int) -> Window:
        """Returns the pixels of an image of that size that it covers."""
        if len(self.rings) == 1:
            return fill(self.rings, height, width)
        mask = np.zeros((height, width), bool)
        for ring in self.rings:
            part = fill([ring], height, width)
            mask[part.place()] |= part.pixels
        return Window(0, 0, mask)


@dataclass(frozen=True)
class Ellipse:
    """An ellipse by its centre, its radii and how far it is turned, in degrees clockwise."""

    x: float
    y: float
    radius_x: float
    radius_y: float
    turn: float = 0.0

    def window(self, height: int, width: int) -> Window:
        """Returns the pixels of an image of that size that it covers."""
        reach = max(self.radius_x, self.radius_y)
        if min(self.radius_x, self.radius_y) <= 0:
            return Window(0, 0, np.zeros((0, 0), bool))
        top, bottom = _range(self.y - reach, self.y + reach, height)
        left, right = _range(self.x - reach, self.x + reach, width)
        y, x = np.arange(top, bottom)[:, None] + 0.5 - self.y, np.arange(left, right)[None] + 0.5 - self.x
        cos, sin = np.cos(np.deg2rad(self.turn)), np.sin(np.deg2rad(self.turn))
        along, across = (x * cos + y * sin) / self.radius_x, (y * cos - x * sin) / self.radius_y
        return Window(top, left, along**2 + across**2 <= 1)


@dataclass(frozen=True)
class Raster:
    """Pixels that are stored as such, and decoded when they are asked for.

    Args:
        decode: Returns them, `(h, w)` bool.
        top: Row of the image that their first row is.
        left: Column of the image that their first column is.
    """

    decode: Callable[[], np.ndarray]
    top: int = 0
    left: int = 0

    def window(self, height: int, width: int) -> Window:
        """Returns the pixels of an image of that size that it covers."""
        pixels = self.decode()
        top, left = max(-self.top, 0), max(-self.left, 0)
        inside = pixels[top : max(height - self.top, 0), left : max(width - self.left, 0)]
        return Window(self.top + top, self.left + left, inside)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Returns the four corners of an upright box, `(4, 2)`."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], "float64")


def turned(ring: np.ndarray, degrees: float, x: float, y: float) -> np.ndarray:
    """Turns corners `(N, 2)` clockwise, as seen on the screen, about a point."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (ring - (x, y)) @ np.array([(cos, sin), (-sin, cos)]) + (x, y)


def fill(rings: Sequence[np.ndarray], height: int, width: int) -> Window:
    """Finds the pixels whose centres lie in an odd number of polygons.

    Args:
        rings: The corners of each, `(N, 2)`, x first.
        height: Of the image.
        width: Of the image.
    """
    corners = np.concatenate(rings)
    (least_x, least_y), (most_x, most_y) = corners.min(0), corners.max(0)
    top, bottom = _range(least_y, most_y, height)
    left, right = _range(least_x, most_x, width)
    if bottom <= top or right <= left:
        return Window(0, 0, np.zeros((0, 0), bool))
    starts, ends = corners, np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    upper, lower = np.where((starts[:, 1] < ends[:, 1])[:, None], (starts, ends), (ends, starts))
    # An edge crosses the rows whose centres are from its upper end on and before its lower end.
    first = np.clip(np.ceil(upper[:, 1] - 0.5), top, bottom).astype(int)
    last = np.clip(np.ceil(lower[:, 1] - 0.5), top, bottom).astype(int)
    counts = last - first
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    (x0, y0), (x1, y1) = upper[edge].T, lower[edge].T
    crossing = x0 + (row + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
    column = np.clip(np.ceil(crossing - 0.5), left, right).astype(int)
    # From a crossing on, what was outside is inside.
    crossings = np.zeros((bottom - top, right - left + 1), "int32")
    np.add.at(crossings, (row - top, column - left), 1)
    return Window(top, left, np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1)


def _range(least: float, most: float, size: int) -> tuple[int, int]:
    """The first index whose centre may lie in a range, and the one after the last."""
    first, end = np.clip([np.ceil(least - 0.5), np.floor(most - 0.5) + 1], 0, size)
    return int(first), int(end)


@dataclass(frozen=True)
class Annotation:
    """One area and the name of its class."""

    label: str
    area: Area
    where: str
    """What errors call it."""
    layer: int = 0
    """A higher one lies above, whatever the order."""


@dataclass
class AnnotatedImage:
    """What an export says about one image."""

    name: str
    """As the export has it, `/` between folders."""
    where: str
    """What errors call it."""
    size: tuple[int, int] | None = None
    """Height and width that the export gives; None where it gives none."""
    annotations: list[Annotation] = field(default_factory=list)
    """From below to above."""
    looked_at: bool = True
    """Whether someone is said to have annotated it, with nothing found perhaps."""
    base: Path | None = None
    """The folder that the name is relative to; None where the tool has none."""
    unread: int = 0
    """What is drawn on it and no area."""


@dataclass
class Export:
    """What an export of an annotation tool holds."""

    file: str
    images: list[AnnotatedImage] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    """Names of classes in the order in which they are declared; empty where they are not."""
    unread: Counter[str] = field(default_factory=Counter)
    """Annotations that are no areas, by their kind."""
    notes: list[str] = field(default_factory=list)
    """What else is not used."""

    def leave_out(self, image: AnnotatedImage, kind: str, drawn: bool = True) -> None:
        """Notes an annotation that is no area; one that is not drawn is about the image as a whole."""
        image.unread += drawn
        self.unread[kind] += 1
