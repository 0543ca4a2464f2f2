"""Reading a plain folder."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data import from_folder, read_folder, read_image_folder
from keras_semimed.data.check import main
from tests.data.dicom_files import dicom


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("labeled/images", 3), ("unlabeled", 4)):
        (tmp_path / part).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (20, 30), "uint8")).save(tmp_path / part / f"case {i}.png")
    (tmp_path / "labeled/masks").mkdir()
    for i in range(3):
        mask = np.zeros((20, 30), "uint8")
        mask[:, : 10 * i] = 255 if i < 2 else 1  # both ways to write the lesion
        Image.fromarray(mask).save(tmp_path / f"labeled/masks/case {i}.png")
    (tmp_path / "labels.csv").write_text("file,class\ncase 0.png,healthy\ncase 2.png,ill\ncase 1.png,ill\n")
    return tmp_path


def test_reads_images_masks_and_labels(folder):
    dataset = from_folder(folder, image_size=12, batch_size=2)
    labeled = dataset.labeled
    assert list(labeled.names) == ["case 0", "case 1", "case 2"] and labeled.class_names == ("healthy", "ill")
    assert labeled.images.shape == (3, 12, 12, 3) and len(dataset.unlabeled) == 4
    np.testing.assert_allclose(labeled.masks.mean((1, 2)), [0, 1 / 3, 2 / 3])
    np.testing.assert_array_equal(labeled.labels, [0, 1, 1])
    inputs, targets = dataset[0]
    assert inputs["labeled"].shape == (2, 12, 12, 3) and set(targets) == {"mask", "label"}
    assert from_folder(folder, 12, channels=1).labeled.images.shape == (3, 12, 12, 1)


def test_masks_or_labels_may_be_missing_but_not_both(folder):
    (folder / "labels.csv").rename(folder / "elsewhere.csv")
    assert from_folder(folder, 8).labeled.labels is None
    shutil.rmtree(folder / "labeled/masks")
    with pytest.raises(FileNotFoundError, match="neither labeled/masks nor labels.csv"):
        from_folder(folder, 8)
    (folder / "elsewhere.csv").rename(folder / "labels.csv")
    assert from_folder(folder, 8).labeled.masks is None


def test_errors_name_the_file(folder):
    mask = folder / "labeled/masks/case 1.png"
    good = mask.read_bytes()

    Image.fromarray(np.zeros((20, 31), "uint8")).save(mask)
    with pytest.raises(ValueError, match=r"case 1.png: the mask is \(20, 31\).*\(20, 30\)"):
        from_folder(folder, 8)
    Image.fromarray(np.full((20, 30), 7, "uint8")).save(mask)
    with pytest.raises(ValueError, match=r"case 1.png: holds \[7\]; expected classes 0..1"):
        from_folder(folder, 8)
    mask.write_bytes(good[:60])
    with pytest.raises(ValueError, match="case 1.png: cannot be decoded"):
        from_folder(folder, 8)
    mask.unlink()
    with pytest.raises(FileNotFoundError, match="case 1.png: the image has no mask"):
        from_folder(folder, 8)
    mask.write_bytes(good)

    for rows, message in (("case 0.png,ill\n", "no row with a class for 'case 1.png'"), ("", "expected a header")):
        (folder / "labels.csv").write_text("file,class\n" + rows)
        with pytest.raises(ValueError, match=f"labels.csv: {message}"):
            from_folder(folder, 8)
    (folder / "labels.csv").unlink()
    shutil.rmtree(folder / "unlabeled")
    with pytest.raises(FileNotFoundError, match="unlabeled is missing"):
        from_folder(folder, 8)
    (folder / "unlabeled").mkdir()
    with pytest.raises(FileNotFoundError, match="unlabeled holds no image"):
        from_folder(folder, 8)


def save(array, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, "uint8")).save(file)


def test_a_test_part_groups_and_classes(folder, capsys):
    save(np.zeros((20, 30)), folder / "test/images/case 0.bmp")
    save(np.full((20, 30), 255), folder / "test/masks/case 0.png")
    (folder / "labels.csv").write_text(
        "file;class;patient\ncase 0.png;healthy;a\ncase 2.png;ill;b\ncase 1.png;ill;a\n"
        "test/images/case 0.bmp;ill;c\nunlabeled/case 3.png;;d\n",
        encoding="utf-8-sig",
    )
    read = read_folder(folder, 8, class_names=("ill", "healthy"))
    assert read.class_names == ("ill", "healthy") and list(read.labeled.labels) == [1, 0, 0]
    assert list(read.labeled.groups) == ["a", "a", "b"]
    assert list(read.unlabeled.groups) == ["image case 0", "image case 1", "image case 2", "d"]
    assert list(read.test.labels) == [0] and list(read.test.groups) == ["c"] and (read.test.masks == 1).all()
    assert read.unlabeled.labels is None
    printed = capsys.readouterr().out
    assert "3 labeled, 4 unlabeled, 1 test" in printed
    assert "unlabeled: 4 images of 8 x 8 kept in memory" in printed
    assert "masks: 0 -> background (3 files), 1 -> lesion (1 files), 255 -> lesion (2 files)" in printed, printed
    assert "0 = ill (2), 1 = healthy (1)" in printed
    assert from_folder(folder, 8).labeled.class_names == ("healthy", "ill")

    with pytest.raises(ValueError, match=r"case 0.png: its class in labels.csv is 'healthy'; expected .*'ill'"):
        read_folder(folder, 8, class_names=("ill", "well"))


def test_masks_are_read_as_declared(folder):
    colours = np.zeros((20, 30, 3))
    colours[:, 15:] = (255, 0, 0)
    for index in range(3):
        save(colours, folder / f"labeled/masks/case {index}.png")
    found = read_folder(folder, 6)
    np.testing.assert_array_equal(found.labeled.masks[0][0], [0, 0, 0, 1, 1, 1])
    declared = read_folder(folder, 6, mask_values={(0, 0, 0): 0, (255, 0, 0): 2})
    assert declared.labeled.num_classes == 3 and set(np.unique(declared.labeled.masks)) == {0, 2}
    assert str(declared.mask_values) == "(0, 0, 0) -> 0, (255, 0, 0) -> 2"


def test_the_aspect_ratio_may_be_kept(folder):
    read = read_folder(folder, 12, keep_aspect=True)
    assert (read.labeled.masks[:, :2] == 255).all() and (read.labeled.masks[:, 2:10] < 2).all()
    assert not read.labeled.images[:, :2].any() and read.labeled.images[:, 2:10].any()
    np.testing.assert_array_equal(read.unlabeled.areas, [[2, 0, 10, 12]] * 4)


def test_all_formats_may_lie_side_by_side(folder):
    picture = np.random.default_rng(1).integers(0, 256, (20, 30), "uint8")
    (folder / "unlabeled/1.2.840.7").write_bytes(dicom(picture))  # a DICOM name: no suffix
    (folder / "unlabeled/1.2.840.8").write_bytes(dicom(255 - picture, "MONOCHROME1"))
    save(picture, folder / "unlabeled/a.tif")
    save(picture, folder / "unlabeled/ä.BMP")
    unlabeled = read_folder(folder, 20).unlabeled
    index = [list(unlabeled.names).index(name) for name in ("1.2.840.7", "1.2.840.8", "a", "ä")]
    for other in index[1:]:
        np.testing.assert_array_equal(unlabeled.images[index[0]], unlabeled.images[other])


def test_what_operating_systems_leave_behind_is_skipped(folder):
    for name in ("._case 0.png", ".DS_Store", "Thumbs.db", "notes.txt"):
        (folder / "labeled/images" / name).write_bytes(b"\0\1\2")
    (folder / "unlabeled/__MACOSX").mkdir()
    assert len(read_folder(folder, 8).labeled) == 3


def test_links_folders_and_odd_names_are_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    save(np.zeros((4, 4)), outside)
    strange = folder / "unlabeled/strange.png"
    (folder / "inside.png").symlink_to(folder / "unlabeled/case 0.png")
    strange.symlink_to("../inside.png")
    assert "strange" in read_folder(folder, 8).unlabeled.names
    for make, message in (
        (lambda: strange.symlink_to(outside), "strange.png: is a link out of"),
        (lambda: strange.symlink_to("nowhere.png"), "strange.png: is a link to nothing"),
        (lambda: strange.symlink_to(strange), "strange.png: is a link to nothing"),
        (lambda: strange.mkdir(), "strange.png: is a folder"),
        (lambda: os.mkfifo(strange), "strange.png: is no ordinary file"),
    ):
        strange.rmdir() if strange.is_dir() else strange.unlink()
        make()
        with pytest.raises(ValueError, match=message):
            read_folder(folder, 8)
    strange.unlink()
    shutil.rmtree(folder / "unlabeled")
    (folder / "unlabeled").symlink_to(outside.parent)
    with pytest.raises(ValueError, match="unlabeled: is a link out of"):
        read_folder(folder, 8)


def test_pairs_must_be_unambiguous(folder):
    save(np.zeros((20, 30)), folder / "labeled/images/case 0.bmp")
    with pytest.raises(ValueError, match="case 0.png: case 0.bmp beside it has the same name"):
        read_folder(folder, 8)
    (folder / "labeled/images/case 0.bmp").unlink()
    save(np.zeros((20, 30)), folder / "labeled/masks/case 7.png")
    with pytest.raises(FileNotFoundError, match="case 7.png: the mask has no image"):
        read_folder(folder, 8)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("case 0.png,ill\ncase 0.png,ill\n", "line 3 is a second row for 'case 0.png'"),
        ("../case 0.png,ill\n", "line 2 names '../case 0.png', which lies outside"),
        ("case 0.png,ill,extra\n", "line 2 has not as many columns"),
        ("case 0.png,a\ncase 1.png,a\ncase 2.png,a\nother.png,b\n", "a row for 'other.png', which is not an image"),
        ("case 0.png,\ncase 1.png,a\ncase 2.png,a\n", "no row with a class for 'case 0.png'"),
        ('"case 0.png,a\n', "cannot be read as CSV"),
    ],
)
def test_a_wrong_table_is_named(folder, rows, message):
    (folder / "labels.csv").write_text("file,class\n" + rows)
    with pytest.raises(ValueError, match=f"labels.csv: {message}"):
        read_folder(folder, 8)


def test_one_set_is_read_of_a_folder_with_train(folder):
    read = read_folder(folder, 8)
    (folder / "labeled").rename(folder / "train")
    table = folder / "labels.csv"
    table.write_text("file,class\n" + "".join(f"case {index}.png,ill\n" for index in range(3)))
    np.testing.assert_array_equal(read_image_folder(folder, 8).masks, read.labeled.masks)


@pytest.mark.parametrize("read", [read_folder, read_image_folder, from_folder])
def test_arguments_are_checked_alike(folder, read):
    with pytest.raises(ValueError, match="`image_size` must be at least 1 pixel, found 0"):
        read(folder, 0)
    with pytest.raises(ValueError, match="`channels` must be 1 or 3, found 2"):
        read(folder, 8, channels=2)


def test_a_table_in_another_encoding_is_named(folder):
    (folder / "labels.csv").write_bytes("file,class\ncase 0.png,gutartig (groß)\n".encode("latin-1"))
    with pytest.raises(ValueError, match="labels.csv: not a text file in UTF-8"):
        read_folder(folder, 8)


@pytest.mark.parametrize(
    ("mask_name", "names"),
    [
        ("{}_mask", ["case 0_mask", "case 1_mask", "case 2_mask"]),
        ("mask_{}", ["mask_case 0", "mask_case 1", "mask_case 2"]),
        ("{file}", ["case 0.png", "case 1.png", "case 2.png"]),
        ("case {} -> mask {}", ["mask 0", "mask 1", "mask 2"]),
    ],
)
def test_masks_may_be_called_otherwise_by_declaration(folder, mask_name, names):
    expected = read_folder(folder, 12).labeled.masks
    for index, name in enumerate(names):
        (folder / f"labeled/masks/case {index}.png").rename(folder / f"labeled/masks/{name}.png")
    with pytest.raises(FileNotFoundError, match="the image has no mask; expected .*labeled/masks/case 0.png"):
        read_folder(folder, 12)
    np.testing.assert_array_equal(read_folder(folder, 12, mask_name=mask_name).labeled.masks, expected)
    np.testing.assert_array_equal(from_folder(folder, 12, mask_name=mask_name).labeled.masks, expected)
    np.testing.assert_array_equal(read_image_folder(folder, 12, mask_name=mask_name).masks, expected)
    assert main([str(folder), "--mask-name", mask_name]) == 0
    (folder / f"labeled/masks/{names[1]}.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"case 1.png: the image has no mask; expected .*/{names[1]}.png"):
        read_folder(folder, 12, mask_name=mask_name)


@pytest.mark.parametrize("mask_name", ["mask", "{}{}", "{file}_{}", "../{}", "", "img -> {}", "{file} -> {}"])
def test_a_pattern_of_mask_names_holds_the_images_once(folder, mask_name):
    with pytest.raises(ValueError, match="`mask_name` must hold {} for the image's name"):
        read_folder(folder, 12, mask_name=mask_name)


def test_masks_of_the_declared_and_of_the_images_own_name_lie_side_by_side(folder):
    expected = read_folder(folder, 12).labeled.masks
    masks = folder / "labeled/masks"
    (masks / "case 0.png").rename(masks / "case 0_mask.png")  # the others are called as `predict --as-labels` does
    np.testing.assert_array_equal(read_folder(folder, 12, mask_name="{}_mask").labeled.masks, expected)
    (masks / "case 0.png").write_bytes((masks / "case 0_mask.png").read_bytes())
    with pytest.raises(FileNotFoundError, match="masks/case 0.png: the mask has no image"):
        read_folder(folder, 12, mask_name="{}_mask")


def test_the_declared_name_counts_before_the_plain_one(folder):
    (folder / "labels.csv").unlink()
    images, masks = folder / "labeled/images", folder / "labeled/masks"
    before = read_folder(folder, 12).labeled
    expected = dict(zip(before.names, before.masks, strict=True))
    (images / "case 1.png").rename(images / "mask_case 0.png")
    (masks / "case 1.png").rename(masks / "mask_mask_case 0.png")
    (masks / "case 0.png").rename(masks / "mask_case 0.png")
    found = read_folder(folder, 12, mask_name="mask_{}").labeled
    read = dict(zip(found.names, found.masks, strict=True))
    np.testing.assert_array_equal(read["case 0"], expected["case 0"])
    np.testing.assert_array_equal(read["mask_case 0"], expected["case 1"])
