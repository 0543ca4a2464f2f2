"""The Kvasir-SEG reader: made files for every oddity and error, then the real data where they are."""

import csv
import hashlib
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from keras_semimed.data.readers.examples import fingerprint
from keras_semimed.data.readers.kvasir_seg import KvasirSegSource
from tests.conftest import SHARED
from tests.data.polyp_files import disc, picture, zipped

DUMMY = Path(__file__).resolve().parents[2] / "datasets" / "kvasir_seg" / "dummy_data"
IDS = ["cju0qkwl35piu0993l0dewei2", "cju0qoxqj9q6s0835b43399p4", "cju0qx73cjw570799j4n5cjze"]
REAL, RESIZED = SHARED / "data" / "Kvasir-SEG", SHARED / "data" / "Kvasir-SEG-256x256"


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(DUMMY, tmp_path / "parent")
    return tmp_path / "parent" / "Kvasir-SEG"


def test_jpeg_masks_are_cut_at_half():
    pairs = list(KvasirSegSource(DUMMY))
    assert [pair.name for pair in pairs] == IDS
    shapes = [(40, 48), (36, 52), (44, 40)]
    drawn = [
        disc(*shape, *place) for shape, place in zip(shapes, ((18, 20, 9), (20, 30, 11), (22, 14, 8)), strict=True)
    ]
    for pair, mask in zip(pairs, drawn, strict=True):
        assert pair.image.dtype == np.uint8 and pair.image.shape == (*mask.shape, 3)
        np.testing.assert_array_equal(pair.mask, mask > 0)
        grey = np.asarray(Image.open(DUMMY / "Kvasir-SEG" / "masks" / f"{pair.name}.jpg").convert("L"))
        assert len(np.unique(grey)) > 16 and (grey > 0).sum() > 1.3 * pair.mask.sum()  # `> 0` would be wrong


def test_several_polyps_of_one_image_all_count(copy):
    mask = np.maximum(disc(40, 48, 10, 12, 6), disc(40, 48, 28, 36, 7))
    Image.fromarray(mask).convert("RGB").save(copy / "masks" / f"{IDS[0]}.jpg", quality=95)
    found = next(iter(KvasirSegSource(copy))).mask
    assert components(found) == 2 and found.sum() == pytest.approx((mask > 0).sum(), rel=0.02)


def test_boxes_are_not_read(copy):
    before = KvasirSegSource(copy).fingerprint()
    (copy / "kavsir_bboxes.json").write_text("no JSON")  # they fit the original sizes alone
    assert KvasirSegSource(copy).fingerprint() == before and len(list(KvasirSegSource(copy))) == 3


@pytest.mark.parametrize("prefix", ["", "Kvasir-SEG/", "download/Kvasir-SEG/"])
def test_folder_parents_zip_and_folder_with_a_zip_are_the_same(copy, tmp_path, prefix):
    archive = zipped(copy, tmp_path / "kvasir-seg.zip", prefix)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "broken.zip").write_bytes(b"not a zip")
    shutil.copy(archive, tmp_path / "other" / "kvasir-seg.zip")
    expected = list(KvasirSegSource(copy))
    found = [KvasirSegSource(path) for path in (copy.parent, tmp_path, archive, str(tmp_path / "other"))]
    for source in found:
        assert len(source) == 3
        for pair, other in zip(source, expected, strict=True):
            assert pair.name == other.name
            np.testing.assert_array_equal(pair.image, other.image)
            np.testing.assert_array_equal(pair.mask, other.mask)
    assert {source.fingerprint() for source in found} == {fingerprint("kvasir_seg", copy)}
    (copy / "images" / f"{IDS[0]}.jpg").write_bytes(b"other bytes")
    assert fingerprint("kvasir_seg", copy) != found[2].fingerprint()


def test_the_copy_of_another_size_is_not_mixed_up(copy):
    shutil.copytree(copy, copy.parent / "Kvasir-SEG-256x256")
    with pytest.raises(ValueError, match=r"several copies of Kvasir-SEG: \['Kvasir-SEG-256x256/', 'Kvasir-SEG/'\]"):
        KvasirSegSource(copy.parent)
    assert len(KvasirSegSource(copy.parent / "Kvasir-SEG-256x256")) == 3


def test_files_that_do_not_belong_to_the_set_are_left_alone(copy):
    (copy / "images" / "Thumbs.db").write_bytes(b"")
    (copy / "images" / "._cju0.jpg").write_bytes(b"")
    (copy / "masks" / "notes.txt").write_text("")
    Image.fromarray(disc(40, 48, 5, 5, 3)).save(copy / "masks" / f"{IDS[0]}.png")
    assert len(KvasirSegSource(copy)) == 3


def test_missing_places_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; download kvasir-seg.zip"):
        KvasirSegSource(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no Kvasir-SEG .no folders 'images' and 'masks'"):
        KvasirSegSource(tmp_path)
    broken = tmp_path / "kvasir-seg.zip"
    broken.write_bytes(b"not a zip")
    for path in (tmp_path, broken):
        with pytest.raises(ValueError, match="kvasir-seg.zip: not a readable zip"):
            KvasirSegSource(path)


def test_images_without_masks_and_masks_without_images_are_named(copy):
    masks = copy / "masks"
    (masks / f"{IDS[1]}.jpg").unlink()
    with pytest.raises(ValueError, match=rf"images/{IDS[1]}.jpg: the image has no mask; expected masks/{IDS[1]}.jpg"):
        KvasirSegSource(copy)
    (masks / f"{IDS[2]}.jpg").unlink()
    with pytest.raises(ValueError, match=r"the image has no mask \(2 such files\)"):
        KvasirSegSource(copy)
    shutil.rmtree(masks)
    with pytest.raises(FileNotFoundError, match="images holds 3 files of Kvasir-SEG, masks none"):
        KvasirSegSource(copy)
    archive = zipped(DUMMY, copy.parent / "whole.zip")
    assert len(KvasirSegSource(copy.parent)) == 3  # the whole zip beside it is taken instead
    archive.unlink()
    shutil.copytree(DUMMY / "Kvasir-SEG" / "masks", masks)
    (copy / "images" / f"{IDS[0]}.jpg").unlink()
    with pytest.raises(ValueError, match=rf"masks/{IDS[0]}.jpg: the mask has no image; expected images/{IDS[0]}.jpg"):
        KvasirSegSource(copy)
    shutil.copy(copy / "images" / f"{IDS[1]}.jpg", copy / "images" / f"{IDS[1]}.jpeg")
    with pytest.raises(ValueError, match=rf"{IDS[1]}.jpg and .*{IDS[1]}.jpeg have one name"):
        KvasirSegSource(copy)


def test_damaged_files_and_masks_of_another_size_are_named(copy, tmp_path):
    mask = copy / "masks" / f"{IDS[1]}.jpg"
    good = mask.read_bytes()
    mask.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=rf"masks/{IDS[1]}.jpg: cannot be decoded"):
        list(KvasirSegSource(copy))
    mask.write_bytes(b"no image")
    with pytest.raises(ValueError, match=rf"k.zip/Kvasir-SEG/masks/{IDS[1]}.jpg: cannot be decoded .*no known format"):
        list(KvasirSegSource(zipped(copy, tmp_path / "k.zip", "Kvasir-SEG/")))
    Image.fromarray(disc(36, 51, 9, 9, 5)).save(mask)
    with pytest.raises(ValueError, match=rf"{IDS[1]}.jpg: the mask is \(36, 51\) .*its image \(36, 52\)"):
        list(KvasirSegSource(copy))
    mask.write_bytes(good)
    Image.fromarray(picture(36, 52, 0)).save(copy / "images" / f"{IDS[1]}.jpg")
    assert len(list(KvasirSegSource(copy))) == 3


def test_a_zip_that_was_damaged_on_its_way_is_named(copy, tmp_path):
    archive = zipped(copy, tmp_path / "kvasir-seg.zip")
    content = bytearray(archive.read_bytes())
    pixels = (copy / "images" / f"{IDS[2]}.jpg").read_bytes()
    content[content.index(pixels) + len(pixels) // 2] ^= 255
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=rf"kvasir-seg.zip/images/{IDS[2]}.jpg: cannot be decoded"):
        list(KvasirSegSource(archive))
    assert zipfile.is_zipfile(archive)


@pytest.fixture(scope="module")
def manifest():
    if not REAL.is_dir() or not RESIZED.is_dir():
        pytest.skip("needs Kvasir-SEG in shared/data, which is not on this machine")
    with (SHARED / "data/manifests/Kvasir-SEG_original_sha256.csv").open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def components(mask):
    """Number of 4-connected parts of a mask."""
    mask = np.pad(mask.astype(bool), 1)
    count = 0
    while mask.any():
        count += 1
        stack = [tuple(np.argwhere(mask)[0])]
        mask[stack[0]] = False
        while stack:
            row, column = stack.pop()
            for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if mask[place]:
                    mask[place] = False
                    stack.append(place)
    return count


@pytest.mark.parametrize(
    "folder, column, number", [(REAL, "original_in_subset", 5), (RESIZED, "resized_in_subset", 300)]
)
def test_real_images_are_those_of_the_manifest(manifest, folder, column, number):
    source = KvasirSegSource(folder)
    expected = {Path(path).stem for path, row in manifest.items() if row[column] == "1"}
    assert {files.name for files in source.files} == expected and len(source) == number


def test_real_originals_have_the_published_bytes_and_sizes(manifest):
    source = KvasirSegSource(REAL)
    for files in source.files:
        for member in (files.image, files.masks[0]):
            assert hashlib.sha256((source.path / member).read_bytes()).hexdigest() == manifest[member]["sha256"]
    shapes = np.array([pair.mask.shape for pair in source])
    assert sorted(shapes[:, 1])[0] == 617 and sorted(shapes[:, 1])[-1] == 1348
    assert sorted(shapes[:, 0])[0] == 528 and sorted(shapes[:, 0])[-1] == 1070


def test_real_resized_masks_have_the_measured_fractions(manifest):
    pairs = list(KvasirSegSource(RESIZED))
    assert {pair.image.shape for pair in pairs} == {(256, 256, 3)}
    fractions = np.array([pair.mask.mean() for pair in pairs])
    found = [fractions.min(), np.median(fractions), fractions.max()]
    np.testing.assert_allclose(found, [0.0058, 0.1203, 0.8121], atol=6e-5)
    assert sum(ndimage.label(pair.mask)[1] > 1 for pair in pairs) == 14  # several polyps


def test_real_resized_masks_agree_with_the_originals(manifest):
    resized = {pair.name: pair for pair in KvasirSegSource(RESIZED)}
    for pair in KvasirSegSource(REAL):
        small = np.asarray(Image.fromarray(pair.mask * 255).resize((256, 256), Image.Resampling.BOX)) > 127
        other = resized[pair.name].mask > 0
        assert (small & other).sum() / (small | other).sum() > 0.95


def test_real_masks_cut_at_zero_would_hold_specks(manifest):
    worst = 0
    for name in ("cju0qkwl35piu0993l0dewei2", "cju0roawvklrq0799vmjorwfv"):
        grey = np.asarray(Image.open(RESIZED / "masks" / f"{name}.jpg").convert("L"))
        worst = max(worst, components(grey > 0) - components(grey > 127))
    assert worst > 20
