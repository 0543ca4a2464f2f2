"""The class separation of SS-Net against an independent NumPy reading, class by class and pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import ClassSeparation
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, value


def by_hand(embeddings, labels, means, counts, scores):
    total = 0.0
    for c in range(len(means)):
        pixels = np.flatnonzero(labels == c)
        if len(pixels) < 2 or counts[c] < 2:
            continue
        weights = len(pixels) * scores[c][pixels] / scores[c][pixels].sum()
        cosines = [embeddings[i] / np.linalg.norm(embeddings[i]) @ means[c] for i in pixels]
        total += sum(w * (1 - x) for w, x in zip(weights, cosines, strict=True)) / len(pixels)
    return total / len(means)


def example(seed=0, classes=4, pixels=15, dim=3):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, pixels)
    labels[random.uniform(size=pixels) < 0.2] = 255
    means = random.normal(0, 0.5, (classes, dim)).astype("float32")
    counts = np.array([0, 5, 1, 3], "float32")[:classes]
    means[0] = 0
    scores = random.uniform(0.05, 0.95, (classes, pixels)).astype("float32")
    scores[0] = 0
    return random.normal(size=(pixels, dim)).astype("float32"), labels.astype("int32"), means, counts, scores


@pytest.mark.parametrize(
    ("scores", "count", "expected"),
    [((0.3, 0.3), 2, 0.2), ((0.2, 0.6), 2, 0.175), ((0.2, 0.6), 1, 0), ((0.3, 0.3), 0, 0)],
)
def test_numbers_of_the_specification(scores, count, expected):
    embeddings = np.array([[1, 0], [3, 4]], "float32")
    means = np.array([[0, 0], [0.5, 0.5]], "float32")
    given = (means, np.array([0.0, count]), np.array([[0, 0], scores], "float32"))
    assert value(ClassSeparation()(embeddings, np.array([1, 1]), *given)) == pytest.approx(expected, abs=1e-6)
    assert value(ClassSeparation()(embeddings, np.array([1, 255]), *given)) == 0  # one pixel


@pytest.mark.parametrize("seed", range(3))
def test_loss_and_slopes(seed):
    given = example(seed)
    expected = by_hand(*given)
    assert value(compiled(ClassSeparation(), *given)) == pytest.approx(expected, rel=1e-4) and expected > 0.05
    for place in (0, 4):
        found, reading = (
            (lambda x, f=f, k=place: f(*given[:k], x, *given[k + 1 :])) for f in (ClassSeparation(), by_hand)
        )
        slope = gradient(found, given[place])
        np.testing.assert_allclose(slope, finite_difference(reading, given[place]), atol=1e-4)
        assert np.abs(slope).max() > 1e-3
    for place in (2, 3):
        assert not gradient(lambda x, k=place: ClassSeparation()(*given[:k], x, *given[k + 1 :]), given[place]).any()


def test_what_is_of_no_class_may_be_anything():
    embeddings, labels, means, counts, scores = example()
    out = np.where(np.arange(len(labels)) % 3 == 0, 255, labels)
    wild = np.where(out == 255, np.nan, scores).astype("float32")
    expected = by_hand(embeddings, out, means, counts, scores)
    assert value(ClassSeparation()(embeddings, out, means, counts, wild)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("case", ["nothing known", "one pixel", "no prototypes", "no scores", "zero embeddings"])
def test_degenerate_batches(case):
    embeddings, labels, means, counts, scores = example()
    if case == "nothing known":
        labels[:] = 255
    if case == "one pixel":
        labels = np.where(np.arange(len(labels)) == 3, 1, 0)
    if case == "no prototypes":
        means, counts = 0 * means, 0 * counts
    if case == "no scores":
        scores = 0 * scores
    if case == "zero embeddings":
        embeddings = 0 * embeddings
    given = (labels, means, counts, scores)
    found = value(ClassSeparation()(embeddings, *given))
    slope = gradient(lambda x: ClassSeparation()(x, *given), embeddings)
    assert np.isfinite(slope).all() and not slope.any()
    counted = sum((labels == c).sum() > 1 and counts[c] > 1 for c in range(4))
    assert found == (pytest.approx(counted / 4) if case == "zero embeddings" else 0) and (counted or found == 0)


def test_half_precision_is_computed_in_float32():
    embeddings, *given = example(1)
    half = ops.cast(100 * embeddings, "float16")
    expected = by_hand(ops.convert_to_numpy(ops.cast(half, "float32")), *given)
    assert value(ClassSeparation()(half, *given)) == pytest.approx(expected, rel=1e-4)
    assert_config_round_trip(ClassSeparation(name="pull"))
