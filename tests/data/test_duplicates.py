"""Near-duplicate groups."""

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data.splits import duplicates
from keras_semimed.data.splits.duplicates import (
    group_thumbnails,
    near_duplicate_groups,
    near_duplicate_pairs,
    thumbnail,
)


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


def test_detail_sees_past_brightness_and_gain():
    first, other = picture(0), picture(1)
    slope = np.linspace(0, 200, 60)[:, None]
    lit, other_lit = ((0.2 * image + slope).astype("uint8") for image in (first, other))
    assert thumbnail(lit) @ thumbnail(other_lit) > 0.93  # the slope alone
    assert thumbnail(lit, "detail") @ thumbnail(other_lit, "detail") < 0.3
    assert thumbnail(lit, "detail") @ thumbnail(first, "detail") > 0.8 > thumbnail(lit) @ thumbnail(first)
    np.testing.assert_array_equal(near_duplicate_groups([first, other_lit, lit], measure="detail"), [0, 1, 0])
    with pytest.raises(ValueError, match="`measure` must be 'grey' or 'detail', found 'hash'"):
        thumbnail(first, "hash")


def test_files_are_read_and_damaged_ones_named(tmp_path):
    for index in range(3):
        Image.fromarray(picture(index % 2)).save(tmp_path / f"{index}.png")
    files = [tmp_path / f"{index}.png" for index in range(3)]
    np.testing.assert_array_equal(near_duplicate_groups(files), [0, 1, 0])
    files[1].write_bytes(files[1].read_bytes()[:80])
    with pytest.raises(ValueError, match="1.png"):
        near_duplicate_groups(str(file) for file in files)


def test_blocks_do_not_change_pairs_and_groups(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 16)).astype("float32")
    vectors[40:50] = vectors[:10] + 0.2 * rng.normal(size=(10, 16))
    vectors[50:] = vectors[40:50] + 0.2 * rng.normal(size=(10, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    correlation = vectors @ vectors.T
    expected = [(a, b) for a in range(60) for b in range(a + 1, 60) if correlation[a, b] > 0.8]
    first = np.arange(60)
    for a, b in expected:
        first[first == max(first[a], first[b])] = min(first[a], first[b])
    for block in (7, 512):
        monkeypatch.setattr(duplicates, "_BLOCK", block)
        pairs = near_duplicate_pairs(vectors, 0.8)
        assert sorted((a, b) for a, b, _ in pairs) == expected and len(pairs) > 20
        assert [value for *_, value in pairs] == sorted((value for *_, value in pairs), reverse=True)
        np.testing.assert_array_equal(group_thumbnails(vectors, 0.8), first)
