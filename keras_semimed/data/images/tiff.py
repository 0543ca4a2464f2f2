"""The TIFF files that Pillow refuses: uncompressed colour whose photometric tag says grey.

CVC-ClinicDB's images are such files. Other readers are no help: some show three copies of the red channel, and tifffile
fills what is missing in a damaged file with zeros, so the sizes are checked here before it decodes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import struct
from collections.abc import Iterator

import numpy as np

HEADERS = (b"II*\0", b"MM\0*")


def read_mistagged_colour(content: bytes) -> np.ndarray | None:
    """Decodes an uncompressed TIFF of three 8-bit samples a pixel that is tagged as grey.

    Args:
        content: The whole file.

    Returns:
        `(H, W, 3)` uint8, or None where the file is another kind of TIFF, which Pillow can be asked to read.

    Raises:
        ValueError: If the file is no readable TIFF or ends before its pixels do.
    """
    import tifffile

    with _as_value_errors(tifffile.__name__), tifffile.TiffFile(io.BytesIO(content)) as file:
        if not len(file.pages):
            raise ValueError("the TIFF directory is missing: the file is cut off or damaged")
        page = file.pages.first
        kind = (page.compression, page.photometric, page.planarconfig, page.samplesperpixel, page.bitspersample)
        if kind != (tifffile.COMPRESSION.NONE, tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PLANARCONFIG.CONTIG, 3, 8):
            return None
        needed = page.imagelength * page.imagewidth * 3
        starts, counts = page.dataoffsets, page.databytecounts
        inside = len(starts) == len(counts) and all(a + n <= len(content) for a, n in zip(starts, counts, strict=True))
        if not inside or sum(counts) != needed:
            raise ValueError(f"{page.imagelength}x{page.imagewidth} pixels need {needed} bytes, and the file has fewer")
        return page.asarray()


@contextlib.contextmanager
def _as_value_errors(library: str) -> Iterator[None]:
    """Makes every failure of a library on a damaged file a ValueError, and keeps its remarks from the screen."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, struct.error) as error:
        raise ValueError(f"damaged TIFF directory: {error!r}") from error
    finally:
        logger.setLevel(level)
