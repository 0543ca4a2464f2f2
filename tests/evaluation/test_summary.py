from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from keras_semimed.evaluation import paired_scores, report_figures, summarize
from keras_semimed.evaluation.classes import calibration_bins, confusion_matrix
from keras_semimed.evaluation.images import read_rows
from keras_semimed.evaluation.intervals import jackknife_interval
from keras_semimed.evaluation.summary import statistics
from keras_semimed.files import write_table

metrics = pytest.importorskip("sklearn.metrics")


def class_rows(probabilities, labels):
    return [
        {
            "name": str(index),
            "label": int(label),
            "prediction": int(np.argmax(values)),
            **{f"probability_{c}": float(value) for c, value in enumerate(values)},
        }
        for index, (values, label) in enumerate(zip(probabilities, labels, strict=True))
    ]


def random_classes(count, classes, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    # Few different values, so that scores tie.
    scores = np.round(random.random((count, classes)) + np.eye(classes)[labels] * 0.4, 1) + 0.1
    return scores / scores.sum(axis=1, keepdims=True), labels


def test_scores_of_two_classes_are_those_of_scikit_learn():
    probabilities, labels = random_classes(80, 2)
    summary = summarize(class_rows(probabilities, labels), intervals=False)
    predictions = probabilities.argmax(axis=1)
    assert summary["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predictions))
    assert summary["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predictions))
    assert summary["sensitivity"] == pytest.approx(metrics.recall_score(labels, predictions))
    assert summary["specificity"] == pytest.approx(metrics.recall_score(labels, predictions, pos_label=0))
    assert summary["auroc"] == pytest.approx(metrics.roc_auc_score(labels, probabilities[:, 1]))
    assert 0.5 < summary["auroc"] < 1


def test_more_classes_are_averaged_each_against_the_others():
    probabilities, labels = random_classes(90, 3, seed=1)
    summary = summarize(class_rows(probabilities, labels), intervals=False)
    predictions = probabilities.argmax(axis=1)
    assert summary["auroc"] == pytest.approx(metrics.roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert summary["sensitivity"] == pytest.approx(metrics.recall_score(labels, predictions, average="macro"))
    rejected = [metrics.recall_score(labels == c, predictions == c, pos_label=False) for c in range(3)]
    assert summary["specificity"] == pytest.approx(np.mean(rejected))


def test_images_that_occur_several_times_weigh_as_much():
    probabilities, labels = random_classes(30, 2)
    rows = class_rows(probabilities, labels)
    weights = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=5)
    found = statistics(rows, weights)
    assert weights.sum(axis=1).tolist() == [30] * 5 and weights.max() > 1
    for index, weight in enumerate(weights):
        repeated = [row for row, times in zip(rows, weight, strict=True) for _ in range(times)]
        for key, value in summarize(repeated, intervals=False).items():
            if key != "images":
                assert found[key][index] == pytest.approx(value), key


def test_the_confusion_matrix_is_scikit_learn_s():
    for classes, seed in ((2, 0), (4, 1)):
        probabilities, labels = random_classes(60, classes, seed)
        labels[labels == classes - 1] = 0  # a class without an image keeps its row
        rows = [*class_rows(probabilities, labels), {"name": "masks only", "dice": 0.5}]
        expected = metrics.confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(classes))
        np.testing.assert_array_equal(confusion_matrix(rows), expected)
    with pytest.raises(ValueError, match="no true and predicted classes"):
        confusion_matrix([{"name": "a", "dice": 1.0}])


@pytest.mark.parametrize("long", ["", " of a long name that would lie on its neighbour's"])
def test_the_confusion_figure_has_true_classes_as_rows(monkeypatch, long):
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    monkeypatch.setattr(report_figures, "figure_uri", lambda draw: draw(axis))
    # Two of class 0 are taken for class 2, one of class 2 is right.
    rows = class_rows(np.eye(3)[[2, 2, 2]], [0, 0, 2])
    figure = report_figures.confusion_figure(rows, ("a $x$" + long, "b" + long))
    assert figure.title == "Confusion matrix" and axis.get_ylabel() == "true class"
    texts = {tuple(text.get_position()): text.get_text() for text in axis.texts}  # column, row
    assert texts == {(c, r): {(2, 0): "2", (2, 2): "1"}.get((c, r), "0") for c in range(3) for r in range(3)}
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == [rf"a \$x\${long}", "b" + long, "2"]
    assert {label.get_rotation() for label in axis.get_xticklabels()} == {30 if long else 0}
    assert report_figures.confusion_figure([{"name": "masks only", "dice": 0.5}]) is None


def test_calibration_error_by_hand():
    # Confidence 0.9, 0.9 (one right) and 0.6 (right): gaps 0.4 on two images and 0.4 on one.
    rows = class_rows([[0.1, 0.9], [0.1, 0.9], [0.6, 0.4]], [1, 0, 0])
    assert summarize(rows, intervals=False)["expected_calibration_error"] == pytest.approx(0.4)
    bins = calibration_bins(rows, 10)
    assert bins.counts.tolist() == [0] * 5 + [1, 0, 0, 2, 0]
    assert bins.accuracy[8] == 0.5 and bins.confidence[8] == pytest.approx(0.9) and math.isnan(bins.accuracy[0])
    sure = class_rows([[0.0, 1.0], [0.0, 1.0]], [1, 1])
    assert summarize(sure, intervals=False)["expected_calibration_error"] == 0


def bins_by_loop(confidences, bins):
    """How many lie in each bin (lower, upper], in single precision; exact, since fractions are not rounded."""
    edges = [Fraction(float(np.float32(k / bins))) for k in range(bins + 1)]
    counts = [0] * bins
    for value in confidences:
        exact = Fraction(float(np.float32(value)))
        (place,) = [k for k in range(bins) if edges[k] < exact <= edges[k + 1]] or [0]
        counts[place] += 1
    return counts


@pytest.mark.parametrize("bins", range(1, 61))
def test_a_confidence_on_an_edge_is_in_the_bin_below(bins):
    steps = np.arange(bins + 1)
    exact = steps / bins
    single = exact.astype("float32")
    on_edges = (exact, np.linspace(0, 1, bins + 1), steps * (1 / bins), 1 - exact[::-1], single)
    for values in on_edges:
        counts = calibration_bins(class_rows(values[:, None], steps > 0), bins).counts
        # 0 and 1 / bins are in the first bin.
        assert counts.tolist() == [2, *[1] * (bins - 1)]
    above, below = (np.nextafter(single, np.float32(limit)) for limit in (2, -1))
    assert calibration_bins(class_rows(above[:-1, None], steps[:-1]), bins).counts.tolist() == [1] * bins
    assert calibration_bins(class_rows(below[1:, None], steps[1:]), bins).counts.tolist() == [1] * bins
    random = np.random.default_rng(bins).random(50)
    values = np.concatenate([random, exact])
    assert calibration_bins(class_rows(values[:, None], values), bins).counts.tolist() == bins_by_loop(values, bins)


def test_the_calibration_error_has_the_same_bins():
    # Two images on the edge 7 / 15, one right; one image just above, wrong: its bin is another one.
    edge = float(np.float32(7 / 15))
    confidences = np.array([edge, 7 / 15, edge + 1e-4])
    rows = class_rows(confidences[:, None], [0, 1, 1])
    gaps = abs(edge + 7 / 15 - 1) + (edge + 1e-4)
    assert summarize(rows, intervals=False)["expected_calibration_error"] == pytest.approx(gaps / 3)


def test_what_a_missing_class_makes_impossible_is_left_out():
    summary = summarize(class_rows([[0.2, 0.8], [0.6, 0.4]], [1, 1]))
    assert summary["sensitivity"] == summary["accuracy"] == 0.5
    assert not {"auroc", "auroc_low", "specificity"} & set(summary)


def mask_rows(dice, sizes):
    """Rows with a lesion of the given size, of which a share is found and nothing beside it."""
    rows = []
    for index, (score, size) in enumerate(zip(dice, sizes, strict=True)):
        common = round(score * size / (2 - score))
        rows.append(
            {
                "name": str(index),
                "dice": score,
                "iou": common / size,
                "intersection_0": 100,
                "union_0": 100 + size - common,
            }
            | {"intersection_1": common, "union_1": size, "missed": int(common == 0)}
        )
    return rows


def test_pooled_dice_weighs_pixels_and_dice_weighs_images():
    # Found: all of 1 pixel; 1 of 3 pixels (Dice 0.5); none of 4.
    summary = summarize(mask_rows([1.0, 0.5, 0.0], [1, 3, 4]), intervals=False)
    assert summary["dice"] == 0.5 and summary["dice_std"] == 0.5
    # 2 common pixels, 8 true, 2 predicted.
    assert summary["pooled_dice_foreground"] == pytest.approx(4 / 10)
    assert summary["pooled_iou_class_1"] == pytest.approx(2 / 8)
    assert summary["missed_lesions"] == 1 and summary["missed_rate"] == pytest.approx(1 / 3)


def test_intervals_cover_the_mean_and_shrink_with_images():
    dice = np.random.default_rng(0).uniform(0, 1, 400).round(2)
    small, large = (summarize(mask_rows(dice[:count], [100] * count)) for count in (25, 400))
    for summary in (small, large):
        for key in ("dice", "miou_with_background", "missed_rate", "pooled_dice_foreground"):
            assert summary[f"{key}_low"] <= summary[key] <= summary[f"{key}_high"]
    width = {summary["images"]: summary["dice_high"] - summary["dice_low"] for summary in (small, large)}
    assert width[25] == pytest.approx(4 * width[400], rel=0.25)
    # Mean of 400 uniform values: standard error 0.289 / 20.
    assert width[400] == pytest.approx(2 * 1.96 * 0.0144, rel=0.1)
    assert not any(key.endswith("_low") for key in summarize(mask_rows([0.5], [3]), intervals=False))


def test_paired_scores_of_whole_sets():
    base = mask_rows([0.0, 0.5, 1.0, 0.0], [3, 3, 3, 3])
    better = mask_rows([0.5, 0.5, 1.0, 0.5], [3, 3, 3, 3])
    found = paired_scores([(better, base), (base, base)])
    assert found["dice"].mean == pytest.approx((0.25 + 0) / 2)
    assert found["missed_rate"].mean == pytest.approx(-0.25)
    # 4 of 12 pixels are found by the one, 6 by the other.
    assert found["pooled_iou_class_1"].mean == pytest.approx((2 / 12) / 2)
    # Without an image: 1 of 9 pixels more, twice, or 2 of 9, twice, halved by the second pair.
    expected = jackknife_interval(1 / 12, np.array([1, 2, 2, 1]) / 18, (-1, 1))
    assert found["pooled_iou_class_1"][1:] == pytest.approx(expected)
    # The same gain on every image: no interval.
    same = paired_scores([(mask_rows([0.5] * 3, [3] * 3), mask_rows([0.0] * 3, [3] * 3))])["dice"]
    assert tuple(same) == pytest.approx((0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="different images"):
        paired_scores([(better, base[:3])])
    with pytest.raises(ValueError, match="no pair"):
        paired_scores([])


def test_rows_come_back_from_a_table(tmp_path):
    rows = [
        {"name": "007", "weights": "last", "dice": 1.0, "union_1": 3, "missed": 0, "hd95": float("nan")},
        {"name": "x", "weights": "last", "dice": 1e-9, "union_1": 0},
    ]
    write_table(tmp_path / "images.csv", rows)
    read = read_rows(tmp_path / "images.csv")
    np.testing.assert_equal(read, rows)
    assert isinstance(read[0]["dice"], float) and isinstance(read[0]["union_1"], int)
