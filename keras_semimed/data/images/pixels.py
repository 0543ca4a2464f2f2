"""What every decoder gives: pixels with what is known about them, and the limits on what is decoded at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MAX_PIXELS = 50_000_000  # seven times a 4K frame; decoded to colour it is 150 MB
MAX_BYTES = 512 * 2**20

# What an EXIF orientation asks for, on arrays whose first axes are height and width.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


class Refusal(ValueError):
    """Says why a file that may well be intact is not read; the message goes on after the file's name."""


class Picture(NamedTuple):
    """A decoded file, upright."""

    pixels: np.ndarray
    """`(H, W)` or `(H, W, 3)`; uint8 or wider."""
    limits: tuple[float, float] | None = (0, 255)
    """The values of black and white; None where the file does not say."""
    orientation: int = 1
    """The EXIF orientation that was undone; 1 = none."""
    lossy: bool = False
    """Whether the compression changes pixel values."""
    halved: bool = False
    """Whether these are the upper 8 of 16 bits."""
    palette: tuple[tuple[int, int, int], ...] = ()
    """The colours of the indices that `pixels` are; empty where they are values."""
    spacing: tuple[float, float] | None = None
    """Height and width of a pixel in mm; None where the file does not say."""


def check_size(width: int, height: int) -> None:
    """Raises Refusal for an image of no pixel or of too many."""
    if width < 1 or height < 1:
        raise Refusal(f"the image is {width}x{height} pixels (width x height); there is nothing in it")
    if width * height > MAX_PIXELS:
        raise Refusal(
            f"the image claims {width}x{height} pixels (width x height), and at most {MAX_PIXELS / 1e6:.0f} million "
            "are read; make it smaller"
        )


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and flips `(H, W, …)` as an EXIF orientation of 1 to 8 asks for; any other value changes nothing."""
    turn = _UPRIGHT.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def to_uint8(picture: Picture, intensity_range: tuple[float, float] | None) -> np.ndarray:
    """Brings pixels of more than 8 bits to 0..255, linearly between black and white.

    Args:
        picture: The decoded file.
        intensity_range: The values of black and white. None takes those that the file declares.

    Raises:
        Refusal: If the file does not say what is black and white, or plainly says it wrong.
    """
    pixels = picture.pixels
    if picture.halved and intensity_range is not None:
        raise Refusal("its colours have 16 bits, which intensity_range cannot scale; save it with 8 bits or in grey")
    if pixels.dtype == np.uint8:
        return pixels
    if not np.isfinite(pixels).all():
        raise Refusal("it holds NaN or infinity; replace those values")
    advice = "give intensity_range=(value of black, value of white)"
    found = f"{pixels.min():g}..{pixels.max():g}"
    limits = picture.limits if intensity_range is None else intensity_range
    if limits is None:
        raise Refusal(f"it holds {pixels.dtype} values in {found} and does not say which of them is white; {advice}")
    low, high = limits
    if intensity_range is None and (look := _washed_out(float(pixels.min()), float(pixels.max()), low, high)):
        raise Refusal(f"its values in {found} would be nearly {look} on the scale {low:g}..{high:g}; {advice}")
    scaled = np.clip((pixels.astype("float32") - low) / (high - low), 0, 1)
    return np.rint(scaled * 255).astype("uint8")


def _washed_out(least: float, most: float, low: float, high: float) -> str | None:
    """What an image looks like that uses less than a sixteenth of its scale; one plain colour is no such image."""
    sixteenth = (high - low + 1) / 16
    if 0 < most - low < sixteenth:
        return "black"
    if 0 < high - least < sixteenth:
        return "white"
    return "one grey" if 0 < most - least < sixteenth else None
