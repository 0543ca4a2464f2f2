"""The CVC-ClinicDB reader: made files for every oddity and error, then the real data where they are."""

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data.readers.cvc_clinicdb import CvcClinicDbSource, sequence
from keras_semimed.data.splits.duplicates import thumbnail
from tests.conftest import SHARED
from tests.data.polyp_files import disc, mistagged_tiff, picture, zipped

DUMMY = Path(__file__).resolve().parents[2] / "datasets" / "cvc_clinicdb" / "dummy_data"
REAL = SHARED / "data" / "CVC-ClinicDB"


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(DUMMY, tmp_path / "parent")
    return tmp_path / "parent" / "CVC-ClinicDB"


def test_frames_come_in_numeric_order_in_their_true_colours():
    pairs = list(CvcClinicDbSource(DUMMY))
    assert [pair.name for pair in pairs] == ["2", "10", "26", "612"]
    for pair, seed in zip(pairs, (4, 5, 6, 7), strict=True):
        np.testing.assert_array_equal(pair.image, picture(28, 36, seed))
        assert (pair.image[..., 0] != pair.image[..., 1]).mean() > 0.9  # not three copies of the red channel


def test_grey_values_in_a_mask_are_cut_at_half():
    mask = {pair.name: pair.mask for pair in CvcClinicDbSource(DUMMY)}["10"]
    grey = np.asarray(Image.open(DUMMY / "CVC-ClinicDB" / "Ground Truth" / "10.tif"))
    assert set(np.unique(grey)) == {0, 60, 200, 255}
    np.testing.assert_array_equal(mask, disc(28, 36, 12, 22, 6) > 0)  # 200 counts, 60 does not


def test_the_group_of_a_frame_is_its_sequence():
    source = CvcClinicDbSource(DUMMY)
    groups = [source.group(files.name) for files in source.files]
    assert groups == ["sequence_01", "sequence_01", "sequence_02", "sequence_29"]
    numbers = [sequence(frame) for frame in range(1, 613)]
    assert sorted(set(numbers)) == list(range(1, 30)) and numbers == sorted(numbers)
    assert [numbers.count(n) for n in (1, 3, 10, 29)] == [25, 17, 6, 21]
    for frame in (0, 613):
        with pytest.raises(ValueError, match=f"frame {frame} is in no sequence of CVC-ClinicDB; expected 1 to 612"):
            sequence(frame)


def as_png(folder, target):
    for kind in ("Original", "Ground Truth"):
        (target / kind).mkdir(parents=True)
    for pair in CvcClinicDbSource(folder):
        Image.fromarray(pair.image).save(target / "Original" / f"{pair.name}.png")
        Image.fromarray(pair.mask * 255).save(target / "Ground Truth" / f"{pair.name}.png")
    return target


@pytest.mark.parametrize("prefix", ["", "CVC-ClinicDB/"])
def test_folder_parent_and_zip_are_the_same(copy, tmp_path, prefix):
    archive = zipped(copy, tmp_path / "CVC-ClinicDB.zip", prefix)
    expected = list(CvcClinicDbSource(copy))
    for path in (copy.parent, archive, tmp_path):
        for pair, other in zip(CvcClinicDbSource(path), expected, strict=True):
            assert pair.name == other.name
            np.testing.assert_array_equal(pair.image, other.image)
            np.testing.assert_array_equal(pair.mask, other.mask)
    assert CvcClinicDbSource(archive).fingerprint() == CvcClinicDbSource(copy).fingerprint()


def test_png_files_give_the_same_images_and_tiff_files_come_first(copy, tmp_path):
    expected = list(CvcClinicDbSource(copy))
    both = tmp_path / "archive"
    as_png(copy, both / "PNG")
    for path in (both / "PNG", both, zipped(both, tmp_path / "png.zip")):
        source = CvcClinicDbSource(path)
        assert source.files[1].image == "Original/10.png"
        for pair, other in zip(source, expected, strict=True):
            assert pair.name == other.name
            np.testing.assert_array_equal(pair.image, other.image)
            np.testing.assert_array_equal(pair.mask, other.mask)
    shutil.copytree(copy, both / "TIF")
    for path in (both, zipped(both, tmp_path / "both.zip")):
        assert CvcClinicDbSource(path).files[1].image == "Original/10.tif"


def test_zero_padded_numbers_are_numbers_and_two_files_of_one_frame_an_error(copy):
    for folder in ("Original", "Ground Truth"):
        (copy / folder / "2.tif").rename(copy / folder / "002.tiff")
    assert [pair.name for pair in CvcClinicDbSource(copy)] == ["2", "10", "26", "612"]
    shutil.copy(copy / "Original" / "002.tiff", copy / "Original" / "2.tif")
    with pytest.raises(ValueError, match=r"Original/2.tif and .*Original/002.tiff have one name"):
        CvcClinicDbSource(copy)


def test_unreadable_tiff_files_are_named(copy, tmp_path):
    image = copy / "Original" / "26.tif"
    good = image.read_bytes()
    for content in (b"", b"II*\0 no directory", good[: len(good) // 2], good[:-60]):
        image.write_bytes(content)
        with pytest.raises(ValueError, match=r"Original/26.tif: cannot be decoded as an image"):
            list(CvcClinicDbSource(copy))
    with pytest.raises(ValueError, match=r"cvc.zip/Original/26.tif: cannot be decoded as an image"):
        list(CvcClinicDbSource(zipped(copy, tmp_path / "cvc.zip")))


def test_frames_and_masks_that_do_not_fit_are_named(copy):
    mask = copy / "Ground Truth" / "10.tif"
    Image.fromarray(disc(28, 35, 9, 9, 5)).save(mask)
    with pytest.raises(ValueError, match=r"Ground Truth/10.tif: the mask is \(28, 35\) .*its image \(28, 36\)"):
        list(CvcClinicDbSource(copy))
    mask.unlink()
    with pytest.raises(ValueError, match=r"Original/10.tif: the image has no mask; expected Ground Truth/10.tif"):
        CvcClinicDbSource(copy)
    (copy / "Original" / "10.tif").unlink()
    (copy / "Original" / "2.tif").unlink()
    with pytest.raises(ValueError, match=r"Ground Truth/2.tif: the mask has no image; expected Original/2.tif"):
        CvcClinicDbSource(copy)
    shutil.rmtree(copy / "Original")
    with pytest.raises(FileNotFoundError, match=r"Ground Truth holds 3 files of CVC-ClinicDB, Original none"):
        CvcClinicDbSource(copy)


def test_a_frame_of_no_sequence_is_an_error(copy):
    (copy / "Original" / "700.tif").write_bytes(mistagged_tiff(picture(28, 36, 0)))
    shutil.copy(copy / "Ground Truth" / "2.tif", copy / "Ground Truth" / "700.tif")
    with pytest.raises(ValueError, match="by their names 1 of 5 images are none of CVC-ClinicDB, such as '700'"):
        CvcClinicDbSource(copy)
    with pytest.raises(ValueError, match="frame 700 is in no sequence"):
        sequence(700)


@pytest.fixture(scope="module")
def real():
    if not REAL.is_dir():
        pytest.skip("needs CVC-ClinicDB in shared/data, which is not on this machine")
    return list(CvcClinicDbSource(SHARED / "data"))


@pytest.fixture(scope="module")
def manifest(real):
    with (SHARED / "data/manifests/CVC-ClinicDB_sequences.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_real_frames_are_those_of_the_manifest_two_of_each_sequence(real, manifest):
    assert [pair.name for pair in real] == [row["frame"] for row in manifest if row["in_subset"] == "1"]
    assert len(real) == 58 and all(sequence(int(row["frame"])) == int(row["sequence"]) for row in manifest)
    source = CvcClinicDbSource(REAL)
    groups = [source.group(pair.name) for pair in real]
    assert len(set(groups)) == 29 and all(groups.count(group) == 2 for group in groups)


def test_real_sizes_colours_and_fractions(real):
    assert {pair.image.shape for pair in real} == {(288, 384, 3)}
    fractions = np.array([pair.mask.mean() for pair in real])
    found = [fractions.min(), np.median(fractions), fractions.max()]
    np.testing.assert_allclose(found, [0.0095, 0.0756, 0.3576], atol=6e-5)
    for pair in real:
        red, green, _ = pair.image.reshape(-1, 3).mean(0)
        assert red > green + 3  # mucosa is red; three copies of one channel would be grey


def test_real_masks_are_not_strictly_binary(real):
    levels = {}
    for pair in real:
        grey = np.asarray(Image.open(REAL / "Ground Truth" / f"{pair.name}.tif"))
        levels[pair.name] = len(np.unique(grey))
        np.testing.assert_array_equal(pair.mask, grey > 127)
        if pair.name == "124":
            assert ((grey > 0) & (grey < 255)).mean() == pytest.approx(0.014, abs=1e-3)
    odd = [value for value in levels.values() if value > 2]
    assert (len(odd), min(odd), max(odd)) == (14, 3, 35)


def test_real_frames_of_a_sequence_look_alike_and_no_mask_is_there_twice(real):
    vectors = np.stack([thumbnail(pair.image) for pair in real])
    correlation = vectors @ vectors.T
    numbers = np.array([sequence(int(pair.name)) for pair in real])
    same = numbers[:, None] == numbers
    np.fill_diagonal(correlation, np.nan)
    assert np.nanmedian(correlation[same]) > 0.8 > 0.7 > np.nanmedian(correlation[~same])
    assert len({hashlib.sha256(pair.mask.tobytes()).digest() for pair in real}) == 58
