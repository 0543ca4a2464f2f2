"""The TIFF files that Pillow refuses or misreads: colour whose photometric tag says grey, 16-bit colours in planes.

CVC-ClinicDB's images are of the first kind. Other readers are no help: some show three copies of the red channel, and
tifffile fills what is missing in a damaged file with zeros, so the sizes are checked here before it decodes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import struct
from collections.abc import Iterator

import numpy as np

from keras_semimed.data.images.pixels import Picture, check_size, upright

BIG_HEADERS = (b"II+\0", b"MM\0+")
"""Of files of more than 4 GiB, which smaller ones may have, too."""
HEADERS = (b"II*\0", b"MM\0*", *BIG_HEADERS)
_ORIENTATION = 274


def read_unusual_colour(content: bytes) -> Picture | None:
    """Decodes an uncompressed TIFF of three samples a pixel that Pillow refuses, or reads wrongly.

    These are colours of 8 bits that are tagged as grey, and colours of 16 bits in three planes.

    Args:
        content: The whole file.

    Returns:
        `(H, W, 3)` uint8 or uint16, or None where the file is another kind of TIFF, which Pillow can be asked to read.

    Raises:
        ValueError: If the file is no readable TIFF or ends before its pixels do.
    """
    import tifffile

    with _as_value_errors(tifffile.__name__), tifffile.TiffFile(io.BytesIO(content)) as file:
        if not len(file.pages):
            raise ValueError("the TIFF directory is missing: the file is cut off or damaged")
        page = file.pages.first
        kind = (page.compression, page.photometric, page.planarconfig, page.samplesperpixel, page.bitspersample)
        none, photometric, planes = tifffile.COMPRESSION.NONE, tifffile.PHOTOMETRIC, tifffile.PLANARCONFIG
        deep_planes = kind == (none, photometric.RGB, planes.SEPARATE, 3, 16)
        if not deep_planes and kind != (none, photometric.MINISBLACK, planes.CONTIG, 3, 8):
            return None
        check_size(page.imagewidth, page.imagelength)
        needed = page.imagelength * page.imagewidth * 3 * page.bitspersample // 8
        starts, counts = page.dataoffsets, page.databytecounts
        inside = len(starts) == len(counts) and all(a + n <= len(content) for a, n in zip(starts, counts, strict=True))
        if not inside or sum(counts) != needed:
            raise ValueError(f"{page.imagelength}x{page.imagewidth} pixels need {needed} bytes, and the file has fewer")
        pixels = np.moveaxis(page.asarray(), 0, -1) if deep_planes else page.asarray()
        turned = page.tags.valueof(_ORIENTATION, 1)
        orientation = int(turned) if turned in range(2, 9) else 1
        return Picture(upright(pixels, orientation), orientation=orientation)


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
