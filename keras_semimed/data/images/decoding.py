"""The bytes of an image file to pixels: PNG, JPEG, TIFF and BMP with Pillow, DICOM with pydicom.

What a file is counts, not what its name ends in. Nothing is read that cannot be shown right: several frames or pages,
unknown scales, more pixels than anyone's image has.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from keras_semimed.data.images import dicom, tiff
from keras_semimed.data.images.bounds import check_bytes, jpeg2000_sizes
from keras_semimed.data.images.pixels import MAX_BYTES, Picture, Refusal, check_size, upright

# Pillow would also hand a file to Ghostscript, if it looked like one for it.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000", "PPM")
_ORIENTATION = 0x0112
_PHOTOMETRIC = 262
_BITS = 258


def read_content(file: str | Path | IO[bytes]) -> bytes:
    """Reads a whole file.

    Raises:
        Refusal: If it is larger than any image should be.
        ValueError: If it is empty.
    """
    with Path(file).open("rb") if isinstance(file, str | Path) else contextlib.nullcontext(file) as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise Refusal(f"the file is larger than {MAX_BYTES // 2**20} MiB; make it smaller")
    if not content:
        raise ValueError("the file is empty")
    return content


def decode_image(content: bytes) -> Picture:
    """Decodes an image as it is meant to be seen, palette and CMYK as RGB, transparent parts as black.

    Raises:
        Refusal: If it is not the kind of file that is read.
        Exception: Whatever a library raises on damaged bytes.
    """
    if dicom.holds_data_set(content):
        return dicom.read_image(content)
    if content.startswith(tiff.HEADERS) and (picture := tiff.read_unusual_colour(content)) is not None:
        deep = picture.pixels.dtype != np.uint8
        return _upper_bits(picture._replace(pixels=picture.pixels >> 8)) if deep else picture
    with _opened(content) as image:
        header = _header(image, content)
        image.load()
        if _is_deep(image):
            return _upright(_scaled(image, header), image, header)
        picture = Picture(np.asarray(_opaque(image)))
        return _upright(_upper_bits(picture) if header.deep_colours else picture, image, header)


def decode_values(content: bytes, palette_colours: bool = False) -> Picture:
    """Decodes a mask to the values that it holds.

    Args:
        content: The whole file.
        palette_colours: Whether a coloured palette stands for its colours rather than its indices. (A grey palette
            always stands for its greys.)

    Returns:
        `(H, W)` whole numbers, 1-bit ones as 0 and 255, or `(H, W, 3)` where the mask has colours.

    Raises:
        Refusal: If it is not the kind of file that is read, or a value is no whole number from 0.
        Exception: Whatever a library raises on damaged bytes.
    """
    if dicom.holds_data_set(content):
        return _whole(dicom.read_values(content))
    with _opened(content) as image:
        header = _header(image, content)
        image.load()
        if header.deep_colours and not _is_deep(image):
            raise Refusal("its colours have 16 bits, and masks are read with 8; save class indices as 8-bit PNG")
        indexed = image.mode == "P" and not palette_colours and _is_coloured(image)
        plain = image if indexed or _is_deep(image) else _unveiled(image)
        picture = _whole(Picture(np.asarray(plain), palette=_palette(image) if indexed else ()))
        return _upright(picture, image, header)


class _Header(NamedTuple):
    """What is gone once the pixels are loaded."""

    orientation: int
    lossy: bool
    rawmode: str
    deep_colours: bool
    """Whether the file's samples have more than 8 bits, of which Pillow keeps the upper 8 in colours."""


def _upper_bits(picture: Picture) -> Picture:
    """A picture of the upper 8 of 16 bits, which have to tell it.

    Raises:
        Refusal: If most of it is in the lower ones: nearly black, nearly white or nearly one colour.
    """
    pixels = picture.pixels
    spread = np.ptp(pixels.reshape(-1, pixels.shape[-1] if pixels.ndim == 3 else 1), axis=0).max()
    if pixels.max() < 16 or pixels.min() > 239 or spread < 16:
        raise Refusal("its 16-bit colours use less than a sixteenth of their range; save it with 8 bits")
    return picture._replace(pixels=pixels.astype("uint8"), halved=True)


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """The one image of a file, its size and checksums tested, its pixels not yet decoded."""
    with _identified(content) as image:
        check_size(*image.size)
        check_bytes(image, content)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # the further pictures of an MPO are previews
            raise Refusal(f"the file holds {frames} pages or frames; save the one to use as a file of its own")
        if image.format == "PNG":
            with _identified(content) as checked:
                checked.verify()  # decoding alone leaves out the checksums
        yield image


def _identified(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError as error:
        if content.startswith(tiff.BIG_HEADERS):
            raise Refusal("it is a BigTIFF of a kind that is not read; save it as an ordinary TIFF") from error
        if content.startswith(tiff.HEADERS):
            raise ValueError(
                "a TIFF that is damaged, or of a kind that is not read: save it anew, or as PNG"
            ) from error
        raise ValueError(f"no known format: expected {', '.join(_FORMATS)} or DICOM") from error
    except Image.DecompressionBombError as error:
        raise Refusal(f"the image claims more pixels than are read ({error}); make it smaller") from error


def _header(image: Image.Image, content: bytes) -> _Header:
    lossy = image.format in ("JPEG", "MPO", "WEBP", "JPEG2000") or image.info.get("compression") in (
        "jpeg",
        "tiff_jpeg",
        "webp",
    )
    tiles = getattr(image, "tile", [])
    arguments = tiles[0].args if tiles else ""
    rawmode = arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ""
    deep_colours = "16" in rawmode
    bits = getattr(image, "tag_v2", {}).get(_BITS, (8,))
    if max(bits if isinstance(bits, tuple) else (bits,)) > 8 and not (deep_colours or _is_deep(image)):
        raise Refusal("its colours have more than 8 bits and lie in planes; save it with those of a pixel together")
    if image.format == "JPEG2000":
        sizes = jpeg2000_sizes(content)
        deep_colours = sizes is not None and sizes.bits > 8
        if sizes is not None and _is_deep(image):
            if (sizes.bits, sizes.signed) != (16, False):
                raise Refusal(f"it is a JPEG 2000 of {sizes.bits} bits, which is read with 8 or 16; save it as PNG")
            rawmode = "I;16"
    orientation = image.getexif().get(_ORIENTATION, 1)  # last, as it loads a PNG
    return _Header(orientation if orientation in range(2, 9) else 1, lossy, rawmode, deep_colours)


def _upright(picture: Picture, image: Image.Image, header: _Header) -> Picture:
    pixels = picture.pixels
    if image.format != "TIFF":  # Pillow has turned it already
        pixels = upright(pixels, header.orientation)
    return picture._replace(pixels=pixels, orientation=header.orientation, lossy=header.lossy)


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("F", "I") or image.mode.startswith("I;16")


def _is_coloured(image: Image.Image) -> bool:
    palette = np.array(image.getpalette("RGB"), "uint8").reshape(-1, 3)
    return bool((palette != palette[:, :1]).any())


def _palette(image: Image.Image) -> tuple[tuple[int, int, int], ...]:
    """The colours of a palette, of those indices that the image uses and of 0; the others are black."""
    colours = np.array(image.getpalette("RGB"), "int64").reshape(-1, 3)
    used = {0, *np.unique(np.asarray(image)).tolist()}
    return tuple(tuple(colour) if index in used else (0, 0, 0) for index, colour in enumerate(colours.tolist()))


def _unveiled(image: Image.Image) -> Image.Image:
    """A mask without its transparency.

    Raises:
        Refusal: If the mask would be another one without it, or nothing: what it means is then a guess.
    """
    plain = _opaque(image)
    if "A" not in image.mode.upper() and "transparency" not in image.info:
        return plain
    with_alpha = np.asarray(image.convert("RGBA"))
    alpha, shown = with_alpha[..., 3], np.asarray(plain)
    if alpha.min() < 255 and ((shown != with_alpha[..., :3]).any() or (shown == shown[:1, :1]).all()):
        raise Refusal("the mask is drawn with transparency; save it without an alpha channel, each class in its colour")
    return plain


def _opaque(image: Image.Image) -> Image.Image:
    """Grey (L) or RGB on black."""
    if "A" in image.mode.upper() and image.mode != "LAB" or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema() == (0, 0):
            raise Refusal("every pixel of it is transparent; save it without an alpha channel")
        ground = Image.new("RGBA", image.size, (0, 0, 0, 255))
        ground.alpha_composite(image)
        return ground.convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _scaled(image: Image.Image, header: _Header) -> Picture:
    """Grey values of more than 8 bits, with black and white where the file says what they are."""
    pixels = np.asarray(image)
    if "transparency" in image.info:
        raise Refusal("it has more than 8 bits and a transparent grey; save it without transparency")
    if (
        ";16S" in header.rawmode
        or ";16BS" in header.rawmode
        or not (";16" in header.rawmode or ";12" in header.rawmode)
    ):
        return Picture(pixels, limits=None)
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))[0]
    white = 2**bits - 1
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero; Pillow turns this round for 8 bits only
        pixels = white - pixels
    return Picture(pixels, limits=(0, white))


def _whole(picture: Picture) -> Picture:
    """The same with int32 values, and grey ones in two dimensions.

    Raises:
        Refusal: If a value is no whole number from 0.
    """
    pixels = picture.pixels
    values = np.nan_to_num(pixels, nan=-1, posinf=-1, neginf=-1).astype("int32")
    if (values != pixels).any() or values.min() < 0:
        raise Refusal("the mask holds values that are no whole numbers from 0; save class indices as 8-bit PNG")
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    return picture._replace(pixels=values)
