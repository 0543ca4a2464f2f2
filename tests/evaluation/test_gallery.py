"""The sheet of image, truth and prediction that keras-cv draws, and what is said where it cannot."""

from __future__ import annotations

import sys

import matplotlib
import numpy as np
import pytest

from keras_semimed.evaluation import mask_gallery
from keras_semimed.evaluation.cases import Cases
from keras_semimed.evaluation.gallery import GAP, sheet

matplotlib.use("Agg")
IMAGES = np.full((4, 8, 12, 1), 100, "uint8")
TRUTHS = np.zeros((4, 8, 12), "uint8")
TRUTHS[:, 2:4] = 1
TRUTHS[:, 6:] = 255
FOUND = np.zeros((4, 8, 12, 1), "int64")
FOUND[:, 0] = 2


def test_each_image_stands_before_its_truth_and_its_prediction():
    pytest.importorskip("keras_cv", reason="keras-cv needs TensorFlow")
    figure = mask_gallery(IMAGES, TRUTHS, FOUND, num_classes=3)
    drawn = [axis.images[0].get_array() for axis in figure.axes]
    matplotlib.pyplot.close(figure)
    assert len(drawn) == 6 and all((picture == 255).all() for picture in drawn[4:])  # two rows of three
    for picture in drawn[:4]:
        assert picture.shape == (8, 3 * (12 + GAP), 3)
        image, truth, prediction = (picture[:, start : start + 12, 0] for start in (0, 12 + GAP, 2 * (12 + GAP)))
        assert (image == 100).all() and (picture[:, 12 : 12 + GAP] == 255).all()
        np.testing.assert_array_equal(truth[:, 0], [0, 0, 127, 127, 0, 0, 0, 0])  # unknown is black
        np.testing.assert_array_equal(prediction[:, 0], [255] + [0] * 7)


def test_a_report_has_it_where_there_are_masks(monkeypatch):
    def cases(truths):
        return Cases(["best"] * 4, list("abcd"), IMAGES, truths, FOUND[..., 0], {}, [])

    assert sheet(cases(None)) is None
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    assert sheet(cases(TRUTHS)) is None
    monkeypatch.undo()
    pytest.importorskip("keras_cv", reason="keras-cv needs TensorFlow")
    assert str(sheet(cases(TRUTHS))).startswith("data:image/png;base64,")
    assert not matplotlib.pyplot.get_fignums()


def test_what_is_wrong_or_missing_is_said(monkeypatch):
    with pytest.raises(ValueError, match=r"images \(4, 8, 12, 1\), truths \(4, 8, 12\) and predictions \(2, 8, 12"):
        mask_gallery(IMAGES, TRUTHS, FOUND[:2])
    with pytest.raises(ValueError, match="at least one"):
        mask_gallery(IMAGES[:0], TRUTHS[:0], FOUND[:0])
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match="needs keras-cv and TensorFlow .*pip install keras-cv tensorflow"):
        mask_gallery(IMAGES, TRUTHS, FOUND)
