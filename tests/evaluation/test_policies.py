"""What a score is on cases that can be worked out by hand, through the evaluation that users call."""

from __future__ import annotations

import math

import numpy as np
import pytest

from keras_semimed.evaluation import evaluate_images, summarize

SIDE = 10
TURN = math.sqrt(2) / 2


class Given:
    """Predicts the masks that it is made with."""

    def __init__(self, masks):
        self.masks = np.array(masks)

    def predict_on_batch(self, images):
        return {"mask": np.eye(2)[self.masks[: len(images)]]}


def square(shape, top, left, side=SIDE):
    mask = np.zeros(shape, "uint8")
    mask[top : top + side, left : left + side] = 1
    return mask


def row_of(truth, prediction, **options):
    images = np.zeros((1, *truth.shape, 3), "uint8")
    (row,) = evaluate_images(Given([prediction]), [(images, {"mask": truth[None]})], **options)
    return row


@pytest.mark.parametrize("shift", [0, 1, 3, 10, 14])
def test_squares_offset_by_some_columns(shift):
    truth, prediction = square((20, 40), 5, 5), square((20, 40), 5, 5 + shift)
    row = row_of(truth, prediction, surface_tolerance=float(shift))
    common = SIDE * max(SIDE - shift, 0)
    assert row["dice"] == common / 100 and row["iou"] == pytest.approx(common / (200 - common))
    # The whole end of each square is that far from the other's outline, and nothing is further.
    assert row[f"nsd_at_{shift}"] == 1 and row["hd95"] == shift
    assert row["lesion_size"] == 100 and row["missed"] == int(shift >= SIDE)
    metrics = pytest.importorskip("sklearn.metrics")
    assert row["dice"] == pytest.approx(metrics.f1_score(truth.ravel(), prediction.ravel()))
    assert row["iou"] == pytest.approx(metrics.jaccard_score(truth.ravel(), prediction.ravel()))


def test_empty_truth_empty_prediction_and_both():
    nothing, lesion = np.zeros((30, 40), "uint8"), square((30, 40), 5, 5)
    expected = {  # Dice and IoU, NSD, HD95, missed
        "truth": (0.0, 0.0, 50.0, None),
        "prediction": (0.0, 0.0, 50.0, 1),
        "both": (1.0, 1.0, 0.0, None),
    }
    pairs = {"truth": (nothing, lesion), "prediction": (lesion, nothing), "both": (nothing, nothing)}
    rows = {empty: row_of(*pair) for empty, pair in pairs.items()}
    for empty, (overlap, near, distance, missed) in expected.items():
        row = rows[empty]
        assert (row["dice"], row["iou"], row["nsd_at_2"], row["hd95"]) == (overlap, overlap, near, distance), empty
        assert row.get("missed") == missed and row["lesion_size"] == (100 if empty == "prediction" else 0)
    summary = summarize(list(rows.values()), intervals=False)
    assert summary["dice"] == pytest.approx(1 / 3) and summary["hd95"] == pytest.approx(100 / 3)
    # Pooled, the empty pair counts for the background only: no common pixel of class 1.
    assert summary["pooled_dice_foreground"] == 0 and summary["miou_foreground"] == 0
    assert (summary["lesion_images"], summary["missed_lesions"]) == (1, 1)
    # Where nothing is true and nothing predicted in the whole set, there is no pooled foreground.
    normal = summarize([rows["both"]], intervals=False)
    assert "miou_foreground" not in normal and normal["miou_with_background"] == 1 and normal["dice"] == 1


def test_a_lesion_at_the_border_scores_as_one_with_room_around_it():
    rows = []
    for room in (0, 4):
        truth, prediction = (np.pad(mask, room) for mask in (square((SIDE, 20), 0, 0), square((SIDE, 20), 0, 2)))
        rows.append(row_of(truth, prediction, surface_tolerance=1.0))
    for key in ("dice", "iou", "nsd_at_1", "hd95", "lesion_size"):
        assert rows[0][key] == rows[1][key], key
    # Of an outline's 36 elements and 4 turns lie on the other's: 8 on each side along the shift and 2 turns; at
    # distance 1: one more on each of these sides, and 2 of the end, which see those sides.
    assert rows[0]["nsd_at_1"] == pytest.approx((20 + 2 * TURN) / (36 + 4 * TURN))
    assert (rows[0]["dice"], rows[0]["hd95"]) == (0.8, 2)


def test_pixels_that_are_no_squares():
    truth = square((20, 20), 4, 4)
    for spacing, shift, distance in (((2.0, 0.5), (1, 0), 2.0), ((2.0, 0.5), (0, 1), 0.5), ((0.5, 2.0), (0, 1), 2.0)):
        row = row_of(truth, np.roll(truth, shift, (0, 1)), surface_tolerance=1.0, spacing=spacing)
        assert row["hd95"] == distance and row["dice"] == 0.9
        assert (row["nsd_at_1"] == 1) == (distance <= 1)
        assert row["lesion_size"] == 100 * spacing[0] * spacing[1]
    row = row_of(truth, np.zeros_like(truth), spacing=(3.0, 4.0))
    assert row["hd95"] == 100  # the diagonal of 60 x 80


def test_ignored_pixels_belong_to_nobody():
    truth, prediction = square((20, 20), 4, 4), square((20, 20), 4, 4)
    prediction[4:14, 14:17] = 1
    truth[:, 14:] = 255
    row = row_of(truth, prediction)
    assert (row["dice"], row["nsd_at_2"], row["hd95"], row["lesion_size"]) == (1, 1, 0, 100)
    row = row_of(np.full_like(truth, 255), prediction)
    assert all(math.isnan(row[key]) for key in ("dice", "iou", "nsd_at_2", "hd95")) and "missed" not in row
