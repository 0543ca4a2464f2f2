"""Reading a plain folder."""

import shutil

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data import from_folder


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

    for rows, message in (("case 0.png,ill\n", "no row for 'case 1.png'"), ("", "expected a header")):
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
