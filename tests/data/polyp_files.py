"""Made files in the layouts of the polyp data sets."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def mistagged_tiff(image: np.ndarray) -> bytes:
    """An uncompressed TIFF of `(H, W, 3)` uint8 whose photometric tag says grey, as CVC-ClinicDB's images are."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "TIFF")
    colour, grey = (struct.pack("<HHIHH", 262, 3, 1, value, 0) for value in (2, 1))
    content = file.getvalue()
    assert content.count(colour) == 1
    return content.replace(colour, grey)


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """A smooth reddish image `(height, width, 3)` uint8."""
    coarse = np.random.default_rng(seed).integers((120, 40, 30), (230, 120, 100), (5, 6, 3)).astype("uint8")
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def disc(height: int, width: int, row: int, column: int, radius: int) -> np.ndarray:
    """A mask `(height, width)` uint8 that is 255 inside a disc."""
    rows, columns = np.ogrid[:height, :width]
    return np.where((rows - row) ** 2 + (columns - column) ** 2 <= radius**2, 255, 0).astype("uint8")


def zipped(folder: Path, file: Path, prefix: str = "") -> Path:
    """A zip of all files below `folder`, with what macOS adds to one."""
    with zipfile.ZipFile(file, "w") as archive:
        for member in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = prefix + member.relative_to(folder).as_posix()
            archive.write(member, name)
            archive.writestr(f"__MACOSX/{name}", b"resource fork")
    return file
