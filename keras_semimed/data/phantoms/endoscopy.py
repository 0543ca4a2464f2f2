"""Synthetic colonoscopy: a folded tube with polyps, seen by a camera that carries the light.

Rays are followed to the wall, so folds hide what is behind them; brightness falls with the square of the distance and
with the slope. Polyps have nearly the colour of the mucosa around them (low boundary contrast), and their two kinds
differ in signs that overlap (low inter-class contrast): adenomatous ones, the common kind, tend to be redder, higher,
lobed, with a gyrate surface; hyperplastic ones, the rare kind, paler, flat, smooth, with small pits. Residue, reddened
patches and folds look alike at first sight and are no lesions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_semimed.data.phantoms.endoscopy_scene import FAR, Fold, Polyp, Scene, Tube, frame, rays
from keras_semimed.data.phantoms.tools import check_count, check_phantom, generators, ridge, step

MASK_NAMES = ("background", "adenomatous", "hyperplastic")
ADENOMATOUS, HYPERPLASTIC = 1, 2
NO_LESION_SHARE = 0.15
SECOND_LESION_SHARE = 0.15
HYPERPLASTIC_SHARE = 0.22


def endoscopy_phantoms(count: int = 300, size: int = 128, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The phantoms with index 0 to `count` - 1.

    Args:
        count: number of phantoms.
        size: height and width in pixels.
        seed: non-negative integer; another seed gives another set.

    Returns:
        images (N, H, W, 3) uint8, masks (N, H, W) uint8: 0 background, 1 adenomatous, 2 hyperplastic.

    Raises:
        ValueError: when an argument is out of range.
    """
    check_count(count)
    images, masks = zip(*(endoscopy_phantom(index, size, seed) for index in range(count)), strict=True)
    return np.stack(images), np.stack(masks)


def endoscopy_phantom(index: int, size: int = 128, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One phantom, a pure function of its arguments.

    What is shown depends on `seed` and `index` alone, sensor noise also on `size`.

    Args:
        index: which phantom, from 0.
        size: height and width in pixels, at least 32.
        seed: non-negative integer.

    Returns:
        image (H, W, 3) uint8, mask (H, W) uint8: 0 background, 1 adenomatous, 2 hyperplastic polyp.

    Raises:
        ValueError: when an argument is out of range.
    """
    check_phantom(index, size, seed)
    rng, texture = generators(seed, index)
    scene = draw_scene(rng)
    look = _draw_look(rng)
    border, visible = _aperture(rng, size)
    directions = rays(size)[visible]
    depth = scene.hit(directions)
    points = depth[:, None] * directions
    kinds = np.zeros(len(points), np.uint8)
    wall = scene.tube.distance(points)
    albedo = _mucosa(rng, look, points)
    for polyp in scene.polyps:
        edge = polyp.distance(points) - wall + 0.2 * polyp.blend  # negative on the polyp
        kinds[(edge < 0) & (depth < FAR)] = polyp.kind
        near = edge < polyp.blend
        cover = step(-edge[near], 0.12 * polyp.blend)[:, None]
        albedo[near] += (_polyp_colour(rng, look, polyp, points[near], albedo[near]) - albedo[near]) * cover
    light = np.zeros((size, size, 3))
    light[visible] = _shade(rng, look, scene, points, depth, directions, albedo)
    mask = np.zeros((size, size), np.uint8)
    mask[visible] = kinds
    return _develop(texture, look, light, border), mask


@dataclass(frozen=True)
class _Look:
    """Colours and optics of one picture."""

    mucosa: np.ndarray  # (3,) linear reflectance
    vessels: float
    wetness: float
    exposure: float
    ambient: float
    noise: float
    blur: int


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draws a tube and its polyps: none, one or two."""
    yaw, pitch = rng.normal(0.0, 0.6, 2)
    along = np.array([np.sin(yaw), np.sin(pitch), 1.0])
    tube = Tube(
        centre=tuple(rng.uniform(-0.3, 0.3, 2)),
        axes=frame(along / np.linalg.norm(along), rng.uniform(-np.pi, np.pi)),
        bend=tuple(rng.normal(0.0, 0.05, 2)),
        bulge=(rng.normal(0.0, 0.05), rng.normal(0.0, 0.04)),
        folds=_draw_folds(rng),
    )
    lesions = 0 if rng.random() < NO_LESION_SHARE else 1 + (rng.random() < SECOND_LESION_SHARE)
    polyps: list[Polyp] = []
    for _ in range(lesions):
        polyps.append(_draw_polyp(rng, tube, polyps))
    return Scene(tube, tuple(polyps))


def _draw_folds(rng: np.random.Generator) -> tuple[Fold, ...]:
    folds, depth = [], rng.uniform(0.3, 1.2)
    while depth < 6.0:
        for turn in rng.uniform(-np.pi, np.pi) + np.array([0.0, 2.1])[: rng.integers(1, 3)]:
            folds.append(
                Fold(
                    depth=depth + rng.normal(0.0, 0.1),
                    slant=tuple(rng.normal(0.0, 0.22, 2)),
                    turn=turn,
                    height=rng.uniform(0.15, 0.5),
                    width=rng.uniform(0.09, 0.17),
                    spread=rng.uniform(0.25, 0.8),
                )
            )
        depth += rng.uniform(0.6, 1.3)
    return tuple(folds)


def _draw_polyp(rng: np.random.Generator, tube: Tube, others: list[Polyp]) -> Polyp:
    """A polyp where a ray of the middle of the picture meets the wall."""
    kind = HYPERPLASTIC if rng.random() < HYPERPLASTIC_SHARE else ADENOMATOUS
    scene = Scene(tube, tuple(others))
    while True:
        angle, turn = np.deg2rad(rng.uniform(5.0, 42.0)), rng.uniform(-np.pi, np.pi)
        ray = np.array([[np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)]])
        depth = scene.hit(ray)[0]
        foot = depth * ray[0]
        if depth < 3.0 and all(np.linalg.norm(foot - polyp.centre) > 2.5 * max(polyp.half) for polyp in others):
            break
    normal = scene.normals(foot[None])[0]
    flat = kind == HYPERPLASTIC
    width = depth * np.exp(rng.normal(-1.35 if flat else -1.1, 0.33))  # half of it, as the camera sees it
    width = min(width, 0.55)
    height = width * np.clip(np.exp(rng.normal(-0.85 if flat else -0.3, 0.3)), 0.25, 1.1)
    stretch = np.exp(rng.normal(0.0, 0.18))
    lobing = np.exp(rng.normal(-3.6 if flat else -2.7, 0.4))
    waves = rng.normal(0.0, 2.6, (4, 3))
    return Polyp(
        kind=kind,
        centre=foot + normal * height * (rng.uniform(-0.15, 0.25) if flat else rng.uniform(0.0, 0.6)),
        axes=frame(normal, rng.uniform(-np.pi, np.pi)),
        half=(width * stretch, width / stretch, height),
        lobes=tuple((lobing, *wave) for wave in waves),
        blend=float(height * rng.uniform(0.35, 0.9)),
    )


def _draw_look(rng: np.random.Generator) -> _Look:
    hue, paleness = rng.normal(0.0, 1.0), rng.normal(0.0, 1.0)
    mucosa = np.array([0.74, 0.215 + 0.025 * hue + 0.035 * paleness, 0.130 - 0.012 * hue + 0.035 * paleness])
    return _Look(
        mucosa=np.clip(mucosa, 0.05, 0.8),
        vessels=float(np.clip(rng.normal(0.75, 0.4), 0.0, 1.4)),
        wetness=float(np.exp(rng.normal(-0.1, 0.5))),
        exposure=float(np.exp(rng.normal(0.0, 0.15))),
        ambient=float(rng.uniform(0.02, 0.08)),
        noise=float(rng.uniform(1.0, 2.5)),
        blur=int(rng.integers(1, 3)),
    )


def _waves(rng: np.random.Generator, points: np.ndarray, wavelength: float, count: int = 10) -> np.ndarray:
    """A smooth random field (N,) at `points` (N, 3): deviation 1, features of about `wavelength`, any resolution."""
    vectors = rng.standard_normal((count, 3))
    vectors *= (2.0 * np.pi / wavelength * rng.uniform(0.6, 1.4, count) / np.linalg.norm(vectors, axis=1))[:, None]
    return np.cos(points @ vectors.T + rng.uniform(0.0, 2.0 * np.pi, count)).sum(1) * np.sqrt(2.0 / count)


def _mucosa(rng: np.random.Generator, look: _Look, points: np.ndarray) -> np.ndarray:
    """Reflectance (N, 3) of the wall: blotches, fine grain, vessels, now and then residue or a reddened patch."""
    blotches, grain = _waves(rng, points, 0.9), _waves(rng, points, 0.11, 14)
    colour = look.mucosa * (1.0 + np.array([0.05, 0.12, 0.14]) * blotches[:, None] + 0.05 * grain[:, None])
    bent = points + 0.06 * np.stack([_waves(rng, points, 0.3, 6) for _ in range(3)], -1)
    where = step(_waves(rng, points, 1.3, 6) + 0.4, 0.25)
    for wavelength, width, strength in ((0.9, 0.06, 0.75), (0.5, 0.10, 0.5)):
        vessel = ridge(_waves(rng, bent, wavelength), width) * where * look.vessels * strength
        colour = colour * (1.0 - np.minimum(vessel, 0.8)[:, None] * np.array([0.30, 0.65, 0.55]))
    if rng.random() < 0.3:
        patch = step(_waves(rng, points, 0.8, 6) - 1.9, 0.12)[:, None] * rng.uniform(0.4, 0.9)
        colour = colour + (np.array([0.55, 0.36, 0.06]) - colour) * patch  # residue
    if rng.random() < 0.35:
        patch = step(_waves(rng, points, 0.7, 6) - 1.7, 0.15)[:, None] * rng.uniform(0.3, 0.7)
        colour = colour * (1.0 - patch * np.array([0.05, 0.40, 0.35]))  # reddened
    return np.clip(colour, 0.01, 0.95)


def _polyp_colour(
    rng: np.random.Generator, look: _Look, polyp: Polyp, points: np.ndarray, around: np.ndarray
) -> np.ndarray:
    """Reflectance (N, 3) of a polyp, close to that of the wall."""
    place = polyp.local(points) * (max(polyp.half) / 0.3)  # pits keep their size
    shift = rng.normal((0.0, -0.13, -0.12) if polyp.kind == ADENOMATOUS else (0.04, 0.17, 0.20), (0.05, 0.07, 0.07))
    colour = (0.35 * around + 0.65 * look.mucosa) * (1.0 + shift)
    bent = place + 0.25 * np.stack([_waves(rng, place, 0.9, 6) for _ in range(3)], -1)
    gyri, pits = _waves(rng, bent, 0.5), _waves(rng, place, 0.34, 14)
    if polyp.kind == ADENOMATOUS:
        relief = np.exp(rng.normal(-1.9, 0.35)) * np.clip(gyri, -1.5, 1.5)
    else:
        relief = -np.exp(rng.normal(-2.2, 0.35)) * step(pits - 1.2, 0.12) + 0.02 * gyri
    return np.clip(colour * (1.0 + relief[:, None] * np.array([0.6, 1.0, 1.0])), 0.01, 0.95)


def _shade(
    rng: np.random.Generator,
    look: _Look,
    scene: Scene,
    points: np.ndarray,
    depth: np.ndarray,
    directions: np.ndarray,
    albedo: np.ndarray,
) -> np.ndarray:
    """Linear light (N, 3) that reaches the camera, highlights included."""
    normals = scene.normals(points)
    facing = np.clip(-np.sum(normals * directions, -1), 0.0, 1.0)
    crevice = np.clip(scene.distance(points + 0.12 * normals) / 0.12, 0.35, 1.0)
    lit = (facing**0.8 * crevice / np.maximum(depth, 0.35) ** 2)[:, None]
    light = albedo * lit * (depth < FAR)[:, None]
    bright = np.quantile(light[:, 0], 0.85)
    light = light * (look.exposure * 0.60 / max(bright, 1e-6))
    light = light + look.ambient * albedo * np.array([0.10, 0.03, 0.03])  # light that went several ways is red

    rough = np.stack([_waves(rng, points, 0.09) for _ in range(3)], -1)
    wet = step(_waves(rng, points, 0.6, 6) - 0.6, 0.3)
    bumpy = normals + 0.13 * rough
    bumpy = bumpy / np.linalg.norm(bumpy, axis=-1, keepdims=True)
    glare = np.zeros(len(points))
    for lamp in ((0.10, 0.02, 0.0), (-0.10, 0.02, 0.0)):
        towards = np.array(lamp) - points
        towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
        half = towards - directions
        half /= np.linalg.norm(half, axis=-1, keepdims=True)
        glare += np.clip(np.sum(bumpy * half, -1), 0.0, 1.0) ** 260
    glare *= look.wetness * (0.25 + wet) / np.maximum(depth, 0.5)
    return light + 1.5 * np.maximum(glare - 0.25, 0.0)[:, None] * np.array([1.0, 0.97, 0.95])


def _aperture(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of the light (H, W) the optics let through, and where the picture shows anything (H, W) bool."""
    place = (np.arange(size) + 0.5) / size * 2.0 - 1.0
    v, u = np.meshgrid(place, place, indexing="ij")
    width, height = rng.uniform(0.86, 1.02, 2)
    cut = rng.uniform(1.28, 1.62)
    inside = np.minimum(np.minimum(width - np.abs(u), height - np.abs(v)), (cut - np.abs(u) - np.abs(v)) / np.sqrt(2.0))
    if rng.random() < 0.25:  # the scope guide's inset at the lower left
        inset_width, inset_height = rng.uniform(0.45, 0.65), rng.uniform(0.45, 0.65)
        inside = np.minimum(inside, np.maximum(u + 1.0 - inset_width, 1.0 - v - inset_height))
    vignette = 1.0 - rng.uniform(0.1, 0.4) * (u * u + v * v) / 2.0
    return step(inside, 0.006) * vignette, inside > 0


def _develop(rng: np.random.Generator, look: _Look, light: np.ndarray, border: np.ndarray) -> np.ndarray:
    """The camera's picture (H, W, 3) uint8: soft lens, tone curve, black border, noise."""
    for _ in range(round(look.blur * (len(light) / 128.0) ** 2)):  # the same softness at every size
        for axis in (0, 1):
            padded = np.concatenate([light.take([0], axis), light, light.take([-1], axis)], axis)
            light = 0.25 * padded.take(range(0, light.shape[axis]), axis) + 0.5 * light
            light = light + 0.25 * padded.take(range(2, padded.shape[axis]), axis)
    level = 1.0 - np.exp(-1.6 * light * border[..., None])  # highlights saturate softly
    level = 255.0 * (level / (1.0 - np.exp(-1.6))) ** (1 / 2.2)
    grain = rng.standard_normal(light.shape) + 0.7 * rng.standard_normal((*light.shape[:2], 1))
    level = level + look.noise * grain * (0.3 + 0.7 * border[..., None])
    return np.clip(np.rint(level + 4.0), 0, 255).astype(np.uint8)
