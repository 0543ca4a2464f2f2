"""DICOM files and zips that are damaged or odd."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.fuzz_cases import Case, kind, odd_image, random_pixels
from tests.data.dicom_files import dicom
from tests.data.image_files import encoded


@kind("DICOM")
def good_dicom(rng, path):
    """Grey both ways round, colour and 12 bits."""
    colour = random_pixels(rng)
    grey, deep = colour[..., 0], rng.integers(0, 4096, (20, 30)).astype("uint16")
    readable = [
        (dicom(grey), grey),
        (dicom(grey, "MONOCHROME1"), 255 - grey),
        (dicom(colour, "RGB"), colour),
        (dicom(deep, BitsStored=12), np.rint(deep / 4095 * 255).astype("uint8")),
    ]
    content, expected = readable[int(rng.integers(len(readable)))]
    return odd_image(path, content, expected, rng.choice(["odd.dcm", "odd.png", "1.2.840.5"]))


@kind("DICOM that is not shown")
def refused_dicom(rng, path):
    """Several frames, sizes that are wrong or huge, other kinds of pixels."""
    grey = random_pixels(rng)[..., 0]
    tags = [
        {"NumberOfFrames": int(rng.integers(2, 500))},
        {"Rows": 60000, "Columns": 60000},
        {"Rows": grey.shape[0] + 9},
        {"Rows": 0},
        {"PhotometricInterpretation": "ARGB"},
        {"WindowCenter": 3, "WindowWidth": -1},
        {"BitsAllocated": 13},
        {"SamplesPerPixel": 3},
    ]
    content = dicom(grey, **tags[int(rng.integers(len(tags)))])
    return odd_image(path, content, None, "odd.dcm")


@kind("DICOM, truncated")
def cut_dicom(rng, path):
    """An intact beginning."""
    content = dicom(random_pixels(rng))
    return odd_image(path, content[: int(rng.integers(1, len(content) - 10))], None, "odd.dcm")


@kind("DICOM, flipped bits")
def flipped_dicom(rng, path):
    """Damage in the header, where it does most harm; DICOM has no checksums."""
    pixels = random_pixels(rng)
    content = bytearray(dicom(pixels, "RGB"))
    for position in rng.integers(132, len(content) - pixels.size, 3):
        content[position] ^= 1 << int(rng.integers(8))
    return odd_image(path, bytes(content), pixels, "odd.dcm", either=True)


def _zip(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Writes a zip with one good pair, under the names of Kvasir-SEG, and `members`."""
    mask = np.zeros((24, 20), "uint8")
    mask[8:16, 8:16] = 255
    good = {
        "images/cju0qkwl35piu0993l0dewei2.jpg": encoded(np.dstack([mask] * 3), "JPEG"),
        "masks/cju0qkwl35piu0993l0dewei2.jpg": encoded(mask, "JPEG"),
    }
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {**good, **members}.items():
            archive.writestr(name, content)
    return path.read_bytes()


@kind("zip with names that lead out")
def leading_out(rng, path):
    """`../` and absolute names, which unpacking would write elsewhere."""
    file = path.with_suffix(".zip")
    names = ["../../escape.jpg", "/etc/escape.jpg", "images/../../escape.jpg", "..\\escape.jpg", "C:/escape.jpg"]
    _zip(file, {names[int(rng.integers(len(names)))]: encoded(random_pixels(rng), "JPEG")})
    return Case(file, "escape.jpg")


@kind("zip bomb")
def zip_bomb(rng, path):
    """One member, or a hundred, that unpack to a thousand times their size."""
    file = path.with_suffix(".zip")
    if rng.random() < 0.5:
        _zip(
            file, {"images/cju0qoxqj9q6s0835b43399p4.jpg": bytes(5 << 20), "masks/cju0qoxqj9q6s0835b43399p4.jpg": b"\0"}
        )
        content = bytearray(file.read_bytes())  # the directory claims four gigabytes
        entry = content.index(b"images/cju0qoxqj9q6s0835b43399p4.jpg", content.index(b"PK\1\2")) - 46
        content[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFF0000)
        file.write_bytes(content)
        return Case(file, file.name)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(3):
            archive.writestr(f"images/{index}.jpg", bytes(20 << 20))
    content = bytearray(inner.getvalue())
    position = -1
    while (position := content.find(b"PK\1\2", position + 1)) >= 0:
        content[position + 24 : position + 28] = struct.pack("<I", 900 << 20)
    file.write_bytes(content)
    return Case(file, file.name)


@kind("damaged zip")
def damaged_zip(rng, path):
    """Truncated, flipped in a member, encrypted by its flags, or no zip at all."""
    file = path.with_suffix(".zip")
    content = bytearray(_zip(file, {}, zipfile.ZIP_STORED if rng.random() < 0.5 else zipfile.ZIP_DEFLATED))
    choice = int(rng.integers(4))
    if choice == 0:
        content = content[: int(rng.integers(1, len(content) - 30))]
    elif choice == 1:
        content[int(rng.integers(45, 400))] ^= 0x10
    elif choice == 2:
        content[content.index(b"PK\1\2") + 8] |= 1
    else:
        content = bytearray(rng.bytes(400))
    file.write_bytes(content)
    return Case(file, file.name)


@kind("zip with a damaged image")
def damaged_member(rng, path):
    """A pair whose image is cut off, empty or no image."""
    file = path.with_suffix(".zip")
    whole = encoded(random_pixels(rng), "JPEG")
    contents = [whole[:200], b"", b"text", encoded(random_pixels(rng), "GIF")]
    _zip(
        file,
        {
            "images/cju0qx73cjw570799j4n5cjze.jpg": contents[int(rng.integers(4))],
            "masks/cju0qx73cjw570799j4n5cjze.jpg": whole,
        },
    )
    return Case(file, "cju0qx73cjw570799j4n5cjze.jpg")
