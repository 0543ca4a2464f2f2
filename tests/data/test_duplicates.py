"""Near-duplicate groups."""

import numpy as np
from PIL import Image

from keras_semimed.data.duplicates import group_thumbnails, near_duplicate_groups, thumbnail


def picture(seed, height=60, width=80):
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8), "uint8")
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_copies_of_other_size_brightness_or_channels_are_found():
    first, other = picture(0), picture(1)
    larger = picture(0, 120, 160)
    darker = (first * 0.6).astype("uint8")
    colour = np.repeat(other[..., None], 3, -1)
    groups = near_duplicate_groups([first, other, larger, darker, colour, other[..., None]])
    np.testing.assert_array_equal(groups, [0, 1, 0, 0, 1, 1])


def test_single_linkage_joins_a_chain_and_names_it_after_its_first_member():
    angles = np.deg2rad([60, 0, 20, 40, 120])
    vectors = np.stack([np.cos(angles), np.sin(angles)], -1).astype("float32")
    np.testing.assert_array_equal(group_thumbnails(vectors, threshold=np.cos(np.deg2rad(25))), [0, 0, 0, 0, 4])


def test_correlation_is_that_of_numpy_and_constant_images_stay_alone():
    a, b = picture(2), picture(3)
    small = [np.asarray(Image.fromarray(x).resize((48, 48), Image.Resampling.BILINEAR), float).ravel() for x in (a, b)]
    np.testing.assert_allclose(thumbnail(a) @ thumbnail(b), np.corrcoef(*small)[0, 1], atol=1e-5)
    constant = np.full((50, 50), 9, "uint8")
    np.testing.assert_array_equal(near_duplicate_groups([constant, constant]), [0, 1])
    assert len(near_duplicate_groups([])) == 0
