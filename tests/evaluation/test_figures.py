from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from keras_semimed.evaluation import overlay, save_overlays


def test_colours_are_red_truth_green_prediction_yellow_both():
    truth, prediction = np.array([[0, 1, 0, 1, 255]]), np.array([[0, 0, 1, 1, 0]])
    painted = overlay(np.full((1, 5), 10), truth, prediction, opacity=1.0)
    assert painted.tolist() == [[[10, 10, 10], [255, 0, 0], [0, 255, 0], [255, 255, 0], [10, 10, 10]]]
    mixed = overlay(np.full((1, 5, 3), 100), truth, prediction, opacity=0.5)
    assert mixed[0, 1].tolist() == [178, 50, 50]


def test_pictures_are_written_under_the_images_names(tmp_path):
    images = np.zeros((2, 8, 8, 1), "uint8")
    masks = np.zeros((2, 8, 8), "uint8")
    paths = save_overlays(tmp_path / "overlays", images, masks, masks, ["benign (1)", "../escape"])
    assert [path.name for path in paths] == ["benign__1_.png", ".._escape.png"]
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == sorted(path.name for path in paths)
    with Image.open(paths[0]) as picture:
        assert picture.format == "PNG" and picture.width > picture.height


def test_any_name_is_a_title_and_two_names_are_two_files(tmp_path):
    images, masks = np.zeros((3, 8, 8, 1), "uint8"), np.zeros((3, 8, 8), "uint8")
    paths = save_overlays(tmp_path, images, masks, masks, ["a b", "a(b", "x$_{$y"])
    assert [path.name for path in paths] == ["0_a_b.png", "1_a_b.png", "2_x____y.png"]
    assert all(path.exists() for path in paths)


def test_long_names_are_cut_to_what_a_file_system_takes(tmp_path):
    images, masks = np.zeros((3, 8, 8, 1), "uint8"), np.zeros((3, 8, 8), "uint8")
    paths = save_overlays(tmp_path, images, masks, masks, ["x" * 251, "x" * 250, "\u56fe" * 85])
    assert all(path.exists() for path in paths) and len(set(paths)) == 3


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="one height and width"):
        overlay(np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((2, 2)))
