"""The run lengths in which Label Studio keeps what is painted with the brush.

A stream of bits, the highest of each byte first: the number of values (32 bits), bits a value less 1 (5), and four
numbers of bits less 1 in which lengths are written (4 each). Then blocks: 1 for one value repeated and 0 for values
that differ, which of the four lengths (2), the number of values less 1 in as many bits, and the value or values. The
values are the bytes of an RGBA image, of which the alpha is what was painted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_LENGTH_BITS = (3, 4, 8, 16)
_VALUE_BITS = 8
_CHANNELS = 4


def decode_brush(rle: Sequence[Any], height: int, width: int, where: str) -> np.ndarray:
    """Decodes to `(height, width)` bool.

    Raises:
        ValueError: If it is no such stream, or of another size.
    """
    try:
        stream = _Bits(bytes(rle))
        count, bits = stream.take(32), stream.take(5) + 1
        lengths = [stream.take(4) + 1 for _ in range(4)]
        if count != height * width * _CHANNELS:
            raise ValueError(f"it is of {count} values, an image of {height} x {width} pixels has {_CHANNELS} each")
        values = np.zeros(count, "uint32")
        position = 0
        while position < count:
            repeated = stream.take(1)
            end = position + 1 + stream.take(lengths[stream.take(2)])
            if end > count:
                raise ValueError("it has more values than it says")
            values[position:end] = stream.take(bits) if repeated else [stream.take(bits) for _ in range(position, end)]
            position = end
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: its brush strokes cannot be decoded ({error}); export it again") from error
    return values.reshape(height, width, _CHANNELS)[..., -1] > 0


class _Bits:
    """Reads numbers bit by bit."""

    def __init__(self, content: bytes):
        self._content = content
        self._position = 0

    def take(self, bits: int) -> int:
        """The next number, of that many bits."""
        first, end = self._position // 8, self._position + bits
        part = self._content[first : (end + 7) // 8]
        if end > 8 * len(self._content):
            raise ValueError("it ends too early")
        self._position = end
        return (int.from_bytes(part) >> (-end % 8)) & ((1 << bits) - 1)


def encode_brush(mask: np.ndarray) -> list[int]:
    """Encodes `(H, W)` bool; `decode_brush` gives the same again."""
    flat = np.repeat(mask.ravel(), _CHANNELS)
    texts = [f"{len(flat):032b}{_VALUE_BITS - 1:05b}", *(f"{bits - 1:04b}" for bits in _LENGTH_BITS)]
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [len(flat)]])
    longest = 1 << _LENGTH_BITS[-1]
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        value = f"{255 if flat[start] else 0:0{_VALUE_BITS}b}"
        for first in range(start, end, longest):
            length = min(longest, end - first) - 1
            index = next(index for index, bits in enumerate(_LENGTH_BITS) if length < 1 << bits)
            texts.append(f"1{index:02b}{length:0{_LENGTH_BITS[index]}b}{value}")
    stream = "".join(texts)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8))
