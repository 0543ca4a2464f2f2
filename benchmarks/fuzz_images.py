"""Image files, masks, names, links and tables that are damaged or odd."""

from __future__ import annotations

import io
import os
import struct
import unicodedata
import zlib

import numpy as np
from PIL import Image, ImageOps

from benchmarks.fuzz_cases import Case, good_folder, kind, odd_image, random_pixels
from tests.data.dicom_files import dicom
from tests.data.image_files import encoded, turned
from tests.data.polyp_files import mistagged_tiff


def _shown(content: bytes) -> np.ndarray:
    """What Pillow shows, turned upright."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _deep(rng: np.random.Generator) -> np.ndarray:
    deep = rng.integers(0, 65536, (20, 31)).astype("uint16")
    deep[0, 0] = 65535
    return deep


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _huge_png(width: int, height: int, pixels: bytes, extra: bytes = b"") -> bytes:
    header = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + _png_chunk(b"IDAT", pixels) + _png_chunk(b"IEND", b"")


ENCODINGS = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {"quality": 95}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff jpeg": ("TIFF", {"compression": "jpeg"}),
}


def _register_encodings() -> None:
    for name, (format_, options) in ENCODINGS.items():
        checked = format_ == "PNG"

        def encode(rng, picture=None, format_=format_, options=options):
            return encoded(random_pixels(rng) if picture is None else picture, format_, **options)

        @kind(f"{name}, wrong suffix")
        def renamed(rng, path, encode=encode):
            content = encode(rng)
            return odd_image(path, content, _shown(content), rng.choice(["odd.png", "odd.JPG", "odd.tif", "odd.bmp"]))

        @kind(f"{name}, truncated")
        def truncated(rng, path, encode=encode):
            content = encode(rng)
            return odd_image(path, content[: int(rng.integers(1, len(content) * 3 // 4))], None)

        @kind(f"{name}, zero bytes from somewhere on")
        def zeroed(rng, path, encode=encode, checked=checked):
            content = encode(rng)
            kept = int(rng.integers(0, len(content) - 30))
            shown = None if checked else _shown(content)
            return odd_image(path, content[:kept] + bytes(len(content) - kept), shown, either=not checked)

        @kind(f"{name}, flipped bits")
        def flipped(rng, path, encode=encode, checked=checked):
            content = bytearray(encode(rng))
            shown = None if checked else _shown(bytes(content))
            for position in rng.integers(0, len(content), 5):
                content[position] ^= 1 << int(rng.integers(8))
            return odd_image(path, bytes(content), shown, either=not checked)

    for orientation in range(2, 9):

        @kind(f"EXIF orientation {orientation}")
        def rotated(rng, path, orientation=orientation):
            content = turned(random_pixels(rng), orientation, rng.choice(["JPEG", "PNG", "TIFF"]))
            return odd_image(path, content, _shown(content))


_register_encodings()


@kind("16 bits")
def deep(rng, path):
    """Grey of the whole range in PNG or TIFF."""
    pixels = _deep(rng)
    shown = np.rint(pixels / 65535 * 255).astype("uint8")
    return odd_image(path, encoded(pixels, rng.choice(["PNG", "TIFF"])), shown)


@kind("16 bits, of which 12 are used")
def shallow(rng, path):
    """Grey that would be nearly black."""
    return odd_image(path, encoded(_deep(rng) >> 4, rng.choice(["PNG", "TIFF"])), None)


@kind("float")
def floating(rng, path):
    """A TIFF that does not say what white is."""
    return odd_image(path, encoded(rng.random((9, 9)).astype("float32"), "TIFF"), None)


@kind("CMYK")
def cmyk(rng, path):
    """Four inks, in TIFF or JPEG."""
    content = encoded(Image.fromarray(random_pixels(rng)).convert("CMYK"), rng.choice(["TIFF", "JPEG"]))
    return odd_image(path, content, _shown(content))


@kind("palette")
def palette(rng, path):
    """Colours by index, in PNG, BMP or TIFF."""
    image = Image.fromarray(random_pixels(rng)).quantize(int(rng.integers(2, 200)))
    return odd_image(path, encoded(image, rng.choice(["PNG", "BMP", "TIFF"])), np.asarray(image.convert("RGB")))


@kind("alpha")
def alpha(rng, path):
    """Half of the pixels transparent, whatever their colour."""
    pixels = random_pixels(rng)
    opaque = rng.random(pixels.shape[:2]) < 0.5
    layered = np.dstack([pixels, np.where(opaque, 255, 0).astype("uint8")])
    return odd_image(path, encoded(layered, rng.choice(["PNG", "TIFF"])), pixels * opaque[..., None])


@kind("nothing but transparency")
def invisible(rng, path):
    """All of it transparent."""
    pixels = random_pixels(rng)
    return odd_image(path, encoded(np.dstack([pixels, np.zeros_like(pixels[..., 0])])), None)


@kind("1 bit")
def one_bit(rng, path):
    """Black and white."""
    image = Image.fromarray(random_pixels(rng)).convert("1")
    return odd_image(path, encoded(image, rng.choice(["PNG", "TIFF", "BMP"])), np.asarray(image.convert("L")))


@kind("colour TIFF tagged as grey")
def mistagged(rng, path):
    """What Pillow refuses."""
    pixels = random_pixels(rng)
    return odd_image(path, mistagged_tiff(pixels), pixels, "odd.tif")


@kind("several pages")
def pages(rng, path):
    """A TIFF of two pages or an animated PNG."""
    images = [Image.fromarray(random_pixels(rng, 20).repeat(2, 1)[:20, :30]) for _ in range(2)]
    content = encoded(images[0], rng.choice(["TIFF", "PNG"]), save_all=True, append_images=images[1:])
    return odd_image(path, content, None)


@kind("no image")
def no_image(rng, path):
    """Nothing, text, a page, random bytes, zeros or another format."""
    contents = [
        b"",
        b"\0" * 500,
        b"<html>404</html>",
        rng.bytes(300),
        b"\xff\xd8\xff",
        encoded(random_pixels(rng), "PCX"),
    ]
    contents += [b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM", encoded(random_pixels(rng), "EPS"), bytes(128) + b"DICM"]
    return odd_image(path, contents[int(rng.integers(len(contents)))], None)


@kind("claims to be huge")
def claims_huge(rng, path):
    """A few bytes whose header asks for gigabytes."""
    content = bytearray(encoded(random_pixels(rng), format_ := rng.choice(["PNG", "BMP", "TIFF", "JPEG"])))
    size = int(rng.integers(20_000, 60_000))
    if format_ == "PNG":
        content = bytearray(_huge_png(size, size, zlib.compress(b"few")))
    elif format_ == "BMP":
        content[18:26] = struct.pack("<ii", size, size)
    elif format_ == "TIFF":
        for tag in (256, 257):
            entry = content.index(struct.pack("<HH", tag, 4), int.from_bytes(content[4:8], "little"))
            content[entry + 8 : entry + 12] = struct.pack("<I", size)
    else:
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">HH", size, size)
    return odd_image(path, bytes(content), None)


@kind("decompression bomb")
def bomb(rng, path):
    """A small PNG that is intact and unpacks to far too much."""
    if rng.random() < 0.5:
        size = int(rng.integers(7_500, 12_000))
        return odd_image(path, _huge_png(size, size, zlib.compress(bytes(size + 1) * size, 1)), None)
    text = _png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50 << 20), 1))
    return odd_image(path, _huge_png(8, 8, zlib.compress(bytes(9) * 8), text), None)


NAMES = [
    "größe",
    "超声",
    "رحم",
    "🫀",
    "a" * 240,
    "with (brackets) % {x}",
    "new\nline",
    "-rf",
    "'quote\"",
    "a.b.c",
    "NUL",
]


@kind("odd name")
def odd_name(rng, path):
    """Names in any script, as long as they may be, composed or not."""
    stem = unicodedata.normalize(rng.choice(["NFC", "NFD"]), NAMES[int(rng.integers(len(NAMES)))])
    pixels = random_pixels(rng)
    return odd_image(path, encoded(pixels), pixels, f"{stem}.png")


@kind("name that is no text")
def broken_name(rng, path):
    """Bytes that are no UTF-8."""
    name = os.fsdecode(b"bad\xff\xfe.png")
    return odd_image(path, encoded(random_pixels(rng)), None, name)._replace(name="bad\\udcff")


@kind("link or special file")
def link(rng, path):
    """Links out of the folder, to nothing and to themselves, folders and pipes in place of an image."""
    outside = path.parent / "outside.png"
    outside.write_bytes(encoded(random_pixels(rng)))
    file = good_folder(path) / "unlabeled" / "odd.png"
    choice = int(rng.integers(6))
    if choice < 4:
        file.symlink_to([outside, "../../outside.png", "nowhere.png", "odd.png"][choice])
    elif choice == 4:
        file.mkdir()
    else:
        os.mkfifo(file)
    return Case(path, "odd.png", None, file)


@kind("table that leads elsewhere")
def table(rng, path):
    """A `labels.csv` of other bytes or with names outside the folder."""
    texts = [
        b"file,class\n../../etc/passwd,a\n",
        b"file,class\n/etc/passwd,a\n",
        rng.bytes(200),
        b"",
        b'file,class\n"a',
    ]
    texts += ["file,class\ngood.png,groß\n".encode("latin-1"), b"file,class\ngood.png,a\nother.png,a\n"]
    (good_folder(path) / "labels.csv").write_bytes(texts[int(rng.integers(len(texts)))])
    return Case(path, "labels.csv")


@kind("mask")
def mask(rng, path):
    """Masks in every coding that can be told, and some that cannot."""
    classes = (rng.random((16, 16)) < 0.5).astype("uint8")
    classes[0, :2] = 0, 1
    grey = classes * 255
    red = np.dstack([grey, grey * 0, grey * 0])
    indexed = Image.fromarray(classes, "P")
    indexed.putpalette([0, 0, 0, 200, 30, 30])
    blocks = np.kron(classes[::8, ::8], np.ones((8, 8), "uint8"))
    soft = np.clip(grey, 30, 220)
    readable = [
        (encoded(classes), classes),
        (encoded(Image.fromarray(grey).convert("1")), classes),
        (encoded(grey.astype("uint16") * 257), classes),
        (encoded(red), classes),
        (encoded(indexed), classes),
        (encoded(np.dstack([grey, grey, grey, np.full_like(grey, 255)])), classes),
        (encoded(blocks * 255, "JPEG", quality=90), blocks),
        (encoded(grey, "TIFF"), classes),
        (dicom(grey), classes),
    ]
    reported = [soft, classes * 7, grey[:9], red + 9, rng.integers(0, 256, (16, 16, 3)).astype("uint8")]
    contents = (
        readable + [(encoded(pixels), None) for pixels in reported] + [(encoded(np.full_like(grey, 9), "JPEG"), None)]
    )
    content, expected = contents[int(rng.integers(len(contents)))]
    (good_folder(path) / "labeled/masks/good.png").write_bytes(content)
    return Case(path, "good.png", expected)
