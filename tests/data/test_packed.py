"""Packed data sets: the same images on the other side, and files that are something else."""

from __future__ import annotations

import numpy as np
import pytest

from keras_semimed.cli import pack as command
from keras_semimed.data import ImageSet, loading
from keras_semimed.data.packed import pack, read_packed


def made(size: int = 16) -> ImageSet:
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (3, size, size, 1), "uint8").repeat(3, -1)
    colour = random.integers(0, 256, (2, size, size, 3), "uint8")
    return ImageSet(
        names=["a", "b ä", "c", "d", "e"],
        images=np.concatenate([grey, colour])[[0, 3, 1, 4, 2]],
        masks=random.integers(0, 2, (5, size, size), "uint8"),
        labels=np.array([0, 1, 2, 1, 0], "int32"),
        groups=["p", "p", "q", "r", "r"],
        class_names=("benign", "malignant", "normal"),
    )


def same(one: ImageSet, other: ImageSet) -> None:
    for name in ("images", "masks", "labels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("names", "groups", "class_names"):
        assert list(getattr(one, name)) == list(getattr(other, name))


def test_what_was_packed_is_read_by_its_name(tmp_path):
    images = made()
    pack(images, "busi", tmp_path / "busi.npz")
    same(loading.load_image_set("busi", 16, tmp_path / "busi.npz"), images)
    some = loading.load_image_set("busi", 16, tmp_path / "busi.npz", classes=("malignant", "benign"))
    assert list(some.names) == ["a", "b ä", "d", "e"] and some.labels.tolist() == [1, 0, 0, 1]
    assert list(some.class_names) == ["malignant", "benign"]
    without = ImageSet(images.names, images.images, images.masks)
    pack(without, "kvasir_seg", tmp_path / "polyps.npz")
    found = read_packed(tmp_path / "polyps.npz", "kvasir_seg", 16)
    assert found.labels is None and found.groups is None and list(found.class_names) == []


def test_files_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "busi.npz"
    pack(made(), "busi", path)
    with pytest.raises(ValueError, match="must be a file of udiat, found .*busi.npz, which holds busi"):
        loading.load_image_set("udiat", 16, path)
    with pytest.raises(ValueError, match="`image_size` must be 16, the size of the images in .*busi.npz, found 32"):
        loading.load_image_set("busi", 32, path)
    with pytest.raises(ValueError, match="`keep_aspect` must be False"):
        loading.load_image_set("busi", 16, path, keep_aspect=True)
    with pytest.raises(FileNotFoundError):
        loading.load_image_set("busi", 16, tmp_path / "none.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="busi.npz is damaged"):
        loading.load_image_set("busi", 16, path)
    np.savez(path, images=np.zeros(3))
    with pytest.raises(ValueError, match="busi.npz is no packed data set"):
        loading.load_image_set("busi", 16, path)
    with pytest.raises(ValueError, match="`path` must end with .npz"):
        pack(made(), "busi", tmp_path / "busi.zip")


def test_the_command_packs_and_refuses(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(loading, "load_image_set", lambda *_: made())
    assert command.main(["busi", "--output", str(tmp_path / "busi.npz")]) == 0
    assert "5 images" in capsys.readouterr().out
    same(read_packed(tmp_path / "busi.npz", "busi", 16), made())
    assert command.main(["busi", "--output", str(tmp_path / "busi.zip")]) == 2
    assert "must end with .npz" in capsys.readouterr().err


def test_the_shell_names_the_flag_of_a_file_that_does_not_fit(tmp_path, capsys):
    pack(made(), "busi", tmp_path / "busi.npz")
    words = ["udiat", "--manual-dir", str(tmp_path / "busi.npz"), "--image-size", "16"]
    assert command.main([*words, "--output", str(tmp_path / "udiat.npz")]) == 2
    error = capsys.readouterr().err
    assert "--manual-dir must be a file of udiat, found" in error and "which holds busi" in error
    assert not (tmp_path / "udiat.npz").exists()
