from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from keras_semimed.evaluation import save_threshold_figure
from keras_semimed.evaluation.threshold_figure import epoch_columns, threshold_figure

HISTORY = {
    "epoch": [4, 5, 6],
    "loss": [3.0, 2.0, 1.0],
    "global_threshold": [0.85, 0.87, 0.9],
    "threshold_class_0": [0.85, 0.86, 0.9],
    "threshold_class_1": [0.8, 0.7, 0.65],
    "mask_selected": [0.5, 0.6, 0.7],
    "mask_selected_class_1": [0.2, float("nan"), 0.4],
    "fixed_selected_class_1": [0.0, 0.1, 0.2],
    "val_mask_selected": [9.0, 9.0, 9.0],
}


def curves(axis):
    return {line.get_label(): (list(line.get_ydata()), line.get_linestyle(), line.get_color()) for line in axis.lines}


def test_curves_are_where_figure_6_has_them():
    left, right = threshold_figure(HISTORY, 0.95, ("normal", "polyp")).axes
    thresholds, shares = curves(left), curves(right)
    assert set(thresholds) == {"global threshold", "normal", "polyp", "fixed, 0.95"}
    assert set(shares) == {"all pixels", "pixels, polyp", "fixed threshold, polyp"}
    assert thresholds["polyp"][0] == [0.8, 0.7, 0.65] and thresholds["fixed, 0.95"][0] == [0.95, 0.95]
    assert list(left.lines[0].get_xdata()) == [4, 5, 6]
    np.testing.assert_equal(shares["pixels, polyp"][0], [0.2, np.nan, 0.4])
    # One colour a class; what the fixed threshold uses is dashed.
    assert (
        thresholds["polyp"][2]
        == shares["pixels, polyp"][2]
        == shares["fixed threshold, polyp"][2]
        != thresholds["normal"][2]
    )
    assert (shares["pixels, polyp"][1], shares["fixed threshold, polyp"][1]) == ("-", "--")


def test_curves_of_both_heads():
    names = ("kappa", "mask_tau", "label_tau", "label_selected", "label_selected_class_0", "mask_selected_class_0")
    left, right = threshold_figure({name: [0.5, 0.25] for name in names}, class_names=("ground", "lesion")).axes
    assert set(curves(left)) == {"kappa (entropy)", "mask tau", "label tau"}
    assert list(curves(right)) == ["pixels, ground", "all images", "images, class 0"]
    assert list(left.lines[0].get_xdata()) == [1, 2]


def test_a_run_s_table_becomes_columns():
    columns = epoch_columns([{"epoch": "1", "tau": "0.5"}, {"epoch": "2", "tau": "", "kappa": "0"}])
    np.testing.assert_equal(columns, {"epoch": [1.0, 2.0], "tau": [0.5, np.nan], "kappa": [np.nan, 0.0]})


def test_the_picture_is_written_whole(tmp_path):
    save_threshold_figure(tmp_path / "thresholds.png", HISTORY)
    assert [path.name for path in tmp_path.iterdir()] == ["thresholds.png"]
    with Image.open(tmp_path / "thresholds.png") as picture:
        assert picture.format == "PNG" and picture.width > 2 * picture.height
    with pytest.raises(ValueError, match=r"only \['loss'\]"):
        save_threshold_figure(tmp_path / "other.png", {"loss": [1.0]})
    assert not (tmp_path / "other.png").exists()
