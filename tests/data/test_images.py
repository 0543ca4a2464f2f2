"""Reading and resizing single images and masks."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data.images import encode_png, read_grey, read_image, resize_image, resize_mask


def saved(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    file.seek(0)
    return file


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_mask_of_any_mode_reads_as_0_and_255(mode):
    mask = np.zeros((5, 7), "uint8")
    mask[1:3, 2:6] = 255
    picture = Image.fromarray(mask).convert(mode)
    np.testing.assert_array_equal(read_grey(saved(picture)), mask)


def test_grey_images_are_repeated_and_colour_ones_kept():
    grey = np.arange(12, dtype="uint8").reshape(3, 4)
    np.testing.assert_array_equal(read_image(saved(Image.fromarray(grey))), np.repeat(grey[..., None], 3, -1))
    assert read_image(saved(Image.fromarray(grey)), channels=1).shape == (3, 4, 1)
    colour = np.random.default_rng(0).integers(0, 255, (3, 4, 3), "uint8")
    np.testing.assert_array_equal(read_image(saved(Image.fromarray(colour))), colour)


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "half.png"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), "uint8"))
    file.write_bytes(saved(picture).read()[:1000])
    for read in (read_image, read_grey):
        with pytest.raises(ValueError, match="half.png: cannot be decoded"):
            read(file)
    file.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="half.png: cannot be decoded"):
        read_image(file)


def test_encoded_images_decode_to_the_same_pixels():
    colour = np.random.default_rng(0).integers(0, 255, (6, 5, 3), "uint8")
    grey = np.repeat(colour[..., :1], 3, -1)
    for image in (colour, grey):
        np.testing.assert_array_equal(read_image(encode_png(image)), image)
    assert Image.open(encode_png(grey)).mode == "L"


@pytest.mark.parametrize("channels", [1, 3])
def test_images_shrink_with_antialiasing(channels):
    stripes = np.zeros((64, 64, channels), "uint8")
    stripes[:, ::2] = 200
    small = resize_image(stripes, 8)
    assert small.shape == (8, 8, channels) and small.dtype == np.uint8
    np.testing.assert_allclose(small[:, 1:-1].astype(float), 100, atol=8)
    assert resize_image(stripes, (4, 6)).shape == (4, 6, channels)


def test_a_mask_pixel_takes_the_class_that_covers_most_of_it():
    mask = np.zeros((4, 4), "uint8")
    mask[0, :2], mask[1, 0] = 1, 1  # three quarters of the first pixel
    mask[2:, 2:] = 255
    mask[0, 2] = 1  # a quarter of the second one
    np.testing.assert_array_equal(resize_mask(mask, 2), [[1, 0], [0, 255]])


def test_masks_keep_their_values_and_share_when_resized():
    rows, columns = np.mgrid[:90, :70]
    mask = ((rows - 45) ** 2 + (columns - 30) ** 2 < 400).astype("uint8") * 2
    for size in (32, 128):
        resized = resize_mask(mask, size)
        assert set(np.unique(resized)) == {0, 2}
        assert abs((resized > 0).mean() - (mask > 0).mean()) < 0.01
