"""DICOM files and masks of random coding, each with the pixels or classes that it has to be read as."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.random_images import LOSS, Made, kind, pick, png, scaled, scene
from tests.data.dicom_files import dicom
from tests.data.image_files import encoded

RLE, JPEG, JPEG2000 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"


def _coded(rng: np.random.Generator, content: bytes) -> bytes:
    """The file as it is, with its pixels packed by run lengths, or without its preamble."""
    import pydicom

    form = pick(rng, "plain", "plain", "rle", "no preamble")
    if form == "rle":
        header = pydicom.dcmread(io.BytesIO(content))
        header.compress(RLE, generate_instance_uid=False)
        file = io.BytesIO()
        header.save_as(file)
        return file.getvalue()
    return content[132:] if form == "no preamble" else content


@kind("DICOM, grey of 8 to 16 bits")
def grey(rng: np.random.Generator) -> Made:
    """Either way round, signed or not, with stored bits that are declared or not, with a rescale or without."""
    stored = int(rng.integers(8, 17))
    used = int(rng.integers(8, stored + 1))
    values = scene(rng, bits=used).astype("uint16" if stored > 8 else "uint8")
    tags: dict[str, Any] = {"BitsStored": stored}
    offset = 0
    if stored > 8 and rng.random() < 0.3:  # the same picture from the least value on
        offset = -(2 ** (stored - 1))
        tags["PixelRepresentation"] = 1
    pixels = (values.astype("int32") + offset).astype("int16").view("uint16") if offset else values
    if rng.random() < 0.3:
        tags |= {"RescaleSlope": str(pick(rng, 0.5, 2, 3)), "RescaleIntercept": str(int(rng.integers(-999, 999)))}
    inverted = bool(rng.integers(2))
    shown = scaled(values, 0, 2**stored - 1) if stored <= 8 or stored - used < 4 else None
    shown = 255 - shown if inverted and shown is not None else shown
    # Halves are rounded to even numbers, from below and from above.
    return Made(
        "a.dcm", _coded(rng, dicom(pixels, f"MONOCHROME{2 - inverted}", **tags)), shown, tolerance=int(inverted)
    )


@kind("DICOM, with a window")
def window(rng: np.random.Generator) -> Made:
    """Of each function, on rescaled values, either way round."""
    values = scene(rng, bits=12)
    slope, intercept = float(pick(rng, 0.5, 1, 2)), float(rng.integers(-500, 500))
    width, centre = float(rng.integers(300, 4000)), float(rng.integers(500, 3000))
    function = str(pick(rng, "LINEAR", "LINEAR_EXACT", "SIGMOID"))
    real = values * slope + intercept
    if function == "LINEAR":
        shown = np.clip((real - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    elif function == "LINEAR_EXACT":
        shown = np.clip((real - centre) / width + 0.5, 0, 1)
    else:
        shown = 1 / (1 + np.exp(-4 * (real - centre) / width))
    inverted = bool(rng.integers(2))
    tags = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": function, "BitsStored": 12}
    tags |= {"RescaleSlope": slope, "RescaleIntercept": intercept}
    content = dicom(values, f"MONOCHROME{2 - inverted}", **tags)
    return Made("a.dcm", _coded(rng, content), np.rint(255 * (1 - shown if inverted else shown)), tolerance=1)


@kind("DICOM, with a VOI lookup table")
def lookup(rng: np.random.Generator) -> Made:
    """Of entries that hold as many bits as they declare, or fewer."""
    from pydicom.dataset import Dataset

    held = int(rng.integers(8, 17))
    declared = int(rng.integers(held, 17))
    entries = np.sort(rng.integers(0, 2**held, 4096))
    entries[-1] = 2**held - 1
    table = Dataset()
    table.add_new(0x00283002, "US", [4096, 0, declared])
    table.add_new(0x00283006, "US", entries.tolist())
    values = scene(rng, bits=12)
    content = dicom(values, BitsStored=12, VOILUTSequence=[table])
    return Made("a.dcm", _coded(rng, content), scaled(entries[values], 0, 2**held - 1), tolerance=1)


@kind("DICOM, colour")
def colour(rng: np.random.Generator) -> Made:
    """Red, green and blue, pixel by pixel or in planes, and a palette."""
    colours = scene(rng, 3)
    form = pick(rng, "pixels", "planes", "palette", "ybr")
    if form == "planes":
        planes = np.moveaxis(colours, -1, 0).reshape(colours.shape)
        content = dicom(planes, "RGB", PlanarConfiguration=1)  # pydicom's run lengths take pixels alone
        return Made("a.dcm", content[132 * int(rng.integers(2)) :], colours)
    if form == "ybr":
        turned = np.asarray(Image.fromarray(colours).convert("YCbCr"))
        return Made("a.dcm", _coded(rng, dicom(turned, "YBR_FULL")), colours, tolerance=6)
    if form == "palette":
        indices = scene(rng)
        palette = rng.integers(0, 256, (256, 3)).astype("uint16") * 257
        tags: dict[str, Any] = {}
        for index, name in enumerate(("Red", "Green", "Blue")):
            tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
            tags[f"{name}PaletteColorLookupTableData"] = palette[:, index].astype("<u2").tobytes()
        return Made("a.dcm", _coded(rng, dicom(indices, "PALETTE COLOR", **tags)), palette[indices] >> 8)
    return Made("a.dcm", _coded(rng, dicom(colours, "RGB")), colours)


@kind("DICOM, JPEG and JPEG 2000 within")
def packed(rng: np.random.Generator) -> Made:
    """Grey and colour of 8 bits."""
    pixels = scene(rng, int(pick(rng, 0, 3)))
    if rng.random() < 0.5:
        syntax, inner, loss = JPEG2000, encoded(pixels, "JPEG2000", mct=0, no_jp2=True), 0
        interpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    else:
        syntax, inner, loss = JPEG, encoded(pixels, "JPEG", quality=95, subsampling=0), LOSS
        interpretation = "MONOCHROME2" if pixels.ndim == 2 else "YBR_FULL"
    return Made("a.dcm", dicom(pixels, interpretation, syntax, inner), pixels, tolerance=loss)


def _lesion(rng: np.random.Generator) -> np.ndarray:
    """Two rectangles of classes 1 and 2, `(16, 16)`, that resizing to 16 leaves as they are."""
    top, left = (int(place) for place in rng.integers(0, 6, 2))
    classes = np.zeros((16, 16), "uint8")
    classes[top : top + 5, left : left + 5] = 1
    classes[10:15, 9:15] = 2
    return classes


@kind("mask of grey levels")
def levels(rng: np.random.Generator) -> Made:
    """Class indices, or one level of any value, of 1 to 16 bits, in PNG, TIFF, DICOM."""
    lesion = _lesion(rng) > 0
    white = int(pick(rng, 1, 255, int(rng.integers(2, 255))))
    values = (white * lesion).astype("uint8")
    form = pick(rng, "PNG", "TIFF", "DICOM", "1 bit", "16 bits")
    if form == "1 bit":
        return Made("m.png", png(lesion.astype("uint8"), 1, 0), lesion, mask=True)
    if form == "16 bits":
        white = int(pick(rng, 1, 65535, int(rng.integers(2, 65535))))
        content, known = png((white * lesion.astype("int64")).astype("uint16"), 16, 0), white in (1, 255, 65535)
        return Made("m.png", content, lesion if known else None, mask=True)
    content = dicom(values) if form == "DICOM" else encoded(values, form)
    return Made("m.png", content, lesion if white in (1, 255) else None, mask=True)


@kind("mask of colours, of a palette")
def coloured(rng: np.random.Generator) -> Made:
    """Black and a colour; an index whose colour is black, or not."""
    lesion, colours = _lesion(rng) > 0, np.zeros((2, 3), int)
    colours[1] = rng.permutation([int(rng.integers(1, 120)), int(rng.integers(120, 255)), 255])
    if rng.random() < 0.5:
        content = encoded(colours[lesion.astype(int)].astype("uint8"), pick(rng, "PNG", "TIFF", "BMP"))
        return Made("m.png", content, lesion, mask=True)
    swapped = bool(rng.integers(2))
    indices = (lesion != swapped).astype("uint8")
    content = png(indices, int(pick(rng, 1, 2, 4, 8)), 3, colours[::-1] if swapped else colours)
    return Made("m.png", content, None if swapped else lesion, mask=True)


@kind("mask with transparency")
def veiled(rng: np.random.Generator) -> Made:
    """Drawn in a grey on another, or on the same, seen or not."""
    lesion = _lesion(rng) > 0
    inside, ground = int(pick(rng, 0, 255)), int(pick(rng, 0, 255))
    values = np.where(lesion, inside, ground).astype("uint8")
    alpha = np.where(lesion, 255, 0 if rng.random() < 0.7 else 255).astype("uint8")
    content = (
        png(np.stack([values, alpha], -1), 8, 4) if rng.random() < 0.5 else encoded(np.dstack([values] * 3 + [alpha]))
    )
    shown = np.where(alpha > 0, values, 0)
    right = (shown == values).all() and (alpha.min() == 255 or inside != ground)
    return Made("m.png", content, shown > 0 if right else None, mask=True)
