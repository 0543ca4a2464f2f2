"""The BUSI reader: made files for every oddity and error, then the real data where they are."""

import csv
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data.readers.busi import CLASSES, FOLDER, BusiSource
from keras_semimed.data.splits.duplicates import group_thumbnails, near_duplicate_pairs, thumbnail
from keras_semimed.data.splits.leaks import leak_report
from keras_semimed.data.splits.parts import leak_safe_split, paper_split
from tests.conftest import SHARED

DUMMY = Path(__file__).resolve().parents[2] / "datasets" / "busi" / "dummy_data"
NAMES = ["benign (1)", "benign (2)", "benign (10)", "malignant (1)", "normal (1)"]


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(DUMMY, tmp_path / "copy")
    return tmp_path / "copy" / FOLDER


def zipped(folder, file, prefix=""):
    with zipfile.ZipFile(file, "w") as archive:
        for member in sorted(folder.rglob("*.png")):
            archive.write(member, prefix + member.relative_to(folder).as_posix())
        archive.writestr("__MACOSX/benign/benign (1).png", b"resource fork")
    return file


def test_images_come_in_numeric_order_with_classes_and_colour():
    source = BusiSource(DUMMY)
    images = list(source)
    assert [item.name for item in images] == NAMES
    classes = [CLASSES[source.label(item.name)] for item in images]
    assert classes == ["benign", "benign", "benign", "malignant", "normal"]
    for item in images:
        assert item.image.dtype == item.mask.dtype == np.uint8 and item.image.shape == (*item.mask.shape, 3)
    np.testing.assert_array_equal(images[0].image[2, 2], (255, 200, 0))


def test_masks_are_the_union_of_all_files_whatever_their_mode():
    masks = {item.name: item.mask for item in BusiSource(DUMMY)}
    union = np.zeros((20, 28), "uint8")
    union[2:8, 2:10] = 1  # a 1-bit file
    union[6:12, 8:16] = 1  # an RGBA file that overlaps it
    np.testing.assert_array_equal(masks["benign (2)"], union)
    assert masks["malignant (1)"].sum() == 9 + 16 + 25  # three files
    assert masks["normal (1)"].sum() == 0  # an RGB file


@pytest.mark.parametrize("prefix", ["", f"{FOLDER}/", f"archive/{FOLDER}/"])
def test_folder_parent_zip_and_folder_with_a_zip_are_the_same(copy, tmp_path, prefix):
    archive = zipped(copy, tmp_path / "busi.zip", prefix)
    (tmp_path / "other.zip").write_bytes(b"not a zip")
    expected = list(BusiSource(copy))
    for path in (copy.parent, archive, str(tmp_path)):
        for item, other in zip(BusiSource(path), expected, strict=True):
            assert item.name == other.name
            np.testing.assert_array_equal(item.image, other.image)
            np.testing.assert_array_equal(item.mask, other.mask)


def test_missing_and_empty_places_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; download"):
        BusiSource(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no BUSI"):
        BusiSource(tmp_path)
    (tmp_path / "benign").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no file like 'benign/benign"):
        BusiSource(tmp_path)
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="broken.zip: not a readable zip"):
        BusiSource(broken)


def test_wrong_files_are_named(copy):
    image, mask = copy / "benign/benign (2).png", copy / "benign/benign (2)_mask_1.png"
    good = mask.read_bytes()
    Image.new("1", (28, 21)).save(mask)
    with pytest.raises(ValueError, match=r"benign \(2\)_mask_1.png: the mask is \(21, 28\).*its image \(20, 28\)"):
        list(BusiSource(copy))
    mask.write_bytes(good[:50])
    with pytest.raises(ValueError, match=r"benign \(2\)_mask_1.png: cannot be decoded"):
        list(BusiSource(copy))
    mask.write_bytes(good)
    pixels = image.read_bytes()
    image.write_bytes(pixels[: len(pixels) // 2])
    with pytest.raises(ValueError, match=r"benign \(2\).png: cannot be decoded"):
        list(BusiSource(copy))
    image.unlink()
    with pytest.raises(ValueError, match=r"benign \(2\)_mask.png: the mask has no image"):
        BusiSource(copy)
    image.write_bytes(pixels)
    (copy / "malignant/malignant (1).png").rename(copy / "malignant/malignant (3).png")
    with pytest.raises(ValueError, match=r"malignant \(3\).png: the image has no mask"):
        BusiSource(copy)


def test_a_damaged_file_in_a_zip_is_named(copy, tmp_path):
    (copy / "normal/normal (1).png").write_bytes(b"\x89PNG broken")
    with pytest.raises(ValueError, match=r"busi.zip/normal/normal \(1\).png: cannot be decoded"):
        list(BusiSource(zipped(copy, tmp_path / "busi.zip")))


def test_a_zip_that_was_damaged_on_its_way_is_named(copy, tmp_path):
    archive = zipped(copy, tmp_path / "busi.zip")
    content = bytearray(archive.read_bytes())
    pixels = (copy / "benign/benign (2).png").read_bytes()
    content[content.index(pixels) + len(pixels) // 2] ^= 255  # the checksum of this member is wrong now
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"busi.zip/benign/benign \(2\).png: cannot be decoded"):
        list(BusiSource(archive))
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="busi.zip: not a readable zip; download it again"):
        BusiSource(tmp_path)


def test_every_lesion_of_one_mask_file_counts(copy):
    lesions = np.zeros((26, 22), "uint8")
    lesions[2:5, 2:5], lesions[12:16, 15:20] = 255, 255
    Image.fromarray(lesions).convert("1").save(copy / "benign/benign (10)_mask.png")
    masks = {item.name: item.mask for item in BusiSource(copy)}
    np.testing.assert_array_equal(masks["benign (10)"], lesions > 0)


def test_groups_are_called_after_their_first_member(copy):
    for suffix in (".png", "_mask.png"):
        shutil.copy(copy / f"benign/benign (1){suffix}", copy / f"malignant/malignant (7){suffix}")
    groups = BusiSource(copy).groups
    assert groups["malignant (7)"] == groups["benign (1)"] == "benign (1)"


class Facts:
    """What the real-data tests need of each image, read once."""

    def __init__(self, path):
        self.source = BusiSource(path)
        self.names, self.labels, self.coloured, self.shapes, self.lesions, self.thumbnails = [], [], [], [], [], []
        for item in self.source:
            self.names.append(item.name)
            self.labels.append(self.source.label(item.name))
            self.coloured.append(bool((item.image != item.image[..., :1]).any()))
            self.shapes.append(item.mask.shape)
            self.lesions.append((item.mask.mean(), int(item.mask.max())))
            self.thumbnails.append(thumbnail(item.image))


@pytest.fixture(scope="module")
def real():
    if not (SHARED / "data" / FOLDER).is_dir():
        pytest.skip("needs BUSI in shared/data, which is not on this machine")
    return Facts(SHARED / "data")


@pytest.fixture(scope="module")
def manifest(real):
    with (SHARED / "data/manifests/BUSI_full_780.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def pairs(real):
    with (SHARED / "data/manifests/BUSI_near_duplicates.csv").open(newline="") as file:
        return [(float(row["correlation_48x48"]), row["a"], row["b"]) for row in csv.DictReader(file)]


def test_real_busi_is_complete(real, manifest):
    assert set(real.names) == set(manifest) and len(real.names) == 780
    assert Counter(CLASSES[label] for label in real.labels) == {"benign": 437, "malignant": 210, "normal": 133}
    for name, label in zip(real.names, real.labels, strict=True):
        assert manifest[name]["class"] == CLASSES[label]


def test_real_images_have_the_sizes_and_colours_of_the_manifest(real, manifest):
    for name, (height, width), coloured in zip(real.names, real.shapes, real.coloured, strict=True):
        assert (int(manifest[name]["width"]), int(manifest[name]["height"])) == (width, height)
        assert coloured == ("coloured" in manifest[name]["note"]), name
    assert sum(real.coloured) == 16


def test_real_masks_are_unions_with_the_lesion_fraction_of_the_manifest(real, manifest):
    assert sum(len(files.masks) for files in real.source.files) == 798
    several = [files for files in real.source.files if len(files.masks) > 1]
    assert len(several) == 17 and max(len(files.masks) for files in several) == 3
    for files, (fraction, maximum) in zip(real.source.files, real.lesions, strict=True):
        row = manifest[files.name]
        assert [Path(mask).name for mask in files.masks] == row["mask_files"].split(";")
        assert fraction == pytest.approx(float(row["lesion_fraction"]), abs=6e-6), files.name
        assert maximum == (0 if row["class"] == "normal" else 1)


def test_real_overlapping_masks_do_not_add_up(real):
    for name, overlap in (("benign (58)", 1570), ("benign (195)", 19), ("benign (181)", 7)):
        files = next(files for files in real.source.files if files.name == name)
        masks = [np.asarray(Image.open(real.source.path / mask).convert("L")) > 127 for mask in files.masks]
        shape = masks[0].shape
        union = real.lesions[real.names.index(name)][0] * shape[0] * shape[1]
        assert sum(int(mask.sum()) for mask in masks) - round(union) == overlap


def test_real_masks_of_two_modes_in_one_image(real, manifest):
    for name in ("benign (4)", "benign (54)"):
        assert manifest[name]["mask_modes"] == "1;RGBA"
        files = next(files for files in real.source.files if files.name == name)
        assert [Image.open(real.source.path / mask).mode for mask in files.masks] == ["1", "RGBA"]


def test_real_file_with_two_labels_keeps_both_and_their_masks(real):
    first, second = (real.names.index(name) for name in ("benign (433)", "malignant (145)"))
    np.testing.assert_array_equal(real.thumbnails[first], real.thumbnails[second])
    assert [CLASSES[real.labels[index]] for index in (first, second)] == ["benign", "malignant"]
    fractions = [real.lesions[index][0] for index in (first, second)]
    np.testing.assert_allclose(fractions, [0.0125, 0.0162], atol=6e-5)


def test_original_bytes_read_the_same(real):
    originals = BusiSource(SHARED / "data/BUSI_original_bytes")
    assert len(originals) == 36
    for item in originals:
        index = real.names.index(item.name)
        assert item.mask.mean() == real.lesions[index][0]
        np.testing.assert_array_equal(thumbnail(item.image), real.thumbnails[index])


def test_real_correlations_agree_with_the_list_of_near_duplicates(real, pairs):
    index = {name: i for i, name in enumerate(real.names)}
    for correlation, a, b in pairs:
        assert real.thumbnails[index[a]] @ real.thumbnails[index[b]] == pytest.approx(correlation, abs=1e-4)
    vectors = np.stack(real.thumbnails)
    assert int((np.triu(vectors @ vectors.T, 1) > 0.99).sum()) == len(pairs) == 110


def test_real_pairs_are_fewer_at_the_threshold_of_the_list(real):
    rows = [i for i, label in enumerate(real.labels) if CLASSES[label] != "normal"]
    vectors = np.stack([real.thumbnails[i] for i in rows])
    assert [len(near_duplicate_pairs(vectors, threshold)) for threshold in (0.99, 0.93, 0.85)] == [79, 175, 930]
    across = [real.labels[rows[a]] != real.labels[rows[b]] for a, b, _ in near_duplicate_pairs(vectors)]
    assert sum(across) == 9
    sizes = np.bincount(group_thumbnails(vectors, 0.85))
    assert sizes.max() == 162  # single linkage collapses


def abnormal(real):
    rows = [i for i, label in enumerate(real.labels) if CLASSES[label] != "normal"]
    names, labels = [real.names[i] for i in rows], [real.labels[i] for i in rows]
    first = group_thumbnails([real.thumbnails[i] for i in rows])
    return names, labels, [names[i] for i in first]


def test_real_groups_are_those_that_were_measured(real, pairs):
    names, _, groups = abnormal(real)
    sizes = [size for size in Counter(groups).values() if size > 1]
    assert (len(sizes), sum(sizes), max(sizes)) == (112, 253, 7)
    group = dict(zip(names, groups, strict=True))
    assert len({group[f"malignant ({i})"] for i in range(3, 10)}) == 1
    assert group["benign (433)"] == group["malignant (145)"]  # one file with two labels
    for _, a, b in pairs:
        if a in group and b in group:
            assert group[a] == group[b]


LEAKS = [f"{pairs} pairs, {images} of 194 test images" for pairs, images in ((84, 59), (92, 65), (88, 63))]


@pytest.mark.parametrize("seed", range(3))
def test_real_leak_safe_split_has_the_paper_sizes_and_no_leak(real, seed):
    names, labels, groups = abnormal(real)
    group = dict(zip(names, groups, strict=True))
    split = leak_safe_split(names, labels, groups, seed)
    reference = paper_split(names, labels, seed)
    for part in ("labeled", "unlabeled", "validation", "test"):
        assert len(getattr(split, part)) == len(getattr(reference, part))
    train = {group[name] for name in split.labeled + split.unlabeled}
    test, validation = ({group[name] for name in part} for part in (split.test, split.validation))
    assert not test & train and not validation & train and not test & validation
    assert not leak_report(split, group).leaks
    # Published results rely on these splits, and on what the random ones leak.
    assert split.hash == ("5c66d20d2dce", "1313395ac112", "dcf482c82242")[seed]
    assert leak_report(reference, group).summary() == LEAKS[seed]
