"""Made image files of every kind that is read."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def encoded(picture: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    """The bytes of an image file."""
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def turned(picture: Image.Image | np.ndarray, orientation: int, kind: str = "JPEG", **options) -> bytes:
    """The bytes of an image file whose EXIF entry asks for a turn."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, kind, exif=exif, **options)
