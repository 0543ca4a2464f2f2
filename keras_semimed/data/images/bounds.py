"""Whether the bytes of a file can hold the pixels that its header claims, looked at before any is decoded.

Each bound is the shortest code that its format has for so many pixels. Formats that may pack a plain picture into
nothing, such as JPEG 2000 within a tile, have none; for them counts the limit on pixels alone.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from PIL import Image

from keras_semimed.data.images.pixels import MAX_PIXELS, Refusal

_ARITHMETIC = (b"\xff\xc9", b"\xff\xca")
"""Frames of JPEG whose coder needs less than a bit for a block."""
_RATIOS = {5: 2000, 8: 1100, 32946: 1100, 32773: 64}
"""How many bytes one byte of a TIFF's LZW, Deflate and PackBits stands for at most."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a PNG, by its colour type."""
_COMPRESSION, _BITS, _TILE_WIDTH, _TILE_HEIGHT = 259, 258, 322, 323
_TILE_BYTES = 14
"""Of the headers that each tile of a JPEG 2000 has at least."""


def check_bytes(image: Image.Image, content: bytes) -> None:
    """Raises Refusal for an image that is opened, and not yet decoded, whose file is too short for its pixels."""
    needed = _NEEDED.get(str(image.format), lambda image, content: 0)(image, content)
    if len(content) < needed:
        width, height = image.size
        raise Refusal(
            f"the image claims {width}x{height} pixels (width x height), which need at least {needed:,} bytes, and the "
            f"file has {len(content):,}: it is cut off or damaged; replace the file"
        )


def _jpeg(image: Image.Image, content: bytes) -> int:
    """A bit for each 8 x 8 block's mean, and one for its end, which a progressive file writes for many at once."""
    if any(marker in content for marker in _ARITHMETIC):
        return 0
    parts = [(across, down) for _, across, down, _ in getattr(image, "layer", [])] or [(1, 1)]
    largest = max(across for across, _ in parts) * max(down for _, down in parts)
    blocks = math.prod(image.size) / 64 * sum(across * down for across, down in parts) / largest
    return int(blocks * (1 if image.info.get("progressive") else 2)) // 8


def _png(image: Image.Image, content: bytes) -> int:
    depth, colour = content[24], content[25]
    return math.prod(image.size) * depth * _CHANNELS.get(colour, 1) // 8 // 1100


def _tiff(image: Image.Image, content: bytes) -> int:
    tags = getattr(image, "tag_v2", {})
    width, height = (_number(tags.get(tag, 0)) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    if width * height > MAX_PIXELS:
        raise Refusal(f"its tiles claim {width}x{height} pixels (width x height); save it without tiles")
    ratio = _RATIOS.get(_number(tags.get(_COMPRESSION, 1)))
    bits = _number(tags.get(_BITS, 1))
    return 0 if ratio is None else math.prod(image.size) * bits // 8 // ratio


def _jpeg2000(image: Image.Image, content: bytes) -> int:
    found = jpeg2000_sizes(content)
    return 0 if found is None else found.tiles * _TILE_BYTES


class Jpeg2000Sizes(NamedTuple):
    """What the first segment of a JPEG 2000 says."""

    tiles: int
    bits: int
    """Of the first component."""
    signed: bool


def jpeg2000_sizes(content: bytes) -> Jpeg2000Sizes | None:
    """Reads the sizes of a JPEG 2000; None where they are missing."""
    start = content.find(b"\xff\x4f\xff\x51")
    segment = content[start + 8 : start + 8 + 35]
    if start < 0 or len(segment) < 35:
        return None
    right, bottom, _, _, width, height, left, top, _, bits = struct.unpack(">8IHB", segment)
    tiles = -(-(right - left) // max(width, 1)) * -(-(bottom - top) // max(height, 1))
    return Jpeg2000Sizes(max(tiles, 0), (bits & 127) + 1, bits > 127)


def _number(value: object) -> int:
    """The first value of a TIFF tag."""
    first = value[0] if isinstance(value, tuple) and value else value
    return int(first) if isinstance(first, int) else 0


_NEEDED = {"JPEG": _jpeg, "MPO": _jpeg, "PNG": _png, "TIFF": _tiff, "JPEG2000": _jpeg2000}
