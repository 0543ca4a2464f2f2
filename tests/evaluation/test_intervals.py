from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from keras_semimed.evaluation import paired_scores, summarize
from keras_semimed.evaluation.intervals import few_behind, jackknife_interval, without_each

ANYWHERE = (-math.inf, math.inf)


def interval_of_mean(values, limits=ANYWHERE):
    values = np.asarray(values, "float64")
    return jackknife_interval(float(values.mean()), (values.sum() - values) / (len(values) - 1), limits)


def transformed(student, skewness, count):
    """Hall's g, as printed."""
    return (
        student
        + skewness * student**2 / (3 * math.sqrt(count))
        + skewness**2 * student**3 / (27 * count)
        + skewness / (6 * math.sqrt(count))
    )


@pytest.mark.parametrize("count", [3, 8, 30, 200])
@pytest.mark.parametrize("sign", [1, -1])
def test_on_the_side_of_the_few_the_transformed_mean_is_at_a_quantile_of_student(count, sign):
    values = sign * np.random.default_rng(count).exponential(size=count)
    error, skewness = stats.sem(values), stats.skew(values, bias=False)
    assert sign * skewness > 0.4
    low, high = interval_of_mean(values)
    far, near = (high, low) if sign > 0 else (low, high)
    quantile = stats.t.ppf(0.975, count - 1)
    found = transformed((values.mean() - far) / error, skewness, count)
    assert found == pytest.approx(-sign * quantile)
    # Hall's end would be nearer on the other side.
    assert near == pytest.approx(values.mean() - sign * quantile * error)
    assert sign * transformed(sign * quantile, skewness, count) > quantile


def test_without_skewness_it_is_student_s_interval():
    values = np.array([-3.0, -1.0, 0.0, 1.0, 3.0]) + 7
    expected = stats.t.interval(0.95, 4, 7, stats.sem(values))
    assert interval_of_mean(values) == pytest.approx(expected)
    assert interval_of_mean([1.0, 2.0]) == pytest.approx(stats.t.interval(0.95, 1, 1.5, 0.5))


def test_it_reaches_further_to_the_side_of_the_few_that_decide():
    values = np.r_[np.zeros(27), [0.6, 0.7, 0.8]]
    low, high = interval_of_mean(values)
    mean, half = values.mean(), stats.t.ppf(0.975, 29) * stats.sem(values)
    assert high - mean > 2 * half and mean - low == pytest.approx(half)
    mirrored = interval_of_mean(-values)
    assert mirrored == pytest.approx((-high, -low))


def test_it_covers_where_student_s_interval_does_not():
    random = np.random.default_rng(0)
    held = {"student": 0, "package": 0}
    for _ in range(1000):
        values = np.where(random.random(30) < 1 / 6, random.exponential(0.25, 30), random.normal(0, 0.02, 30))
        student = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
        for name, (low, high) in (("student", student), ("package", interval_of_mean(values))):
            held[name] += low <= 0.25 / 6 <= high
    assert held["student"] < 880 and held["package"] > 915


def test_limits_and_values_without_an_interval():
    nearly = np.r_[np.ones(29), 0.0]
    assert interval_of_mean(nearly)[1] > 1
    low, high = interval_of_mean(nearly, (0.0, 1.0))
    assert 0.7 < low < 0.85 and high == 1
    assert interval_of_mean([0.25] * 5) == (0.25, 0.25)
    for left_out in (np.array([]), np.array([0.5]), np.array([0.5, math.nan, 0.4])):
        assert all(map(math.isnan, jackknife_interval(0.5, left_out, ANYWHERE)))


def test_each_image_is_left_out_once_in_any_number():
    for count in (1, 3, 256, 600):
        values = np.random.default_rng(count).normal(size=count)
        found = without_each(range(count), lambda weights, values=values: {"sum": weights @ values})["sum"]
        np.testing.assert_allclose(found, values.sum() - values, atol=1e-9)
    # A score that a part of the sets lacks.
    sometimes = without_each(range(600), lambda weights: {"a": weights.sum(axis=1)} if weights[0, 0] == 1 else {})
    assert np.isnan(sometimes["a"][:256]).all() and (sometimes["a"][256:] == 599).all()


def test_images_of_a_piece_are_left_out_together():
    found = without_each(["p", 1, "p", "q", "q"], lambda weights: {"sum": weights @ [1, 2, 4, 8, 16]})["sum"]
    assert found.tolist() == [31 - 5, 31 - 2, 31 - 24]


def rows_of_classes(labels, probabilities):
    return [
        {
            "name": str(index),
            "label": int(label),
            "prediction": int(value > 0.5),
            "probability_0": 1 - value,
            "probability_1": float(value),
        }
        for index, (label, value) in enumerate(zip(labels, probabilities, strict=True))
    ]


def test_the_interval_of_auroc_is_as_wide_as_delong_s():
    random = np.random.default_rng(1)
    labels = np.arange(300) % 3 == 0
    scores = 1 / (1 + np.exp(-random.normal(1.2 * labels)))
    summary = summarize(rows_of_classes(labels, scores))
    wins = (scores[labels][:, None] > scores[~labels]).astype(float)
    delong = math.sqrt(wins.mean(axis=1).var(ddof=1) / 100 + wins.mean(axis=0).var(ddof=1) / 200)
    assert summary["auroc"] == pytest.approx(wins.mean())
    assert summary["auroc_high"] - summary["auroc"] == pytest.approx(stats.t.ppf(0.975, 299) * delong, rel=0.02)
    # Below a high AUROC there is more room.
    assert summary["auroc"] - summary["auroc_low"] > 1.05 * (summary["auroc_high"] - summary["auroc"])


def test_the_interval_of_a_pooled_score_is_that_of_a_ratio():
    random = np.random.default_rng(2)
    union = random.integers(10, 200, 150)
    common = random.binomial(union, 0.7)
    rows = [
        {"name": str(i), "dice": 0.5, "iou": 0.5, "intersection_0": 9, "union_0": 9}
        | {"intersection_1": int(a), "union_1": int(b)}
        for i, (a, b) in enumerate(zip(common, union, strict=True))
    ]
    summary = summarize(rows)
    ratio = common.sum() / union.sum()
    error = np.std(common - ratio * union, ddof=1) / union.mean() / math.sqrt(150)
    assert summary["miou_foreground"] == pytest.approx(ratio)
    assert summary["miou_foreground_high"] - summary["miou_foreground_low"] == pytest.approx(
        4 * 0.988 * error, rel=0.03
    )
    # All images agree.
    assert summary["dice_low"] == summary["dice_high"] == 0.5


def test_a_score_that_needs_one_certain_image_has_no_interval():
    rows = rows_of_classes([1, 0, 0, 0], [0.9, 0.2, 0.6, 0.4])
    summary = summarize(rows)
    assert summary["auroc"] == summary["sensitivity"] == 1 and {"accuracy_low", "specificity_low"} <= summary.keys()
    assert not {"auroc_low", "auroc_high", "sensitivity_low"} & summary.keys()
    difference = paired_scores([(rows, rows_of_classes([1, 0, 0, 0], [0.3, 0.2, 0.6, 0.4]))])
    assert difference["auroc"].mean == pytest.approx(1 - 1 / 3) and math.isnan(difference["auroc"].low)
    assert difference["accuracy"].mean == 0.25 and difference["accuracy"].low <= 0.25 <= difference["accuracy"].high
    alone = paired_scores([(rows[:1], rows[:1])])["accuracy"]
    assert alone.mean == 0 and math.isnan(alone.low) and math.isnan(alone.high)


def test_few_images_or_groups_are_said():
    assert few_behind(60) == few_behind(60, 20) == few_behind(1000) == ""
    assert few_behind(59).startswith("Fewer than 60 images stand behind an interval (59): it can be too narrow")
    assert few_behind(500, 19).startswith("Fewer than 20 groups stand behind an interval (19)")
    assert few_behind(30, 6, "draws").startswith(
        "Fewer than 60 images and 20 draws stand behind an interval (30 and 6)"
    )
