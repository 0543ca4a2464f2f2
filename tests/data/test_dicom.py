"""Single-frame DICOM, made in memory."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data.images import read_image, read_values

pydicom = pytest.importorskip("pydicom")

from pydicom.pixels import convert_color_space  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from tests.data.dicom_files import dicom  # noqa: E402


def read(content, **arguments):
    return read_image(io.BytesIO(content), "a.dcm", **arguments)


GREY = np.array([[0, 10, 100], [150, 200, 255]], "uint8")
COLOUR = np.random.default_rng(0).integers(0, 256, (4, 6, 3), "uint8")


def test_grey_is_read_as_it_is_shown():
    np.testing.assert_array_equal(read(dicom(GREY), channels=1)[..., 0], GREY)
    np.testing.assert_array_equal(read(dicom(GREY, "MONOCHROME1"), channels=1)[..., 0], 255 - GREY)
    assert read(dicom(GREY)).shape == (2, 3, 3)


def test_colours_become_rgb():
    np.testing.assert_array_equal(read(dicom(COLOUR, "RGB")), COLOUR)
    ybr = convert_color_space(COLOUR, "RGB", "YBR_FULL")
    np.testing.assert_allclose(read(dicom(ybr, "YBR_FULL")).astype(int), COLOUR, atol=2)

    even = np.repeat(COLOUR, 2, 1)  # pairs of pixels share their chroma
    ybr = convert_color_space(even, "RGB", "YBR_FULL")
    pairs = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], -1)
    content = dicom(ybr, "YBR_FULL_422").replace(ybr.tobytes(), pairs.tobytes())
    content = content.replace(len(ybr.tobytes()).to_bytes(4, "little"), len(pairs.tobytes()).to_bytes(4, "little"))
    np.testing.assert_allclose(read(content).astype(int), even, atol=2)


def test_jpeg_inside_is_decoded():
    smooth = np.asarray(Image.fromarray(COLOUR).resize((64, 48), Image.Resampling.BICUBIC))
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, "JPEG", quality=95)
    content = dicom(smooth, "YBR_FULL_422", JPEGBaseline8Bit, encoded=file.getvalue())
    assert np.abs(read(content).astype(int) - smooth).mean() < 3
    values = read_values(io.BytesIO(content))
    assert values.lossy and values.pixels.shape == (48, 64, 3)


def test_lossless_compression_changes_nothing():
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, "JPEG2000", no_jp2=True, mct=1)
    np.testing.assert_array_equal(read(dicom(COLOUR, "YBR_RCT", JPEG2000Lossless, encoded=file.getvalue())), COLOUR)
    header = pydicom.dcmread(io.BytesIO(dicom(DEEP, BitsStored=12)))
    header.compress(RLELossless)
    file = io.BytesIO()
    pydicom.dcmwrite(file, header, enforce_file_format=True)
    np.testing.assert_array_equal(read(file.getvalue(), channels=1)[..., 0], np.rint(DEEP / 4095 * 255))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_missing_decoder_is_named():
    content = dicom(GREY, syntax=JPEGLSLossless, encoded=b"\xff\xd8\xff\xf7\xff\xd9")
    with pytest.raises(ValueError, match="^a.dcm: cannot be decoded .*jpegls.*; replace the file$"):
        read(content)


def test_a_palette_gives_colours_to_an_image_and_indices_to_a_mask():
    indices = np.array([[0, 1], [2, 1]], "uint8")
    tables = {}
    for colour, entries in (("Red", [0, 255, 0]), ("Green", [0, 0, 128]), ("Blue", [0, 0, 64])):
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        tables[f"{colour}PaletteColorLookupTableData"] = (np.array(entries, "uint16") * 257).tobytes()
    content = dicom(indices, "PALETTE COLOR", **tables)
    np.testing.assert_array_equal(read(content)[[0, 0, 1], [0, 1, 0]], [[0, 0, 0], [255, 0, 0], [0, 128, 64]])
    np.testing.assert_array_equal(read_values(io.BytesIO(content)).pixels, indices)


DEEP = np.array([[0, 1000, 2000], [3000, 4095, 500]], "uint16")


def test_deep_grey_is_scaled_by_its_window_or_by_its_stored_bits():
    stored = read(dicom(DEEP, BitsStored=12), channels=1)[..., 0]
    np.testing.assert_array_equal(stored, np.rint(DEEP / 4095 * 255))

    content = dicom(DEEP, BitsStored=12, WindowCenter=[2000, 50], WindowWidth=[1001, 5])
    expected = np.clip((DEEP - 1999.5) / 1000 + 0.5, 0, 1) * 255
    np.testing.assert_array_equal(read(content, channels=1)[..., 0], np.rint(expected))

    rescaled = dict(BitsStored=12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=2000)
    expected = np.clip((DEEP * 2.0 - 1000 - 1000) / 2000 + 0.5, 0, 1) * 255
    content = dicom(DEEP, VOILUTFunction="LINEAR_EXACT", **rescaled)
    np.testing.assert_array_equal(read(content, channels=1)[..., 0], np.rint(expected))
    content = dicom(DEEP, "MONOCHROME1", VOILUTFunction="SIGMOID", **rescaled)
    expected = 255 - 255 / (1 + np.exp(-4 * (DEEP * 2.0 - 2000) / 2000))
    np.testing.assert_allclose(read(content, channels=1)[..., 0], expected, atol=0.51)


def test_deep_grey_on_a_scale_that_is_plainly_wrong_needs_a_declared_one():
    content = dicom(DEEP)  # claims 16 bits and holds 12
    with pytest.raises(ValueError, match=r"a.dcm: its values in 0..4095 would be nearly black.*intensity_range"):
        read(content)
    expected = np.rint(DEEP / 4095 * 255)
    np.testing.assert_array_equal(read(content, intensity_range=(0, 4095), channels=1)[..., 0], expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dicom(GREY, NumberOfFrames=30), "holds 30 frames; only single frames are read"),
        (dicom(GREY, "HSV"), "'HSV' is not read"),
        (dicom(GREY, Rows=60000, Columns=60000), "claims 60000x60000 pixels"),
        (dicom(GREY, WindowCenter=1, WindowWidth=0), "window is 0 wide"),
        (dicom(GREY, syntax=DeflatedExplicitVRLittleEndian), "deflated"),
        (dicom(GREY)[:-4], "and its pixel data hold"),
        (dicom(GREY)[:140], "a.dcm: "),
        (dicom(GREY).replace(b"OB", b"UN")[:400], "a.dcm: "),
    ],
    ids=["frames", "interpretation", "size", "window", "deflated", "cut", "header", "tags"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_shown_right_is_named(content, message):
    with pytest.raises(ValueError, match="a.dcm: ") as error:
        read(content)
    assert message in str(error.value)


def test_a_report_without_pixels_is_named():
    content = dicom(GREY)
    header = pydicom.dcmread(io.BytesIO(content))
    del header.PixelData
    header.Modality = "SR"
    file = io.BytesIO()
    pydicom.dcmwrite(file, header, enforce_file_format=True)
    with pytest.raises(ValueError, match=r"a.dcm: .*modality SR.* no pixel data"):
        read(file.getvalue())


def test_the_missing_package_is_named(monkeypatch):
    content = dicom(GREY)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[dicom\]" in a clone'):
        read(content)
