"""Reading and resizing single images and masks with Pillow; everything that reads image files goes through here."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from keras_semimed.data import tiff

_TooLarge = Image.DecompressionBombError


def read_image(file: str | Path | IO[bytes], name: str | None = None, channels: int = 3) -> np.ndarray:
    """Decodes an image file to `(H, W, channels)` uint8.

    Args:
        file: Path or open binary file.
        name: What to call the file in errors; its path by default.
        channels: 3 for colour (grey is repeated), 1 for grey.

    Raises:
        ValueError: If the file is damaged or no image.
    """
    return np.atleast_3d(np.asarray(_decode(file, name, "RGB" if channels == 3 else "L")))


def read_grey(file: str | Path | IO[bytes], name: str | None = None) -> np.ndarray:
    """Decodes a mask file of any Pillow mode (1-bit, grey, palette, RGB, RGBA) to `(H, W)` uint8 grey values.

    1-bit masks come out as 0 and 255, and an alpha channel is dropped.

    Raises:
        ValueError: If the file is damaged or no image.
    """
    return np.asarray(_decode(file, name, "L"))


def resize_image(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resizes an image, bilinear and antialiased when it shrinks; the aspect ratio is not kept.

    Args:
        image: `(H, W, 1 or 3)` uint8.
        size: Side of the square result, or `(height, width)`.

    Returns:
        `(height, width, C)` uint8.
    """
    height, width = _height_width(size)
    pixels = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resized = np.asarray(pixels.resize((width, height), Image.Resampling.BILINEAR))
    return resized.reshape(height, width, image.shape[-1])


def resize_mask(mask: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resizes a mask of class indices; each new pixel takes the class that covers most of it.

    Args:
        mask: `(H, W)` uint8 class indices; 255 = ignore counts as a class of its own.
        size: Side of the square result, or `(height, width)`.

    Returns:
        `(height, width)` uint8 that holds no value that `mask` does not hold. A tie goes to the smaller value.
    """
    height, width = _height_width(size)
    values = np.unique(mask)
    covered = [
        np.asarray(Image.fromarray((mask == value).astype("float32")).resize((width, height), Image.Resampling.BOX))
        for value in values
    ]
    return values[np.argmax(covered, axis=0)].astype("uint8")


def encode_png(image: np.ndarray) -> io.BytesIO:
    """Encodes `(H, W, 1 or 3)` uint8 as a PNG file in memory, with one channel where all are equal.

    Decoded to its number of channels it is the same image again; a grey one is smaller and faster to read.
    """
    grey = (image == image[..., :1]).all()
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if grey else image).save(file, "PNG", compress_level=1)
    file.seek(0)
    return file


def _decode(file: str | Path | IO[bytes], name: str | None, mode: str) -> Image.Image:
    name = str(file) if name is None else name
    try:
        content = Path(file).read_bytes() if isinstance(file, str | Path) else file.read()
        if content.startswith(tiff.HEADERS) and (pixels := tiff.read_mistagged_colour(content)) is not None:
            return Image.fromarray(pixels).convert(mode)
        with Image.open(io.BytesIO(content)) as image:
            return image.convert(mode)
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(f"{name}: cannot be decoded as an image (no known format); replace the file") from error
    except (OSError, SyntaxError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, _TooLarge) as error:
        raise ValueError(f"{name}: cannot be decoded as an image ({error}); replace the file") from error


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
