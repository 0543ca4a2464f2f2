"""The inside of a colon as a solid shape that a camera looks into: a tube with folds, and polyps on its wall.

A surface is where a distance function is 0; it is positive in the lumen. The camera sits at the origin and looks along
+z. Lengths are in radii of the colon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FAR = 9.0
_FIELD = np.deg2rad(140.0)  # diagonal field of view of a colonoscope


def rays(size: int) -> np.ndarray:
    """Unit directions (H, W, 3) through the pixels, equal angles at equal distances from the centre, as a fisheye."""
    place = (np.arange(size) + 0.5) / size * 2.0 - 1.0
    v, u = np.meshgrid(place, place, indexing="ij")
    radius = np.hypot(u, v)
    angle = radius * _FIELD / 2.0 / np.sqrt(2.0)
    scale = np.sin(angle) / np.maximum(radius, 1e-9)
    return np.stack([u * scale, v * scale, np.cos(angle)], -1)


@dataclass(frozen=True)
class Fold:
    """A crescent-shaped fold of the wall."""

    depth: float
    slant: tuple[float, float]
    turn: float  # where around the tube it is highest
    height: float
    width: float
    spread: float  # how far around the tube it reaches


@dataclass(frozen=True)
class Tube:
    """A bent tube with folds. `axes` (3, 3) are its own directions in rows, the last one along it."""

    centre: tuple[float, float]
    axes: np.ndarray
    bend: tuple[float, float]
    bulge: tuple[float, float]
    folds: tuple[Fold, ...]

    def distance(self, points: np.ndarray) -> np.ndarray:
        """About the distance (N,) from `points` (N, 3) to the wall, positive in the lumen."""
        x, y, z = (points @ self.axes.T).T
        run = np.clip(z, 0.0, FAR) ** 2
        x = x - self.centre[0] - self.bend[0] * run
        y = y - self.centre[1] - self.bend[1] * run
        radius = np.sqrt(x * x + y * y) + 1e-9
        cosine, sine = x / radius, y / radius
        wall = 1.0 + self.bulge[0] * (cosine * cosine - sine * sine) + self.bulge[1] * np.sin(1.7 * z)
        slope = np.zeros_like(z)
        for fold in self.folds:
            along = (z - fold.depth - fold.slant[0] * cosine - fold.slant[1] * sine) / fold.width
            around = (1.0 - cosine * np.cos(fold.turn) - sine * np.sin(fold.turn)) / fold.spread
            height = fold.height * np.exp(-along * along - around)
            wall = wall - height
            slope = slope + 2.0 / fold.width * along * height
        return (wall - radius) / np.sqrt(1.0 + slope * slope)


@dataclass(frozen=True)
class Polyp:
    """A lobed ellipsoid on the wall. `axes` (3, 3): the last row points into the lumen."""

    kind: int  # value in the mask
    centre: np.ndarray
    axes: np.ndarray
    half: tuple[float, float, float]
    lobes: tuple[tuple[float, float, float, float], ...]  # amplitude, wave vector
    blend: float  # how softly it rises from the wall

    def local(self, points: np.ndarray) -> np.ndarray:
        """`points` (N, 3) in its own directions, where the ellipsoid is the unit sphere."""
        return (points - self.centre) @ self.axes.T / np.array(self.half)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """About the distance (N,) from `points` (N, 3), negative inside."""
        place = self.local(points)
        radius = np.sqrt(np.sum(place * place, -1))
        unit = place / np.maximum(radius, 1e-9)[:, None]
        surface = np.ones_like(radius)
        for amplitude, *wave in self.lobes:
            surface = surface + amplitude * np.sin(unit @ np.array(wave))
        return (radius - surface) * min(self.half)


@dataclass(frozen=True)
class Scene:
    """A tube with polyps."""

    tube: Tube
    polyps: Sequence[Polyp] = ()

    def distance(self, points: np.ndarray) -> np.ndarray:
        """About the distance (N,) from `points` (N, 3) to the nearest surface, positive in the lumen."""
        distance = self.tube.distance(points)
        for polyp in self.polyps:
            distance = _soft_minimum(distance, polyp.distance(points), polyp.blend)
        return distance

    def hit(self, directions: np.ndarray, steps: int = 100) -> np.ndarray:
        """How far (N,) rays from the origin along unit `directions` (N, 3) run, `FAR` at most."""
        depth = np.full(len(directions), 0.02)
        active = np.arange(len(directions))
        for _ in range(steps):
            gap = self.distance(depth[active, None] * directions[active])
            depth[active] += np.minimum(0.8 * gap, 0.2)  # an estimate: a longer step could pass through a fold
            active = active[(np.abs(gap) > 1e-3) & (depth[active] < FAR)]
            if not len(active):
                break
        return np.clip(depth, 0.02, FAR)

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Unit normals (N, 3) at surface `points` (N, 3), into the lumen."""
        width = 5e-3
        centre = self.distance(points)
        slope = np.stack([self.distance(points + width * axis) - centre for axis in np.eye(3)], -1)
        return slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-9)


def _soft_minimum(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """Minimum with a rounded corner where `a` and `b` differ by less than `blend`."""
    overlap = np.maximum(blend - np.abs(a - b), 0.0) / blend
    return np.minimum(a, b) - overlap * overlap * blend / 4.0


def frame(normal: np.ndarray, turn: float) -> np.ndarray:
    """Three orthogonal unit vectors in rows (3, 3), the last one `normal`, turned about it."""
    helper = np.array([1.0, 0.0, 0.0]) if abs(normal[0]) < 0.8 else np.array([0.0, 1.0, 0.0])
    first = np.cross(normal, helper)
    first = first / np.linalg.norm(first)
    second = np.cross(normal, first)
    return np.stack(
        [np.cos(turn) * first + np.sin(turn) * second, np.cos(turn) * second - np.sin(turn) * first, normal]
    )
