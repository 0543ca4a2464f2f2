"""Files that people report as read wrongly without a word, with random values."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from benchmarks.fuzz_cases import Case, good_folder, kind, odd_image, random_pixels
from tests.data.dicom_files import dicom
from tests.data.image_files import encoded


def _lesion(rng: np.random.Generator) -> np.ndarray:
    """A rectangle `(16, 16)` that resizing to 16 leaves as it is."""
    top, left = rng.integers(0, 8, 2)
    lesion = np.zeros((16, 16), bool)
    lesion[top : top + 7, left : left + 7] = True
    return lesion


def _mask(path, content: bytes, expected: np.ndarray | None) -> Case:
    (good_folder(path) / "labeled/masks/good.png").write_bytes(content)
    return Case(path, "good.png", None if expected is None else expected.astype("uint8"))


def _palette(lesion: np.ndarray, colours: list[tuple[int, ...]]) -> bytes:
    image = Image.fromarray(lesion.astype("uint8"), "P")
    image.putpalette([int(value) for colour in colours for value in colour])
    return encoded(image)


@kind("palette mask")
def palette(rng, path):
    """Black and a colour; with black in the first place, or in the second."""
    lesion, colour = _lesion(rng), tuple(rng.integers(1, 256, 3))
    if rng.random() < 0.5:
        return _mask(path, _palette(lesion, [(0, 0, 0), colour]), lesion)
    return _mask(path, _palette(~lesion, [colour, (0, 0, 0)]), None)


@kind("mask with transparency")
def transparency(rng, path):
    """Drawn in a grey on transparent: right where the shape is in the grey, too."""
    lesion, ground = _lesion(rng), int(rng.choice([0, 255]))
    inside = int(rng.choice([0, 255]))
    grey = np.where(lesion, inside, ground)
    alpha = np.where(lesion, 255, 0) if rng.random() < 0.7 else np.full(lesion.shape, 255)
    content = encoded(np.stack([grey, grey, grey, alpha], -1).astype("uint8"))
    if inside == ground:
        plain = alpha.min() == 255  # one grey, nothing hidden
        return _mask(path, content, np.full(lesion.shape, inside > 0) if plain else None)
    shown = np.where(alpha > 0, grey, 0)
    return _mask(path, content, shown > 0 if (shown == grey).all() else None)


@kind("two levels of a mask")
def levels(rng, path):
    """Background 0 and a lesion of any value: 1 and 255 are known, others are not."""
    lesion, white = _lesion(rng), int(rng.choice([1, 255, *rng.integers(2, 255, 4)]))
    return _mask(path, encoded((white * lesion).astype("uint8")), lesion if white in (1, 255) else None)


@kind("lossy mask with a third level")
def lossy(rng, path):
    """A JPEG of large areas."""
    mask = np.zeros((48, 48), "uint8")
    mask[4:22, 4:40] = int(rng.integers(60, 196))
    if rng.random() < 0.7:
        mask[26:44, 4:40] = 255
    case = _mask(path, encoded(mask, "JPEG", quality=int(rng.integers(60, 96))), None)
    (path / "labeled/images/good.png").write_bytes(encoded(random_pixels(rng, 48)[:, :1].repeat(48, 1)))
    return case


@kind("16-bit colour")
def colour16(rng, path):
    """A TIFF whose colours use all bits, or the lower ones."""
    import tifffile

    pixels = random_pixels(rng).astype("uint16")
    bits = int(rng.choice([8, 12, 16]))
    file = io.BytesIO()
    tifffile.imwrite(file, pixels << (bits - 8), photometric="rgb")
    return odd_image(path, file.getvalue(), pixels.astype("uint8") if bits == 16 else None, "odd.tif")


@kind("bits of a DICOM image")
def bits(rng, path):
    """Stored bits declared or not, either way round, with values that use all of them."""
    used, declared = (int(value) for value in rng.choice([10, 12, 14, 16], 2))
    declared = max(used, declared)
    pixels = rng.integers(0, 2**used, (20, 31)).astype("uint16")
    pixels[0, :2] = 0, 2**used - 1
    inverted = bool(rng.random() < 0.5)
    content = dicom(pixels, "MONOCHROME1" if inverted else "MONOCHROME2", BitsStored=declared)
    white = 2**declared - 1
    shown = np.rint((white - pixels.astype("float64") if inverted else pixels) / white * 255).astype("uint8")
    # A sixteenth of the scale is the least that an image has to use.
    return odd_image(path, content, shown if declared - used < 4 else None, "odd.dcm")


@kind("lookup table of a DICOM image")
def lookup_table(rng, path):
    """A table that holds as many bits as it declares, or fewer."""
    from pydicom.dataset import Dataset

    held = int(rng.choice([8, 12]))
    table = Dataset()
    table.add_new(0x00283002, "US", [4096, 0, int(rng.choice([held, 16]))])
    entries = np.sort(rng.integers(0, 2**held, 4096))
    entries[-1] = 2**held - 1
    table.add_new(0x00283006, "US", entries.tolist())
    pixels = rng.integers(0, 4096, (20, 31)).astype("uint16")
    pixels[0, 0] = 4095
    shown = np.rint(entries[pixels] / (2**held - 1) * 255).astype("uint8")
    return odd_image(path, dicom(pixels, BitsStored=12, VOILUTSequence=[table]), shown, "odd.dcm")


@kind("further formats")
def formats(rng, path):
    """WebP without loss, GIF, PGM and JPEG 2000 without loss, of grey images."""
    grey = random_pixels(rng)[..., 0]
    name, options = [("WEBP", {"lossless": True}), ("GIF", {}), ("PPM", {}), ("JPEG2000", {})][int(rng.integers(4))]
    suffix = {"WEBP": "webp", "GIF": "gif", "PPM": "pgm", "JPEG2000": "jp2"}[name]
    return odd_image(path, encoded(grey, name, **options), grey, f"odd.{suffix}")
