"""Images that claim what their bytes cannot hold, and kinds that are easily taken for something else."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from benchmarks.fuzz_images import _huge_png
from keras_semimed.data import read_folder
from keras_semimed.data.check import check_folder
from keras_semimed.data.images import read_image, read_values
from keras_semimed.data.images.bounds import jpeg2000_sizes
from tests.data.dicom_files import dicom
from tests.data.image_files import encoded, turned
from tests.data.polyp_files import mistagged_tiff
from tests.data.test_reported_files import folder, png16

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 48, 3)).astype("uint8")
GREY = PICTURE[..., 0]


def jpeg(width: int, height: int, **options) -> bytes:
    content = bytearray(encoded(PICTURE, "JPEG", **options))
    frame = content.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def tiff(size: int, tags: tuple[int, ...] = (256, 257, 278), **options) -> bytes:
    """A TIFF whose directory claims a size, or one of its tiles."""
    content = bytearray(encoded(PICTURE, "TIFF", **options) if options else tiled())
    start = int.from_bytes(content[4:8], "little")
    for place in range(start + 2, start + 2 + 12 * int.from_bytes(content[start : start + 2], "little"), 12):
        if int.from_bytes(content[place : place + 2], "little") in tags:
            content[place + 2 : place + 4] = struct.pack("<H", 4)
            content[place + 8 : place + 12] = struct.pack("<I", size)
    return bytes(content)


def tiled(**options) -> bytes:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, PICTURE, tile=(32, 32), photometric="rgb", **options)
    return file.getvalue()


def jpeg2000(size: int) -> bytes:
    content = bytearray(encoded(PICTURE, "JPEG2000", tile_size=(64, 64)))
    place = content.index(b"ihdr")
    content[place + 4 : place + 12] = struct.pack(">II", size, size)
    place = content.index(b"\xff\x51")
    content[place + 6 : place + 14] = struct.pack(">II", size, size)
    return bytes(content)


SHORT = "which need at least [0-9,]+ bytes, and the file has"
CLAIMS = {
    "jpeg": (jpeg(7000, 7000), SHORT),
    "jpeg, progressive": (jpeg(7000, 7000, progressive=True), SHORT),
    "jpeg, narrow": (jpeg(65500, 700), SHORT),
    "png": (_huge_png(7000, 7000, zlib.compress(b"few")), SHORT),
    "tiff, lzw": (tiff(7000, compression="tiff_lzw"), SHORT),
    "tiff, deflate": (tiff(7000, compression="tiff_deflate"), SHORT),
    "tiff, packbits": (tiff(7000, compression="packbits"), SHORT),
    "tiff, tiles": (tiff(60000, (322, 323)), "its tiles claim 60000x60000 pixels"),
    "jpeg 2000": (jpeg2000(7000), SHORT),
    "more than is read": (jpeg(9000, 9000), "at most 50 million are read"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_more_pixels_than_the_bytes_can_hold_are_refused_before_they_are_decoded(name, monkeypatch):
    def decode(*arguments):
        raise AssertionError("the pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    content, message = CLAIMS[name]
    for read in (read_image, read_values):
        with pytest.raises(ValueError, match=f"^a.png: .*{message}") as error:
            read(io.BytesIO(content), "a.png")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [(2000, 1500), (3, 5000)])
def test_plain_pictures_that_take_few_bytes_are_read(size):
    plain = np.full((*size, 3), 77, "uint8")
    contents = [encoded(plain, "JPEG", quality=1, optimize=True), encoded(plain, "JPEG", progressive=True)]
    contents += [encoded(plain, "JPEG", subsampling=mode) for mode in range(3)]
    contents += [encoded(plain, "PNG", compress_level=9), encoded(plain, "JPEG2000"), encoded(plain[..., 0], "JPEG")]
    contents += [encoded(plain, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")]
    contents += [encoded(Image.new("1", size, 1), kind) for kind in ("PNG", "TIFF", "BMP")]
    for content in contents:
        assert np.ptp(read_image(io.BytesIO(content))) <= 1


def header(**tags) -> bytes:
    return dicom(GREY, **tags)


PACKED = {"syntax": "1.2.840.10008.1.2.4.50", "encoded": encoded(GREY, "JPEG")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            header(Rows=7000, Columns=7000),
            "claims 7000x7000 pixels .* of 49,000,000 bytes, and its pixel data hold 3,072",
        ),
        (header()[:-100], "claims 48x64 pixels .* of 3,072 bytes, and its pixel data hold 2,972"),
        (header(Rows=16), "claims 48x16 pixels .* of 768 bytes, and its pixel data hold 3,072"),
        (header(NumberOfFrames=10**9), "holds 1000000000 frames"),
        (header(Rows=65535, Columns=65535), "at most 50 million are read"),
        (dicom(GREY, Rows=7000, Columns=7000, **PACKED), "claims 7000x7000 pixels .*, and its pixel data are 48x64"),
        (dicom(GREY, **(PACKED | {"encoded": jpeg(7000, 7000)})), "48x64 pixels .*, and its pixel data are 7000x7000"),
        (dicom(GREY, Rows=7000, Columns=7000, **(PACKED | {"encoded": jpeg(7000, 7000)})), SHORT),
        (header(RescaleSlope="0", RescaleIntercept="0"), "its rescale or window values make no grey scale"),
        (header(RescaleSlope="nan", RescaleIntercept="0"), "its rescale or window values make no grey scale"),
        (header(WindowWidth="nan", WindowCenter="3"), "its window is nan wide around 3"),
        (header(WindowWidth="9", WindowCenter="3", VOILUTFunction="WHAT"), "of the kind 'WHAT'"),
    ],
)
def test_dicom_headers_that_claim_what_is_not_there(content, message):
    with pytest.raises(ValueError, match=f"^a.dcm: .*{message}"):
        read_image(io.BytesIO(content), "a.dcm")


def bare(content: bytes, implicit: bool) -> bytes:
    """The data set alone, without preamble and without saying how it is stored."""
    import pydicom
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    data = pydicom.dcmread(io.BytesIO(content))
    del data.file_meta
    plain = pydicom.Dataset()
    plain.update(data)
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, implicit
    write_dataset(file, plain)
    return file.getvalue()


def test_dicom_without_its_preamble_is_read(tmp_path):
    deep = (np.arange(3000).reshape(50, 60) * 20).astype("uint16")
    for content, expected in ((dicom(GREY), GREY), (dicom(PICTURE, "RGB"), PICTURE), (dicom(deep), deep / 257)):
        for found in (content[132:], bare(content, True), bare(content, False)):
            pixels = read_image(io.BytesIO(found), channels=1 if expected.ndim == 2 else 3)
            np.testing.assert_array_equal(pixels.reshape(expected.shape), np.rint(expected))
    with pytest.raises(ValueError, match="a.dcm: it is compressed, and its header does not say how"):
        read_image(io.BytesIO(bare(dicom(GREY, **PACKED), False)), "a.dcm")
    with pytest.raises(ValueError, match="a.dcm: .*pixel data hold"):
        read_image(io.BytesIO(bare(dicom(GREY), True)[:-500]), "a.dcm")
    root = folder(tmp_path, **{"unlabeled/1.2.840.5": dicom(GREY)[132:]})  # found without a suffix, too
    assert "1.2.840.5" in read_folder(root, 16).unlabeled.names and not check_folder(root).problems


def test_what_only_begins_like_dicom_is_no_known_format():
    for content in (b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100" + bytes(300), b"\x02\0\0\0UL\4\0" + bytes(9), b"\x08\0" * 200):
        with pytest.raises(ValueError, match="a.png: .*no known format: expected PNG"):
            read_image(io.BytesIO(content), "a.png")


def test_a_big_tiff_is_read_or_called_by_its_name():
    import tifffile

    for order in "<>":
        for pixels, kind in ((PICTURE, "rgb"), (GREY, "minisblack"), (GREY.astype("uint16") * 257, "minisblack")):
            file = io.BytesIO()
            tifffile.imwrite(file, pixels, bigtiff=True, byteorder=order, photometric=kind)
            file.seek(0)
            try:
                found = read_image(file, "a.tif", channels=3 if pixels.ndim == 3 else 1)
            except ValueError as error:
                assert str(error) == "a.tif: it is a BigTIFF of a kind that is not read; save it as an ordinary TIFF"
                assert order == ">"
                continue
            np.testing.assert_array_equal(found.reshape(pixels.shape), pixels if pixels.dtype == "uint8" else GREY)
    file = io.BytesIO()
    tifffile.imwrite(file, PICTURE, bigtiff=True, photometric="minisblack", planarconfig="contig")
    assert file.getvalue()[:4] == b"II+\0" and mistagged_tiff(PICTURE)[:4] == b"II*\0"
    np.testing.assert_array_equal(read_image(io.BytesIO(file.getvalue())), PICTURE)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colours_in_planes_are_read_or_refused(order):
    import tifffile

    colours = PICTURE.astype("uint16") * 257
    for compression in (None, "zlib"):
        file = io.BytesIO()
        planes = np.moveaxis(colours, -1, 0)
        tifffile.imwrite(
            file, planes, photometric="rgb", planarconfig="separate", byteorder=order, compression=compression
        )
        try:
            np.testing.assert_array_equal(read_image(io.BytesIO(file.getvalue()), "a.tif"), PICTURE)
        except ValueError as error:
            assert compression is not None and "a.tif: its colours have more than 8 bits and lie in planes" in str(
                error
            )
        with pytest.raises(ValueError, match="a.tif: its colours have (16|more than 8) bits"):
            read_values(io.BytesIO(file.getvalue()), "a.tif")


def test_16_bit_colours_keep_their_upper_byte_where_it_tells_the_picture():
    values = np.random.default_rng(1).integers(0, 65536, (40, 50, 3))
    found = read_image(io.BytesIO(png16(values)))
    np.testing.assert_array_equal(found, values >> 8)
    assert np.abs(found - values / 257).max() < 1  # the right scale, to a grey level
    ramp = np.arange(2000).reshape(40, 50)[..., None]
    dark, light, grey = ramp + [0, 10, 20], 65535 - ramp, ramp + [9000, 30000, 60000]
    for washed in (dark, np.broadcast_to(light, (40, 50, 3)), grey):
        with pytest.raises(ValueError, match="a.png: its 16-bit colours use less than a sixteenth of their range"):
            read_image(io.BytesIO(png16(washed)), "a.png")


def test_jpeg_2000_of_16_bits_is_scaled_as_it_declares():
    deep = (np.arange(3000).reshape(50, 60) * 20).astype("uint16")
    content = encoded(Image.fromarray(deep), "JPEG2000")
    np.testing.assert_array_equal(read_image(io.BytesIO(content), channels=1)[..., 0], np.rint(deep / 257))
    assert jpeg2000_sizes(content)[1:] == (16, False) and jpeg2000_sizes(b"") is None


def test_a_turned_image_whose_colours_are_tagged_as_grey_is_upright():
    import tifffile

    file = io.BytesIO()
    turn = [(274, "H", 1, 6, True)]
    tifffile.imwrite(file, PICTURE, photometric="minisblack", planarconfig="contig", extratags=turn)
    np.testing.assert_array_equal(read_image(io.BytesIO(file.getvalue())), np.rot90(PICTURE, -1))
    np.testing.assert_array_equal(read_image(io.BytesIO(turned(PICTURE, 6, "TIFF"))), np.rot90(PICTURE, -1))
