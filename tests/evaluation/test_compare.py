from __future__ import annotations

import itertools

import numpy as np
import pytest

from keras_semimed.evaluation import paired_difference
from keras_semimed.evaluation.compare import paired_p_values
from keras_semimed.evaluation.intervals import jackknife_interval


def test_mean_and_interval_of_independent_pairs():
    generator = np.random.default_rng(3)
    second = generator.normal(size=400)
    gains = generator.normal(0.3, 1.0, size=400)
    difference = paired_difference(second + gains, second)
    assert difference.mean == pytest.approx(gains.mean())
    # Of many values without skewness the interval is the normal one.
    half = 1.96 * gains.std() / 20
    assert difference.low == pytest.approx(gains.mean() - half, abs=0.01)
    assert difference.high == pytest.approx(gains.mean() + half, abs=0.01)


def test_clusters_are_left_out_whole():
    generator = np.random.default_rng(4)
    gains = generator.normal(size=100)
    once = paired_difference(gains, np.zeros(100))
    # Each entry four times carries no more evidence than once, if the copies stay together.
    clustered = paired_difference(np.repeat(gains, 4), np.zeros(400), clusters=np.repeat(np.arange(100), 4))
    assert clustered == pytest.approx(once)
    alone = paired_difference(np.repeat(gains, 4), np.zeros(400))
    assert (alone.high - alone.low) == pytest.approx((once.high - once.low) / 2, rel=0.1)


def test_clusters_of_unequal_size_weigh_by_their_entries():
    first = [1.0, 1.0, 1.0, 0.0, 0.5, 0.5]
    difference = paired_difference(first, np.zeros(6), clusters=["a", "a", "a", "b", "c", "c"])
    # Without a: 1 / 3; without b: 4 / 5; without c: 3 / 4.
    assert difference.mean == pytest.approx(4 / 6)
    expected = jackknife_interval(4 / 6, np.array([1 / 3, 4 / 5, 3 / 4]), (-np.inf, np.inf))
    assert difference[1:] == pytest.approx(expected)


def test_pairs_with_nan_are_left_out_and_one_cluster_has_no_interval():
    nan = float("nan")
    left = paired_difference([1.0, nan, 3.0, 0.5], [0.0, 0.0, nan, 0.0])
    assert left == paired_difference([1.0, 0.5], [0.0, 0.0])
    assert paired_difference([1.0, nan], [0.0, 0.0]) == pytest.approx((1.0, nan, nan), nan_ok=True)
    assert paired_difference([1.0, 0.0], [0.0, 0.0], ["a", "a"]) == pytest.approx((0.5, nan, nan), nan_ok=True)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="2, 1 and 2 entries"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no pair"):
        paired_difference([np.nan], [1.0])


def rows_of(**columns):
    return [
        {"name": str(index), **dict(zip(columns, values, strict=True))}
        for index, values in enumerate(zip(*columns.values(), strict=True))
    ]


def test_p_value_counts_the_sign_flips_that_are_as_extreme():
    gains = np.array([0.1, 0.2, 0.3, 0.4, -0.05])
    base = np.full(5, 0.5)
    pair = (rows_of(dice=base + gains), rows_of(dice=base))
    flipped = np.array(list(itertools.product((1, -1), repeat=5))) @ gains
    expected = np.mean(np.abs(flipped) >= gains.sum() - 1e-9)
    assert expected == 4 / 32
    assert paired_p_values([pair])["dice"] == pytest.approx(expected)
    # More seeds that say the same are no more images; seeds that say the opposite cancel.
    assert paired_p_values([pair] * 4)["dice"] == pytest.approx(expected)
    assert paired_p_values([pair, pair[::-1]])["dice"] == 1.0


def test_p_values_of_equal_models_are_one_and_of_another_they_are_small():
    generator = np.random.default_rng(0)
    scores = generator.uniform(size=60)
    rows = rows_of(dice=scores, nsd_at_2=scores, missed=scores < 0.1, label=[1] * 60, prediction=scores > 0.3)
    found = paired_p_values([(rows, rows)])
    assert found == {"dice": 1.0, "nsd_at_2": 1.0, "missed_rate": 1.0, "accuracy": 1.0}
    better = [{**row, "dice": row["dice"] + 0.1} for row in rows]
    assert paired_p_values([(better, rows)])["dice"] == pytest.approx(2 / 10000)


def test_ties_of_counts_stay_ties_and_unknown_scores_are_left_out():
    # One image is gained and one lost: no flip is less extreme than a difference of 0.
    one, other = (
        rows_of(label=[1] * 7, prediction=[1, 0] + [1] * 5),
        rows_of(label=[1] * 7, prediction=[0, 1] + [1] * 5),
    )
    assert paired_p_values([(one, other)]) == {"accuracy": 1.0}
    # Three images that all gain: 2 of 8 flips. The fourth has no lesion and no score.
    nan = float("nan")
    pair = rows_of(dice=[1, 1, 1, nan]), rows_of(dice=[0, 0, 0, nan])
    assert paired_p_values([pair]) == {"dice": 0.25}


def test_p_values_need_pairs_of_the_same_images_and_more_than_one():
    one = [{"name": "a", "dice": 0.5}]
    assert paired_p_values([(one, one)]) == {}
    with pytest.raises(ValueError, match="scored different images"):
        paired_p_values([(one, [{"name": "b", "dice": 0.5}])])
    with pytest.raises(ValueError, match="no pair"):
        paired_p_values([])
