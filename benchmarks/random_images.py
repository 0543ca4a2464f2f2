"""Image files of a random format, depth, colour and coding, each with the pixels that it has to be read as."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.data.image_files import encoded, turned


class Made(NamedTuple):
    """A file, and what has to come of it."""

    name: str
    content: bytes
    expected: np.ndarray | None
    """`(H, W)` or `(H, W, 3)` in 0..255; None where it has to be refused."""
    intensity_range: tuple[float, float] | None = None
    tolerance: int = 0
    """Grey levels that a pixel may be off: 1 where 16 bits lose their lower half, more where the coding is lossy."""
    mask: bool = False
    """Whether it is a mask, and `expected` its classes `(H, W)`."""
    rare: bool = False
    """Whether it may be refused: a kind that Pillow reads on one machine and not on another."""


LOSS = 60
"""Grey levels by which coding with loss may change a pixel of these pictures; on average far less."""
Maker = Callable[[np.random.Generator], Made]
MAKERS: dict[str, Maker] = {}


def kind(name: str) -> Callable[[Maker], Maker]:
    """Registers a maker under the row of the table that counts its files."""

    def register(maker: Maker) -> Maker:
        MAKERS[name] = maker
        return maker

    return register


def scene(rng: np.random.Generator, channels: int = 0, bits: int = 8) -> np.ndarray:
    """A smooth picture `(H, W)`, or with channels, that uses the whole range of its bits."""
    height, width = (int(side) for side in rng.integers(18, 60, 2))
    planes = []
    for _ in range(channels or 1):
        coarse = Image.fromarray(rng.random((5, 5)).astype("float32"))
        plane = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        planes.append((plane - plane.min()) / (plane.max() - plane.min()))
    values = np.rint(np.stack(planes, -1) * (2**bits - 1)).astype("uint16" if bits > 8 else "uint8")
    return values if channels else values[..., 0]


def scaled(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Values brought to 0..255."""
    return np.rint(np.clip((values.astype("float64") - black) / (white - black), 0, 1) * 255)


def pick(rng: np.random.Generator, *values: Any) -> Any:
    """One of several values."""
    return values[int(rng.integers(len(values)))]


def deep_grey(
    rng: np.random.Generator, declared: int = 16
) -> tuple[np.ndarray, np.ndarray | None, tuple[float, float] | None]:
    """Grey of so many declared bits, of which fewer may be used; what it is read as, and the range that is given."""
    used = int(rng.integers(9, declared + 1))
    values = scene(rng, bits=used)
    if rng.random() < 0.4:
        return values, scaled(values, 0, 2**used - 1), (0, 2**used - 1)
    # A sixteenth of the scale is the least that an image has to use.
    return values, scaled(values, 0, 2**declared - 1) if declared - used < 4 else None, None


def png(values: np.ndarray, depth: int, colour: int, palette: np.ndarray | None = None, clear: bytes = b"") -> bytes:
    """A PNG of any depth and colour type, of values `(H, W)` or `(H, W, C)`, which Pillow cannot write."""
    height, width = values.shape[:2]
    flat = values.reshape(height, -1)
    if depth < 8:
        bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1).astype("uint8"), axis=1)
    else:
        rows = flat.astype(">u2" if depth == 16 else "uint8").view("uint8").reshape(height, -1)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    content += b"" if palette is None else chunk(b"PLTE", palette.astype("uint8").tobytes())
    content += chunk(b"tRNS", clear) if clear else b""
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return content + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _tiff(values: np.ndarray, rng: np.random.Generator, **options: Any) -> bytes:
    """A TIFF in any byte order, in strips or tiles, plain or deflated, ordinary or big."""
    import tifffile

    file = io.BytesIO()
    options |= {"byteorder": pick(rng, "<", ">"), "bigtiff": bool(rng.random() < 0.2)}
    options |= {"compression": pick(rng, None, "zlib"), "rowsperstrip": int(rng.integers(1, 30))}
    if rng.random() < 0.2:
        del options["rowsperstrip"]
        options["tile"] = (16, 32)
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def _big_end(content: bytes) -> bool:
    """Whether it is the kind of BigTIFF that need not be read."""
    return content.startswith(b"MM\0+")


def veil(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """An alpha channel of 0 and 255 at random, for some of a picture's pixels."""
    alpha = rng.integers(0, 2, pixels.shape[:2]).astype("uint8") * 255
    alpha[0, 0] = 255
    return alpha


@kind("PNG of 1 to 8 bits, grey")
def png_grey(rng: np.random.Generator) -> Made:
    """Of every depth, or with an alpha channel."""
    if rng.random() < 0.3:
        grey = scene(rng)
        alpha = veil(rng, grey)
        return Made("a.png", png(np.stack([grey, alpha], -1), 8, 4), np.where(alpha > 0, grey, 0))
    depth = int(pick(rng, 1, 2, 4, 8))
    values = scene(rng, bits=depth)
    return Made("a.png", png(values, depth, 0), values.astype("float64") * (255 // (2**depth - 1)))


@kind("PNG of 1 to 8 bits, palette")
def png_palette(rng: np.random.Generator) -> Made:
    """Of every depth, some with a transparent entry."""
    depth = int(pick(rng, 1, 2, 4, 8))
    values = scene(rng, bits=depth)
    palette = rng.integers(0, 256, (2**depth, 3))
    clear = b"\0" if rng.random() < 0.3 else b""  # the first colour
    return Made(
        "a.png", png(values, depth, 3, palette, clear), palette[values] * ((values > 0) | (not clear))[..., None]
    )


@kind("PNG of 8 bits, colour")
def png_colour(rng: np.random.Generator) -> Made:
    """With an alpha channel or without."""
    colours = scene(rng, 3)
    if rng.random() < 0.5:
        return Made("a.png", png(colours, 8, 2), colours)
    alpha = veil(rng, colours)
    return Made("a.png", png(np.dstack([colours, alpha]), 8, 6), colours * (alpha > 0)[..., None])


@kind("PNG, TIFF, PGM, JPEG 2000 of 16 bits, grey")
def grey_16(rng: np.random.Generator) -> Made:
    """Of which 9 to 16 are used, some with a declared range, some with white as 0."""
    values, shown, limits = deep_grey(rng)
    form = pick(rng, "png", "tif", "tif white", "pgm", "jp2")
    if form == "png":
        return Made("a.png", png(values, 16, 0), shown, limits)
    if form == "pgm":
        head = f"P5 {values.shape[1]} {values.shape[0]} 65535\n".encode()
        return Made("a.pgm", head + values.astype(">u2").tobytes(), shown, limits)
    if form == "jp2":
        return Made("a.jp2", encoded(Image.fromarray(values), "JPEG2000"), shown, limits)
    if form == "tif white":
        if limits is not None:
            values, _, limits = scene(rng, bits=16), None, None
            shown = scaled(values, 0, 65535)
        content = _tiff(65535 - values, rng, photometric="miniswhite")
    else:
        content = _tiff(values, rng, photometric="minisblack")
    return Made("a.tif", content, shown, limits, rare=_is_rare(content))


@kind("PNG, TIFF of 16 bits, colour")
def colour_16(rng: np.random.Generator) -> Made:
    """Of which 9 to 16 are used, pixel by pixel or in planes."""
    used = int(rng.integers(9, 17))
    values = scene(rng, 3, used)
    shown = scaled(values, 0, 65535) if used > 12 else None
    if rng.random() < 0.5:
        return Made("a.png", png(values, 16, 2), shown, tolerance=1)
    planes = bool(rng.random() < 0.4)
    content = _tiff(
        np.moveaxis(values, -1, 0) if planes else values,
        rng,
        photometric="rgb",
        planarconfig="separate" if planes else "contig",
    )
    return Made("a.tif", content, shown, tolerance=1, rare=_is_rare(content))


@kind("TIFF of 1 to 8 bits")
def tiff_8(rng: np.random.Generator) -> Made:
    """Grey, colour, palette, 1 bit; plain, deflated, LZW, PackBits; any byte order; turned."""
    form = pick(rng, "grey", "colour", "planes", "palette", "bit", "turned")
    if form == "grey":
        values = scene(rng)
        content = _tiff(values, rng, photometric="minisblack")
        return Made("a.tif", content, values, rare=_is_rare(content))
    colours = scene(rng, 3)
    if form in ("colour", "planes"):
        pixels = colours if form == "colour" else np.moveaxis(colours, -1, 0)
        content = _tiff(pixels, rng, photometric="rgb", planarconfig="contig" if form == "colour" else "separate")
        return Made("a.tif", content, colours, rare=_is_rare(content))
    packing = pick(rng, "raw", "tiff_lzw", "packbits", "tiff_deflate")
    if form == "turned":
        turn = int(rng.integers(2, 9))
        return Made("a.tif", turned(colours, turn, "TIFF", compression=packing), upright(colours, turn))
    image = Image.fromarray(colours).quantize(20) if form == "palette" else Image.fromarray(colours).convert("1")
    return Made("a.tif", encoded(image, "TIFF", compression=packing), np.asarray(image.convert("RGB")))


def _is_rare(content: bytes) -> bool:
    """Whether it is a BigTIFF of the other byte order, white as 0 in it, or has 16 bits in packed planes."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        packed = page.compression != 1 or page.is_tiled
        return (
            content.startswith(b"MM\0+")
            or content.startswith(b"MM")
            and page.photometric == 0
            or (packed and page.planarconfig == 2 and page.bitspersample == 16)
        )


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as an EXIF orientation of 2 to 8 asks for them to be shown."""
    flipped = {2: np.fliplr(pixels), 3: np.rot90(pixels, 2), 4: np.flipud(pixels)}
    across = pixels.swapaxes(0, 1)
    return (flipped | {5: across, 6: np.fliplr(across), 7: np.rot90(across, 2), 8: np.flipud(across)})[orientation]


@kind("BMP, GIF, PPM, JPEG 2000, WebP without loss")
def others(rng: np.random.Generator) -> Made:
    """Grey or colour of 8 bits; GIF in up to 256 colours, BMP also of 1 bit; WebP also with an alpha channel."""
    form = pick(rng, "BMP", "GIF", "PPM", "JPEG2000", "WEBP")
    suffix = {"JPEG2000": "jp2"}.get(form, form.lower())
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    if form == "GIF" or rng.random() < 0.4:
        grey = scene(rng)
        if form == "BMP" and rng.random() < 0.4:
            bit = Image.fromarray(grey).convert("1")
            return Made("a.bmp", encoded(bit, form), np.asarray(bit.convert("L")))
        return Made(f"a.{suffix}", encoded(grey, form, **options), grey)
    colours = scene(rng, 3)
    if form == "WEBP" and rng.random() < 0.4:
        alpha = veil(rng, colours)
        return Made("a.webp", encoded(np.dstack([colours, alpha]), form, **options), colours * (alpha > 0)[..., None])
    return Made(f"a.{suffix}", encoded(colours, form, **options), colours)


@kind("JPEG, WebP and JPEG 2000 with loss")
def lossy(rng: np.random.Generator) -> Made:
    """Grey, colour and CMYK, of any quality, progressive or not, turned or not."""
    form = pick(rng, "JPEG", "JPEG", "JPEG", "WEBP", "JPEG2000")
    options: dict[str, Any] = {"quality": int(rng.integers(80, 100))} if form != "JPEG2000" else {"irreversible": True}
    if form == "JPEG":
        options |= {"progressive": bool(rng.integers(2)), "optimize": bool(rng.integers(2))}
        options |= {"subsampling": int(rng.integers(3))}
    pixels = scene(rng, int(pick(rng, 0, 3)))
    if form == "JPEG" and rng.random() < 0.3:
        turn = int(rng.integers(2, 9))
        return Made("a.jpg", turned(pixels, turn, "JPEG", **options), upright(pixels, turn), tolerance=LOSS)
    if form == "JPEG" and pixels.ndim == 3 and rng.random() < 0.3:
        inks = Image.fromarray(pixels).convert("CMYK")
        return Made("a.jpg", encoded(inks, form, **options), np.asarray(inks.convert("RGB")), tolerance=LOSS)
    suffix = {"JPEG": "jpg", "WEBP": "webp", "JPEG2000": "jp2"}[form]
    return Made(f"a.{suffix}", encoded(pixels, form, **options), pixels, tolerance=LOSS)
