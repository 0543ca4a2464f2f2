from __future__ import annotations

import math

import numpy as np
import pytest

from keras_semimed.evaluation import evaluate_images, summarize
from keras_semimed.evaluation.masks import score_mask
from keras_semimed.metrics import hausdorff_distance_95, normalized_surface_distance


class Given:
    """Stands in for a model: predicts the masks that it is made with."""

    def __init__(self, masks, num_classes):
        self.probabilities = np.eye(num_classes)[masks]

    def predict_on_batch(self, images):
        return {"mask": self.probabilities[: len(images)]}


def scored(truth, prediction, num_classes=2, **options):
    images = np.zeros((*np.shape(truth), 3), "uint8")
    return evaluate_images(Given(prediction, num_classes), [(images, {"mask": np.array(truth)})], **options)


def test_pooled_iou_is_that_of_all_pixels_and_not_the_mean_over_images():
    # Class 1: 1 of 4 pixels, then 2 of 2; background: 3 of 6, then 4 of 4.
    truth = [[[1, 1, 1, 1, 0, 0, 0, 255]], [[1, 1, 0, 0, 0, 0, 255, 255]]]
    prediction = [[[1, 0, 0, 0, 0, 0, 0, 1]], [[1, 1, 0, 0, 0, 0, 2, 0]]]
    rows = scored(truth, prediction, 4)
    assert [(row["intersection_1"], row["union_1"]) for row in rows] == [(1, 4), (2, 2)]
    assert [(row["intersection_0"], row["union_0"]) for row in rows] == [(3, 6), (4, 4)]
    summary = summarize(rows)
    assert summary["pooled_iou_class_0"] == 0.7 and summary["pooled_iou_class_1"] == 0.5
    # Class 2 lies under the ignore value only and class 3 nowhere: neither counts.
    assert "pooled_iou_class_2" not in summary and "pooled_iou_class_3" not in summary
    assert summary["miou_with_background"] == pytest.approx(0.6) and summary["miou_foreground"] == 0.5
    assert summary["iou"] == pytest.approx((0.25 + 1) / 2)
    # A class that is predicted and nowhere true has IoU 0 and counts.
    rows = scored([[[1, 0, 0, 0]]], [[[1, 2, 0, 0]]], 3)
    summary = summarize(rows)
    assert summary["pooled_iou_class_2"] == 0 and summary["miou_foreground"] == 0.5
    assert summary["miou_with_background"] == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_a_lesion_is_missed_where_no_predicted_foreground_lies_on_it():
    truth = [[[1, 1, 0, 0]], [[1, 0, 0, 0]], [[2, 0, 0, 0]], [[0, 0, 0, 0]], [[255, 1, 0, 0]], [[255] * 4]]
    prediction = [[[0, 0, 1, 1]], [[0, 0, 0, 0]], [[1, 0, 0, 0]], [[0, 1, 0, 0]], [[1, 0, 0, 0]], [[1, 0, 0, 0]]]
    rows = scored(truth, prediction, 3)
    # Beside it; nothing; found as another class; nothing to miss; under the ignore value; all ignored.
    assert [row.get("missed") for row in rows] == [1, 1, 0, None, 1, None]
    summary = summarize(rows)
    assert (summary["lesion_images"], summary["missed_lesions"], summary["images"]) == (4, 3, 6)
    healthy = summarize(rows[3:4])
    assert (healthy["lesion_images"], healthy["missed_lesions"]) == (0, 0)


def test_surface_metrics_are_means_over_the_classes_that_occur():
    random = np.random.default_rng(0)
    truth, prediction = random.integers(0, 3, (2, 12, 14))
    row = score_mask(truth, prediction, 4, surface_tolerance=0.5)
    masks = [(truth == c, prediction == c) for c in (1, 2)]
    assert row["nsd_at_0.5"] == pytest.approx(np.mean([normalized_surface_distance(*m, 0.5) for m in masks]))
    assert row["hd95"] == pytest.approx(np.mean([hausdorff_distance_95(*m) for m in masks]))
    assert row["nsd_at_0.5"] not in (0, 1)
    spaced = score_mask(truth, prediction, 4, surface_tolerance=0.5, spacing=(2, 0.5))
    assert spaced["hd95"] == pytest.approx(np.mean([hausdorff_distance_95(*m, (2, 0.5)) for m in masks]))


def test_surface_metrics_of_masks_that_are_empty_or_ignored():
    nothing = np.zeros((30, 40), int)
    lesion = nothing.copy()
    lesion[3:9, 4:9] = 1
    ignored = np.where(lesion, 255, 0)
    truth = [nothing, lesion, nothing, ignored, np.full_like(nothing, 255)]
    rows = scored(truth, np.array([nothing, nothing, lesion, lesion, lesion]))
    assert [row["nsd_at_2"] for row in rows[:4]] == [1, 0, 0, 1] and math.isnan(rows[4]["nsd_at_2"])
    assert [row["hd95"] for row in rows[:4]] == [0, 50, 50, 0] and math.isnan(rows[4]["hd95"])
    summary = summarize(rows)
    assert summary["nsd_at_2"] == 0.5 and summary["nsd_at_2_std"] == pytest.approx(np.std([0, 0, 1, 1], ddof=1))
    assert summary["hd95"] == 25


def test_surface_metrics_can_be_switched_off_and_name_their_tolerance():
    truth = np.zeros((1, 4, 4), int)
    (row,) = scored(truth, truth, surface_tolerance=None)
    assert not any(key.startswith(("nsd", "hd95")) for key in row) and row["dice"] == 1
    assert "hd95" not in summarize([row])
    (row,) = scored(truth, truth, surface_tolerance=1.5)
    assert "nsd_at_1.5" in row and "nsd_at_2" not in row


def test_a_class_that_cannot_be_predicted_is_refused():
    with pytest.raises(ValueError, match="holds the class 3, the predictions have the classes 0 to 1; .* ignore_value"):
        scored([[[0, 3]]], [[[0, 1]]])
