"""TIFF files as CVC-ClinicDB has them: colour tagged as grey, and damaged ones."""

import io

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from keras_semimed.data.images import read_grey, read_image
from keras_semimed.data.images.tiff import read_unusual_colour
from tests.data.polyp_files import mistagged_tiff, picture


def test_colour_tagged_as_grey_is_read_as_colour():
    image = picture(17, 23, seed=0)
    content = mistagged_tiff(image)
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(content))
    np.testing.assert_array_equal(read_image(io.BytesIO(content), "a.tif"), image)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate"])
def test_other_tiff_files_are_left_to_pillow(compression):
    image, mask = picture(16, 20, seed=1), picture(16, 20, seed=1)[..., 0]
    for pixels, read in ((image, read_image), (mask, read_grey)):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "TIFF", compression=compression)
        assert read_unusual_colour(file.getvalue()) is None
        file.seek(0)
        np.testing.assert_array_equal(read(file, "a.tif"), pixels)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_a_file_cut_off_anywhere_is_an_error_and_never_a_wrong_image(caplog):
    image = picture(12, 16, seed=2)
    content = mistagged_tiff(image)
    read = 0
    for length in range(len(content)):
        try:
            found = read_image(io.BytesIO(content[:length]), "folder/7.tif")
        except ValueError as error:
            assert str(error).startswith("folder/7.tif: cannot be decoded as an image (")
            continue
        np.testing.assert_array_equal(found, image)  # nothing but a remark at the end is missing
        read += 1
    assert read < 20 and not caplog.records


def test_pixels_cut_off_before_the_end_of_a_strip():
    content = bytearray(mistagged_tiff(picture(12, 16, seed=3)))
    directory = int.from_bytes(content[4:8], "little")
    entries = int.from_bytes(content[directory : directory + 2], "little")
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        if int.from_bytes(content[entry : entry + 2], "little") == 279:  # bytes of the strip
            content[entry + 8 : entry + 12] = (12 * 16 * 3 - 40).to_bytes(4, "little")
    with pytest.raises(ValueError, match="x.tif: cannot be decoded .*12x16 pixels need 576 bytes"):
        read_image(io.BytesIO(bytes(content)), "x.tif")
