"""Reading and resizing single images and masks."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from keras_semimed.data.images import (
    encode_png,
    pixels,
    read_grey,
    read_image,
    read_pair,
    read_values,
    resize_image,
    resize_mask,
)
from tests.data.image_files import encoded, turned


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


def read(content, **arguments):
    return read_image(io.BytesIO(content), "a.png", **arguments)


COLOUR = np.random.default_rng(1).integers(0, 256, (6, 8, 3), "uint8")
DEEP = np.array([[0, 257, 25700, 65535], [1, 300, 40000, 60000]], "uint16")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG"])
def test_every_format_is_read_whatever_the_name_says(kind, tmp_path):
    file = tmp_path / "photo.png"
    file.write_bytes(encoded(COLOUR, kind))
    np.testing.assert_allclose(read_image(file).astype(int), COLOUR, atol=0 if kind != "JPEG" else 255)
    with Image.open(file) as picture:
        np.testing.assert_array_equal(read_image(file), np.asarray(picture))


def test_colour_models_become_rgb_and_transparent_parts_black():
    picture = Image.fromarray(COLOUR)
    cmyk = picture.convert("CMYK")
    np.testing.assert_array_equal(read(encoded(cmyk, "TIFF")), np.asarray(cmyk.convert("RGB")))
    palette = picture.quantize(16)
    np.testing.assert_array_equal(read(encoded(palette)), np.asarray(palette.convert("RGB")))

    alpha = np.full((6, 8), 255, "uint8")
    alpha[:, :3] = 0
    layered = np.dstack([COLOUR, alpha])
    found = read(encoded(layered))
    np.testing.assert_array_equal(found[:, 3:], COLOUR[:, 3:])
    assert not found[:, :3].any()
    with pytest.raises(ValueError, match="a.png: every pixel of it is transparent"):
        read(encoded(layered * np.array([1, 1, 1, 0], "uint8")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_by_their_range(kind):
    found = read(encoded(DEEP, kind), channels=1)[..., 0]
    np.testing.assert_array_equal(found, np.rint(DEEP / 65535 * 255))
    declared = read(encoded(DEEP, kind), channels=1, intensity_range=(300, 40000))[..., 0]
    np.testing.assert_array_equal(declared, np.rint(np.clip((DEEP - 300.0) / 39700, 0, 1) * 255))
    with pytest.raises(ValueError, match=r"a.png: its values in 0..4095 would be nearly black"):
        read(encoded(DEEP // 16, kind))


def test_white_is_zero_is_turned_round_for_16_bits():
    content = encoded(DEEP, "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(read(content, channels=1)[..., 0], 255 - np.rint(DEEP / 65535 * 255))


def test_an_unknown_scale_has_to_be_declared():
    content = encoded((COLOUR[..., 0] / 255).astype("float32"), "TIFF")
    with pytest.raises(ValueError, match="a.png: it holds float32 values .* does not say which .* intensity_range"):
        read(content)
    np.testing.assert_array_equal(read(content, channels=1, intensity_range=(0, 1)), COLOUR[..., :1])
    content = encoded(np.full((2, 2), np.nan, "float32"), "TIFF")
    with pytest.raises(ValueError, match="a.png: it holds NaN"):
        read(content, intensity_range=(0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_an_exif_orientation_is_undone(kind, orientation):
    content = turned(COLOUR, orientation, kind)
    with Image.open(io.BytesIO(content)) as picture:
        np.testing.assert_array_equal(read(content), np.asarray(ImageOps.exif_transpose(picture)))


def test_a_mask_is_turned_with_its_image(tmp_path):
    image, mask = tmp_path / "image.jpg", tmp_path / "mask.png"
    values = np.zeros((6, 8), "uint8")
    values[0, 1:] = 1
    upright = np.rot90(values, -1)
    image.write_bytes(turned(COLOUR, 6))
    for content in (encoded(values), encoded(upright), turned(values, 6, "PNG")):
        mask.write_bytes(content)
        np.testing.assert_array_equal(read_pair(image, mask)[1].pixels, upright)
    image.write_bytes(turned(COLOUR, 3))  # upside down: both readings have the same size
    mask.write_bytes(encoded(values))
    with pytest.raises(ValueError, match="mask.png: .*image.jpg has EXIF orientation 3, and nothing tells"):
        read_pair(image, mask)
    mask.write_bytes(turned(values, 3, "PNG"))
    np.testing.assert_array_equal(read_pair(image, mask)[1].pixels, values[::-1, ::-1])
    mask.write_bytes(encoded(values[:5]))
    with pytest.raises(ValueError, match=r"mask.png: the mask is \(5, 8\).*image.jpg \(6, 8\)"):
        read_pair(image, mask)


def test_masks_keep_what_they_hold():
    indices = Image.fromarray(np.array([[0, 1], [2, 1]], "uint8"), "P")
    indices.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 200])
    content = encoded(indices)
    np.testing.assert_array_equal(read_values(io.BytesIO(content)).pixels, [[0, 1], [2, 1]])
    colours = read_values(io.BytesIO(content), palette_colours=True).pixels
    np.testing.assert_array_equal(colours[0, 1], [255, 0, 0])
    deep = np.array([[0, 65535, 7]], "uint16")
    np.testing.assert_array_equal(read_values(io.BytesIO(encoded(deep))).pixels, deep)
    assert read_values(io.BytesIO(encoded(deep.astype("uint8"), "JPEG"))).lossy
    with pytest.raises(ValueError, match="m.tif: the mask holds values that are no whole numbers"):
        read_values(io.BytesIO(encoded(np.array([[0.5]], "float32"), "TIFF")), "m.tif")


def test_several_pages_are_refused():
    pages = [Image.fromarray(COLOUR)] * 2
    content = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="a.png: the file holds 2 pages"):
        read(content)


def test_a_flipped_bit_in_a_png_does_not_pass():
    content = bytearray(encoded(COLOUR))
    content[-30] ^= 1
    with pytest.raises(ValueError, match="a.png: cannot be decoded"):
        read(bytes(content))


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(pixels, "MAX_PIXELS", 40)
    with pytest.raises(ValueError, match="a.png: the image claims 8x6 pixels"):
        read(encoded(COLOUR))


@pytest.mark.parametrize("kind", ["EPS", "PCX", "ICO"])
def test_other_formats_are_refused(kind):
    with pytest.raises(ValueError, match="a.png: cannot be decoded .*no known format: expected PNG, JPEG, TIFF, BMP"):
        read(encoded(COLOUR, kind))
