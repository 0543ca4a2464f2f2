"""Reading single images and masks; everything that reads image files goes through here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_semimed.data.argument_checks import check_intensity_range
from keras_semimed.data.images import decoding
from keras_semimed.data.images.pixels import Picture, Refusal, to_uint8, upright
from keras_semimed.data.images.resizing import with_channels
from keras_semimed.text import one_line


def read_image(
    file: str | Path | IO[bytes],
    name: str | None = None,
    channels: int = 3,
    intensity_range: tuple[float, float] | None = None,
) -> np.ndarray:
    """Decodes a PNG, JPEG, TIFF, BMP or single-frame DICOM file to `(H, W, channels)` uint8.

    What the file is decides, not its suffix. Palettes, CMYK and alpha (on black) become plain colours, an EXIF
    orientation is undone, 16 bits are scaled by the range that the file declares, and DICOM is windowed.

    Args:
        file: Path or open binary file.
        name: What to call the file in errors; its path by default.
        channels: 3 for colour (grey is repeated), 1 for grey.
        intensity_range: The values of black and white where an image has more than 8 bits (and, in DICOM, no window).
            None takes the range that the file declares.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, no image, one of several frames, larger than 50 million pixels or 512 MiB,
            or does not say how its values are to be shown. The message begins with `name`.
        ImportError: If it is DICOM and pydicom is missing.
    """
    return read_picture(file, name, channels, intensity_range).pixels


def read_picture(
    file: str | Path | IO[bytes],
    name: str | None = None,
    channels: int = 3,
    intensity_range: tuple[float, float] | None = None,
) -> Picture:
    """Decodes an image as `read_image`, with what its file says beside the pixels; arguments and errors as there."""
    intensity_range = _checked(intensity_range)
    with named_errors(file, name):
        picture = decoding.decode_image(decoding.read_content(file))
        return picture._replace(pixels=with_channels(to_uint8(picture, intensity_range), channels))


def read_grey(file: str | Path | IO[bytes], name: str | None = None) -> np.ndarray:
    """Decodes a two-valued mask of any kind (1-bit, grey, palette, RGB, RGBA) to `(H, W)` uint8 grey values.

    1-bit masks come out as 0 and 255, and values of more than 8 bits end at 255.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As in `read_image`.
    """
    with named_errors(file, name):
        picture = decoding.decode_image(decoding.read_content(file))
        if picture.pixels.dtype != np.uint8:
            return np.clip(picture.pixels, 0, 255).astype("uint8")
        return with_channels(picture.pixels, 1)[..., 0]


def read_values(file: str | Path | IO[bytes], name: str | None = None, palette_colours: bool = False) -> Picture:
    """Decodes a mask to the values or colours that it holds, whatever they stand for.

    Args:
        file: Path or open binary file.
        name: What to call the file in errors; its path by default.
        palette_colours: Whether a coloured palette stands for its colours rather than its indices.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As in `read_image`, or if a value is no whole number from 0.
    """
    with named_errors(file, name):
        return decoding.decode_values(decoding.read_content(file), palette_colours)


def read_stored(file: str | Path) -> Picture:
    """Decodes an image, upright, whose values need not be brought to 8 bits: for its size and how it was turned.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As in `read_image`, but for values without a scale.
    """
    with named_errors(file):
        return decoding.decode_image(decoding.read_content(file))


def read_mask_of(image: str | Path, mask: str | Path, palette_colours: bool = False) -> Picture:
    """Decodes a mask as `read_pair` does, upright as its image is, whose values need not be brought to 8 bits.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As in `read_pair`.
    """
    picture = read_stored(image)
    with named_errors(mask):
        return _turned_like(decoding.decode_values(decoding.read_content(mask), palette_colours), picture, image)


def read_pair(
    image: str | Path,
    mask: str | Path,
    intensity_range: tuple[float, float] | None = None,
    palette_colours: bool = False,
) -> tuple[Picture, Picture]:
    """Decodes an image and its mask, both upright.

    A mask without an EXIF orientation is turned with its image if its size says that it was drawn on the stored,
    unturned pixels.

    Args:
        image: Path of the image.
        mask: Path of the mask.
        intensity_range: As in `read_image`.
        palette_colours: Whether a mask's coloured palette stands for its colours rather than its indices.

    Returns:
        The image, uint8, and the mask with its stored values, of equal height and width.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As in `read_image`, or if the sizes differ or nothing tells whether the mask is upright.
    """
    intensity_range = _checked(intensity_range)
    with named_errors(image):
        picture = decoding.decode_image(decoding.read_content(image))
        picture = picture._replace(pixels=to_uint8(picture, intensity_range))
    with named_errors(mask):
        values = decoding.decode_values(decoding.read_content(mask), palette_colours)
        return picture, _turned_like(values, picture, image)


def _checked(intensity_range: Any) -> tuple[float, float] | None:
    return None if intensity_range is None else check_intensity_range(intensity_range)


def _turned_like(mask: Picture, image: Picture, image_name: str | Path) -> Picture:
    size, expected = mask.pixels.shape[:2], image.pixels.shape[:2]
    if image.orientation > 1 and mask.orientation == 1:
        sideways = image.orientation >= 5
        if sideways and size != expected and size == expected[::-1]:
            return mask._replace(pixels=upright(mask.pixels, image.orientation))
        if size == expected and (not sideways or size == size[::-1]):
            raise Refusal(
                f"{image_name} has EXIF orientation {image.orientation}, and nothing tells whether this mask was drawn "
                "before or after turning it; save the image upright, without that entry"
            )
    if size != expected:
        raise Refusal(f"the mask is {size} (height, width) and {image_name} {expected}; make them equal")
    return mask


@contextlib.contextmanager
def named_errors(file: str | Path | IO[bytes], name: str | None = None) -> Iterator[None]:
    """Makes every failure to decode a ValueError that names the file; a missing file or package stays what it is."""
    name = one_line(file if name is None else name)
    try:
        yield
    except (FileNotFoundError, ImportError):
        raise
    except MemoryError as error:
        raise ValueError(f"{name}: there is not enough memory for it; make the image smaller") from error
    except PermissionError as error:
        raise ValueError(f"{name}: cannot be read ({error.strerror}); change its permissions") from error
    except Refusal as error:
        raise ValueError(f"{name}: {error}") from error
    except Exception as error:  # damaged bytes make the libraries raise anything
        reason = " ".join(str(error).split()) or repr(error)
        raise ValueError(f"{name}: cannot be decoded as an image ({reason}); replace the file") from error
