from __future__ import annotations

import numpy as np
import pytest

from keras_semimed.evaluation import paired_bootstrap


def test_mean_and_interval_of_independent_pairs():
    generator = np.random.default_rng(3)
    second = generator.normal(size=400)
    gains = generator.normal(0.3, 1.0, size=400)
    difference = paired_bootstrap(second + gains, second)
    assert difference.mean == pytest.approx(gains.mean())
    # For a mean of many values the percentile interval is the normal one.
    half = 1.96 * gains.std() / 20
    assert difference.low == pytest.approx(gains.mean() - half, abs=0.01)
    assert difference.high == pytest.approx(gains.mean() + half, abs=0.01)


def test_clusters_are_drawn_whole():
    generator = np.random.default_rng(4)
    gains = generator.normal(size=100)
    once = paired_bootstrap(gains, np.zeros(100))
    # Each entry four times carries no more evidence than once, if the copies stay together.
    clustered = paired_bootstrap(np.repeat(gains, 4), np.zeros(400), clusters=np.repeat(np.arange(100), 4))
    assert clustered == pytest.approx(once)
    alone = paired_bootstrap(np.repeat(gains, 4), np.zeros(400))
    assert (alone.high - alone.low) == pytest.approx((once.high - once.low) / 2, rel=0.1)


def test_clusters_of_unequal_size_weigh_by_their_entries():
    difference = paired_bootstrap([1.0, 1.0, 1.0, 0.0], np.zeros(4), clusters=["a", "a", "a", "b"])
    # Draws of two clusters: aa = 1, ab = 3/4, bb = 0.
    assert difference == (0.75, 0.0, 1.0)


def test_pairs_with_nan_are_left_out_and_the_seed_decides():
    first, second = [1.0, np.nan, 3.0], [0.0, 0.0, np.nan]
    assert paired_bootstrap(first, second) == (1.0, 1.0, 1.0)
    scores = np.arange(10.0)
    assert paired_bootstrap(scores, 0 * scores, seed=1) == paired_bootstrap(scores, 0 * scores, seed=1)
    assert paired_bootstrap(scores, 0 * scores, samples=50, seed=1) != paired_bootstrap(
        scores, 0 * scores, samples=50, seed=2
    )


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="2, 1 and 2 entries"):
        paired_bootstrap([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no pair"):
        paired_bootstrap([np.nan], [1.0])
