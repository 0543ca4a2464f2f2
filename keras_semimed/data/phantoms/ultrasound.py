"""Synthetic breast ultrasound: a tissue model and the physics that turns it into a B-mode picture.

Every phantom holds one lesion in layered tissue. Scatterers are complex Gaussian (baseband) numbers weighted by the
local echogenicity; a point-spread function that widens away from the focus makes fully developed speckle of them, so
the envelope is Rayleigh distributed. Attenuation is summed along each beam: shadows and enhancement are not painted,
they follow from what lies above. Benign and malignant lesions differ in the signs that a sonographer uses (shape,
orientation, margin, echogenicity, texture, posterior features, halo, calcifications), each with overlap: no single
sign decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_semimed.data.phantoms.tools import check_count, check_phantom, generators, ridge, step

FIELD_MM = 40.0
CLASS_NAMES = ("benign", "malignant")
MALIGNANT_SHARE = 1 / 3
_PADDING_MM = 2.5
_ATTENUATION_DB_PER_MM = 1.0  # there and back, about 0.5 dB/cm/MHz at 10 MHz


def ultrasound_phantoms(count: int = 400, size: int = 128, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The phantoms with index 0 to `count` - 1.

    Args:
        count: number of phantoms.
        size: height and width in pixels.
        seed: non-negative integer; another seed gives another set of patients.

    Returns:
        images (N, H, W) uint8, masks (N, H, W) uint8 with 1 inside the lesion, labels (N,) int32 with 1 for malignant.

    Raises:
        ValueError: when an argument is out of range.
    """
    check_count(count)
    phantoms = [ultrasound_phantom(index, size, seed) for index in range(count)]
    images, masks, labels = zip(*phantoms, strict=True)
    return np.stack(images), np.stack(masks), np.array(labels, np.int32)


def ultrasound_phantom(index: int, size: int = 128, seed: int = 0) -> tuple[np.ndarray, np.ndarray, int]:
    """One phantom, a pure function of its arguments.

    The lesion (label, place, outline) depends on `seed` and `index` alone; tissue texture and speckle also on `size`.

    Args:
        index: which phantom, from 0.
        size: height and width in pixels, at least 32; the picture shows 40 mm x 40 mm whatever its size.
        seed: non-negative integer.

    Returns:
        image (H, W) uint8, mask (H, W) uint8 with 1 inside the lesion, label 0 (benign) or 1 (malignant).

    Raises:
        ValueError: when an argument is out of range.
    """
    check_phantom(index, size, seed)
    scene, texture = generators(seed, index)
    lesion = draw_lesion(scene)
    grid = Grid(size)
    echogenicity = _tissue(scene, texture, grid)
    attenuation = _distractors(scene, grid, echogenicity)
    _insert_lesion(lesion, texture, grid, echogenicity, attenuation)
    image = _scan(scene, texture, grid, echogenicity, attenuation)
    z, x = grid.pixel_centres()
    return image, (lesion.outline.distance(z, x) < 0).astype(np.uint8), lesion.label


@dataclass(frozen=True)
class Grid:
    """Sampling of the tissue: twice as fine in depth as in width, with a margin that the picture leaves out."""

    size: int

    @property
    def margin(self) -> int:
        """Margin on each side, in columns."""
        return round(self.size * _PADDING_MM / FIELD_MM)

    @property
    def pitch(self) -> tuple[float, float]:
        """Distance of neighbouring samples in depth and width, in mm."""
        return FIELD_MM / (2 * self.size), FIELD_MM / self.size

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns with the margin."""
        return 2 * self.size + 4 * self.margin, self.size + 2 * self.margin

    def samples(self) -> tuple[np.ndarray, np.ndarray]:
        """Depth (rows, 1) and lateral place (1, columns) in mm; 0 is the picture's edge."""
        rows, columns = self.shape
        z = (np.arange(rows) - 2 * self.margin + 0.5) * self.pitch[0]
        x = (np.arange(columns) - self.margin + 0.5) * self.pitch[1]
        return z[:, None], x[None, :]

    def pixel_centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Depth (H, 1) and lateral place (1, W) of the picture's pixels in mm."""
        centres = (np.arange(self.size) + 0.5) * self.pitch[1]
        return centres[:, None], centres[None, :]

    def crop(self, values: np.ndarray) -> np.ndarray:
        """The picture's part of `values` (rows, columns), as (2 H, W)."""
        return values[2 * self.margin : 2 * (self.margin + self.size), self.margin : self.margin + self.size]


@dataclass(frozen=True)
class Outline:
    """A closed curve: an ellipse whose radius is modulated by harmonics of the angle. Lengths in mm."""

    depth: float
    lateral: float
    half_height: float
    half_width: float
    tilt: float = 0.0
    amplitudes: tuple[float, ...] = ()
    phases: tuple[float, ...] = ()

    def polar(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Radius relative to the curve (1 on it) and angle of each point."""
        z, x = z - self.depth, x - self.lateral
        cosine, sine = np.cos(self.tilt), np.sin(self.tilt)
        across = (x * cosine + z * sine) / self.half_width
        down = (z * cosine - x * sine) / self.half_height
        length = np.hypot(across, down)
        if not self.amplitudes:
            return length, np.arctan2(down, across)
        turn = (across + 1j * down) / np.maximum(length, 1e-9)  # exp(i angle)
        harmonics = np.zeros_like(turn)
        for amplitude, phase in zip(self.amplitudes[::-1], self.phases[::-1], strict=True):
            harmonics = (harmonics + amplitude * np.exp(1j * phase)) * turn
        radius = 1.0 + (harmonics * turn).real  # sum of amplitude cos(k angle + phase), k = 2, 3, …
        return length / np.maximum(radius, 0.5), np.angle(turn)

    def distance(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """About the distance to the curve in mm, negative inside."""
        return (self.polar(z, x)[0] - 1.0) * np.sqrt(self.half_height * self.half_width)


@dataclass(frozen=True)
class Lesion:
    """What a lesion is made of. Levels in dB relative to glandular tissue, lengths in mm."""

    label: int
    outline: Outline
    level: float
    texture: float
    margin: float
    rim: float
    halo: float
    excess_attenuation: float  # dB/mm beyond the gland's; negative = posterior enhancement
    edge_shadow: float
    calcifications: tuple[tuple[float, float], ...]  # (radius, angle) relative to the outline


def draw_lesion(rng: np.random.Generator) -> Lesion:
    """Draws a label and a lesion that has most, seldom all, of that label's signs."""
    malignant = bool(rng.random() < MALIGNANT_SHARE)
    irregularity = np.exp(rng.normal(-2.1 if malignant else -3.4, 0.45))
    outline = _draw_outline(rng, np.exp(rng.normal(0.12 if malignant else -0.42, 0.25)), irregularity)
    spots = rng.integers(3, 9) if rng.random() < (0.7 if malignant else 0.06) else 0
    return Lesion(
        label=int(malignant),
        outline=outline,
        level=float(np.clip(rng.normal(-17.0 if malignant else -15.5, 3.0), -26.0, -9.5)),
        texture=float(np.exp(rng.normal(1.45 if malignant else 0.2, 0.4))),
        margin=float(np.exp(rng.normal(-0.7 if malignant else -1.5, 0.45))),
        rim=float(rng.uniform(7.0, 13.0)) if rng.random() < (0.06 if malignant else 0.65) else 0.0,
        halo=float(rng.uniform(5.0, 11.0)) if rng.random() < (0.85 if malignant else 0.08) else 0.0,
        excess_attenuation=float(max(rng.normal(0.65 if malignant else -0.5, 0.4), -0.9)),
        edge_shadow=float(rng.uniform(3.0, 8.0)) if rng.random() < (0.15 if malignant else 0.5) else 0.0,
        calcifications=tuple((float(r), float(a)) for r, a in rng.uniform((0.0, -np.pi), (0.85, np.pi), (spots, 2))),
    )


def _draw_outline(rng: np.random.Generator, aspect: float, irregularity: float) -> Outline:
    area = FIELD_MM**2 * np.exp(rng.triangular(np.log(0.014), np.log(0.085), np.log(0.24)))
    half_width = np.sqrt(area / (np.pi * aspect))
    half_height = half_width * aspect
    orders = np.arange(2, 12)
    amplitudes = irregularity * rng.normal(size=orders.size) * (2.0 / orders) ** 0.6
    amplitudes *= min(1.0, 0.5 / np.sum(np.abs(amplitudes)))
    room = 1.2 * np.array([half_height, half_width])
    low, high = room + (2.5, 1.0), FIELD_MM - room - (3.0, 1.0)
    depth, lateral = rng.uniform(np.minimum(low, FIELD_MM / 2), np.maximum(high, FIELD_MM / 2))
    return Outline(
        depth=float(low[0] + (depth - low[0]) * 0.75),  # deep tissue is seldom the place
        lateral=float(lateral),
        half_height=float(half_height),
        half_width=float(half_width),
        tilt=float(rng.normal(0.0, 0.25)),
        amplitudes=tuple(amplitudes.tolist()),
        phases=tuple(rng.uniform(-np.pi, np.pi, orders.size).tolist()),
    )


def _smooth_noise(rng: np.random.Generator, grid: Grid, depth_mm: float, lateral_mm: float) -> np.ndarray:
    """Gaussian field (rows, columns), mean 0, deviation 1, with the given correlation lengths."""
    rows, columns = grid.shape
    spectrum = np.fft.rfft2(rng.standard_normal((rows, columns)))
    down = np.fft.fftfreq(rows, grid.pitch[0])[:, None] * depth_mm
    across = np.fft.rfftfreq(columns, grid.pitch[1])[None, :] * lateral_mm
    spectrum *= np.exp(-2.0 * np.pi**2 * down**2) * np.exp(-2.0 * np.pi**2 * across**2)
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(rows, columns))
    return field / field.std()


def _curve(rng: np.random.Generator, x: np.ndarray, depth: float, swing: float) -> np.ndarray:
    """A gently bent layer boundary: its depth in mm at each lateral place."""
    bend = rng.normal(0.0, 0.04) * (x - FIELD_MM / 2)
    for wavelength in (55.0, 30.0, 14.0):
        bend = bend + swing * wavelength / 55.0 * np.sin(2 * np.pi * (x / wavelength + rng.random()))
    return depth + bend


def _follow(field: np.ndarray, curve: np.ndarray, pitch: float) -> np.ndarray:
    """Moves each column of `field` down by `curve` mm, so that streaks run along a layer."""
    rows = np.arange(field.shape[0])[:, None] - np.rint(curve / pitch).astype(int)
    return np.take_along_axis(field, rows % field.shape[0], axis=0)


def _tissue(scene: np.random.Generator, texture: np.random.Generator, grid: Grid) -> np.ndarray:
    """Echogenicity (rows, columns) in dB of skin, fat, gland, muscle and chest wall; gland is 0."""
    z, x = grid.samples()
    pitch = grid.pitch[0]
    gland_top = _curve(scene, x, scene.uniform(5.0, 12.0), 1.2)
    muscle_top = _curve(scene, x, scene.uniform(21.0, 32.0), 1.0)
    chest_wall = np.maximum(_curve(scene, x, scene.uniform(31.0, 48.0), 1.2), muscle_top + 4.0)
    fat_level, muscle_level = scene.normal(-9.0, 1.5), scene.normal(-9.5, 1.5)

    septa = _follow(_smooth_noise(texture, grid, 1.8, 4.5), 0.5 * gland_top, pitch)
    fat = fat_level + 2.0 * np.tanh(septa) + scene.uniform(9.0, 14.0) * ridge(septa, 0.13)
    streaks = _follow(_smooth_noise(texture, grid, 0.45, 2.0), 0.5 * (gland_top + muscle_top), pitch)
    patches = _smooth_noise(texture, grid, 2.5, 4.0)
    gland = scene.uniform(3.0, 6.0) * streaks + scene.uniform(1.5, 4.0) * patches
    striae = _follow(_smooth_noise(texture, grid, 0.3, 3.5), muscle_top, pitch)
    muscle = muscle_level + 4.0 * np.maximum(striae, -1.5) + 4.0 * np.maximum(striae - 1.0, 0.0)

    edge = 0.35 * streaks  # no layer ends along a ruler
    level = fat + (gland - fat) * step(z - gland_top + edge, 0.25)
    level += (muscle - level) * step(z - muscle_top + edge, 0.2)
    strength = 1.0 + 0.4 * patches
    level += 7.0 * strength * (ridge(z - muscle_top, 0.35) + 0.6 * ridge(z - gland_top + edge, 0.3))
    level += (-16.0 - level) * step(z - chest_wall, 0.3)
    level += 20.0 * ridge(z - chest_wall, 0.5)
    skin = scene.uniform(1.2, 2.2)
    level += (2.0 - level) * step(skin - z, 0.15) + 9.0 * (ridge(z - skin, 0.3) + ridge(z - 0.2, 0.3))
    return level


def _distractors(scene: np.random.Generator, grid: Grid, echogenicity: np.ndarray) -> np.ndarray:
    """Puts fat lobules into `echogenicity`; returns the attenuation (dB/mm) of tissue with a few shadowing strands."""
    z, x = grid.samples()
    for _ in range(scene.integers(0, 6)):
        half_width = scene.uniform(2.0, 5.5)
        depth, lateral = scene.uniform((9.0, 2.0), (27.0, 38.0))
        lobule = Outline(depth, lateral, half_width * scene.uniform(0.3, 0.65), half_width, scene.normal(0.0, 0.25))
        distance = lobule.distance(z, x)
        inside = step(-distance, 0.35)
        echogenicity += (scene.normal(-10.5, 1.5) + 0.25 * echogenicity - echogenicity) * inside
        echogenicity += 4.0 * ridge(distance, 0.4)
    attenuation = np.full(grid.shape, _ATTENUATION_DB_PER_MM)
    for _ in range(scene.integers(0, 4)):
        start, place = scene.uniform((0.0, 0.0), (16.0, FIELD_MM))
        width, loss = scene.uniform((0.6, 2.0), (3.0, 9.0))
        attenuation += loss / 2.0 * ridge(x - place, width) * ridge(z - start, 2.0 / np.sqrt(np.pi))
    return attenuation


def _insert_lesion(
    lesion: Lesion, texture: np.random.Generator, grid: Grid, echogenicity: np.ndarray, attenuation: np.ndarray
) -> None:
    """Writes the lesion into both maps."""
    z, x = grid.samples()
    outline = lesion.outline
    radius, angle = outline.polar(z, x)
    size = np.sqrt(outline.half_height * outline.half_width)
    distance = (radius - 1.0) * size
    fray = lesion.margin * 0.8 * _smooth_noise(texture, grid, 0.5, 0.7)
    inside = step(-(distance + fray), lesion.margin / 2.0)
    if lesion.halo:
        spikes = 0.6 + 0.4 * np.cos(11.0 * angle + 2.0 * np.sin(3.0 * angle))
        echogenicity += lesion.halo * spikes * step(distance, 0.3) * np.exp(-np.maximum(distance, 0.0) / (0.45 * size))
    grain = lesion.texture * _smooth_noise(texture, grid, 0.9, 1.3)
    echogenicity += (lesion.level + grain - echogenicity) * inside
    echogenicity += lesion.rim * ridge(distance - 0.25, 0.35)
    for spot_radius, spot_angle in lesion.calcifications:
        gap = size * np.abs(radius * np.exp(1j * angle) - spot_radius * np.exp(1j * spot_angle))
        echogenicity += 24.0 * ridge(gap, 0.35)
    attenuation += lesion.excess_attenuation * inside
    for side in (-1.0, 1.0):
        beam = ridge(x - outline.lateral - side * 0.97 * outline.half_width, 0.7)
        attenuation += lesion.edge_shadow / 4.0 * beam * ridge(z - outline.depth, 4.0 / np.sqrt(np.pi))


def speckle(rng: np.random.Generator, grid: Grid, amplitude: np.ndarray, focus_mm: float) -> np.ndarray:
    """Complex baseband echo (rows, columns) of random scatterers with the given amplitude.

    The point-spread function is Gaussian, with deviation 0.2 mm in depth and 0.32 mm in width at the focus, wider away
    from it, and has unit energy: where `amplitude` is constant the envelope is Rayleigh distributed with mean square
    `amplitude` squared.
    """
    rows, columns = grid.shape
    scatterers = rng.standard_normal((rows, columns)) + 1j * rng.standard_normal((rows, columns))
    z, _ = grid.samples()
    width = 0.32 * np.sqrt(1.0 + ((z - focus_mm) / 16.0) ** 2)
    down = np.fft.fftfreq(rows, grid.pitch[0])[:, None]
    across = np.fft.fftfreq(columns, grid.pitch[1])[None, :]
    down_response = np.exp(-2.0 * (np.pi * 0.2 * down) ** 2)
    across_response = np.exp(-2.0 * (np.pi * width * across) ** 2)
    down_response /= np.sqrt(np.mean(down_response**2))
    across_response /= np.sqrt(np.mean(across_response**2, axis=1, keepdims=True))
    field = np.fft.ifft(np.fft.fft(amplitude * scatterers, axis=0) * down_response, axis=0)
    return np.fft.ifft(np.fft.fft(field, axis=1) * across_response, axis=1) / np.sqrt(2.0)


def _scan(
    scene: np.random.Generator,
    texture: np.random.Generator,
    grid: Grid,
    echogenicity: np.ndarray,
    attenuation: np.ndarray,
) -> np.ndarray:
    """The B-mode picture (H, W) uint8 of a tissue: beams, speckle, time-gain compensation, log compression."""
    z, x = grid.samples()
    focus = scene.uniform(12.0, 24.0)
    loss = np.cumsum(np.where(z > 0.0, attenuation, 0.0), axis=0) * grid.pitch[0]
    across = np.fft.rfftfreq(grid.shape[1], grid.pitch[1])
    aperture = np.exp(-2.0 * (np.pi * 0.65 * across) ** 2)  # neighbouring beams share tissue: shadows have soft sides
    loss = np.fft.irfft(np.fft.rfft(loss, axis=1) * aperture, n=grid.shape[1], axis=1)
    compensation = np.maximum(z, 0.0) * (_ATTENUATION_DB_PER_MM + scene.normal(0.0, 0.15))
    lateral_gain = scene.normal(0.0, 2.5) * np.sin(2 * np.pi * (x / scene.uniform(30.0, 80.0) + scene.random()))
    noise_level = scene.uniform(-72.0, -58.0)
    dynamic_range, gain = scene.uniform(44.0, 56.0), scene.normal(0.0, 3.5)

    envelopes = []
    for _ in range(scene.integers(1, 4)):  # looks that a scanner compounds into one picture
        echo = speckle(texture, grid, 10.0 ** ((echogenicity - loss) / 20.0), focus)
        thermal = texture.standard_normal((2, *grid.shape)) * 10.0 ** (noise_level / 20.0)
        envelopes.append(np.hypot(echo.real + thermal[0], echo.imag + thermal[1]))
    decibel = 20.0 * np.log10(np.mean(envelopes, axis=0) + 1e-12)
    grey = (decibel + compensation + lateral_gain + gain) / dynamic_range + 0.6
    grey = np.clip(grid.crop(grey), 0.0, 1.0).reshape(grid.size, 2, grid.size).mean(axis=1)
    return np.rint(255.0 * grey).astype(np.uint8)
