from __future__ import annotations

import numpy as np
import pytest

from keras_semimed.data import EvaluationBatches, ImageSet
from keras_semimed.evaluation import evaluate_images, summarize


class Threshold:
    """Stands in for a model: foreground where the first channel is above 99, class 1 where the corner is bright."""

    def __init__(self):
        self.batch_sizes = []

    def predict_on_batch(self, images):
        self.batch_sizes.append(len(images))
        mask = (images[..., 0] > 99).astype("float32")
        label = (images[:, 0, 0, 0] > 200).astype("float32")
        return {"mask": np.stack([1 - mask, mask], -1), "label": np.stack([1 - label, label], -1)}


def images_and_masks():
    """4 images: half right, both empty, nothing right, all ignored."""
    images = np.zeros((4, 2, 4, 3), "uint8")
    masks = np.zeros((4, 2, 4), "uint8")
    images[0, 0, :] = 255
    masks[0, :, :2] = 1
    images[2, 0, 0] = 255
    masks[2, 1, 1] = 1
    masks[3] = 255
    return images, masks


def test_rows_hold_hand_computed_scores():
    images, masks = images_and_masks()
    image_set = ImageSet(list("wxyz"), images, masks, np.array([1, 0, 0, 0], "int32"))
    model = Threshold()
    rows = evaluate_images(model, EvaluationBatches(image_set, batch_size=3))
    assert model.batch_sizes == [3, 3]  # one compiled shape
    assert [row["name"] for row in rows] == list("wxyz")
    # 4 true, 4 predicted, 2 common: Dice 4/8, IoU 2/6.
    assert [row["dice"] for row in rows[:3]] == [0.5, 1.0, 0.0] and np.isnan(rows[3]["dice"])
    assert [row["iou"] for row in rows[:3]] == pytest.approx([1 / 3, 1.0, 0.0])
    assert [row["label"] for row in rows] == [1, 0, 0, 0]
    assert [row["prediction"] for row in rows] == [1, 0, 1, 0]
    assert rows[2]["probability_0"] == 0.0 and rows[2]["probability_1"] == 1.0


def test_summary_leaves_ignored_images_out_and_balances_classes():
    images, masks = images_and_masks()
    rows = evaluate_images(Threshold(), [(images, {"mask": masks, "label": np.array([1, 0, 0, 0])})], list("abcd"))
    summary = summarize(rows)
    assert summary["images"] == 4
    assert summary["dice"] == pytest.approx(0.5) and summary["dice_std"] == pytest.approx(0.5)
    assert summary["iou"] == pytest.approx(4 / 9)
    assert summary["accuracy"] == 0.75
    assert summary["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)


def test_heads_and_targets_may_be_missing():
    images, masks = images_and_masks()
    rows = evaluate_images(Threshold(), [(images, {"mask": masks[..., None]})])
    assert rows[0]["name"] == "0" and "label" not in rows[0] and rows[0]["prediction"] == 1
    assert "accuracy" not in summarize(rows)
    rows = evaluate_images(Threshold(), [(images, {"label": np.zeros(4, int)})])
    assert "dice" not in rows[0] and "dice" not in summarize(rows)


def test_images_of_an_unknown_class_are_in_no_score_of_classes():
    images, masks = images_and_masks()
    rows = evaluate_images(Threshold(), [(images, {"mask": masks, "label": np.array([1, 255, 255, 0])})])
    assert [row.get("label") for row in rows] == [1, None, None, 0] and rows[1]["prediction"] == 0
    assert summarize(rows)["accuracy"] == 1.0


def test_several_classes_average_those_that_occur():
    class Fixed:
        def predict_on_batch(self, images):
            return {"mask": np.eye(4)[np.array([[[1, 2, 0, 0]]])]}

    # Class 1 right, class 2 predicted and not there, class 3 in neither.
    (row,) = evaluate_images(Fixed(), [(np.zeros((1, 1, 4, 3)), {"mask": np.array([[[1, 0, 0, 255]]])})])
    assert (row["dice"], row["iou"]) == (0.5, 0.5)


def test_bad_input_is_named():
    images, masks = images_and_masks()
    with pytest.raises(ValueError, match=r"masks are \(4, 1, 4\)"):
        evaluate_images(Threshold(), [(images, {"mask": masks[:, :1]})])
    with pytest.raises(ValueError, match="names has 2 entries for 4 images"):
        evaluate_images(Threshold(), [(images, {"mask": masks})], names=["a", "b"])
    with pytest.raises(ValueError, match="no batches"):
        evaluate_images(Threshold(), [])
    for labels in ([0, 1, 2, 0], [0, 1, -1, 0], [[0, 1], [1, 0], [0, 1], [1, 0]], [0, 1]):
        with pytest.raises(ValueError, match="4 class indices from 0 to 1, or 255 where unknown, one an image"):
            evaluate_images(Threshold(), [(images, {"label": np.array(labels)})])
    with pytest.raises(ValueError, match="holds 0.5; class indices are whole numbers"):
        evaluate_images(Threshold(), [(images, {"mask": masks / 2})])
    with pytest.raises(ValueError, match="`batches` must be"):
        evaluate_images(Threshold(), [(images, masks)])
    for setting in ({"surface_tolerance": -1.0}, {"spacing": (0.0, 1.0)}):
        with pytest.raises(ValueError, match=next(iter(setting))):
            evaluate_images(Threshold(), [(images, {"mask": masks})], **setting)


def test_probabilities_that_are_not_finite_are_no_scores():
    class Diverged(Threshold):
        def predict_on_batch(self, images):
            return {"label": np.full((len(images), 2), np.nan)}

    with pytest.raises(ValueError, match="'label' probabilities of the model are not finite"):
        evaluate_images(Diverged(), [(images_and_masks()[0], {"label": np.zeros(4, int)})])


def test_one_image_has_no_spread():
    images, masks = images_and_masks()
    summary = summarize(evaluate_images(Threshold(), [(images[:1], {"mask": masks[:1]})]))
    assert summary["dice"] == 0.5 and not [key for key in summary if key.endswith(("_std", "_low", "_high"))]
