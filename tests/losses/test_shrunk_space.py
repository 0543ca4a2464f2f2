"""The loss of the shrunk class space, against loops over images and classes."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import ShrunkSpace, shrunk_cross_entropy
from tests.gradients import gradient
from tests.losses.helpers import compiled, finite_difference, softmax


def by_hand(probabilities, logits, threshold, ranking=None):
    """Losses, weights, first and confidence of each image (`U`); the confidence of a certain image is NaN."""
    losses, weights, first, confidence = [], [], [], []
    for u, p in enumerate(np.asarray(probabilities, "float64")):
        classes = len(p)
        if classes == 2 or p.max() >= threshold:
            losses, weights, first = [*losses, 0.0], [*weights, 0.0], [*first, 0]
            confidence.append(0.0 if classes == 2 else np.nan)
            continue
        ranked = p if ranking is None else np.asarray(ranking[u], "float64")
        order = sorted(range(classes), key=lambda k: -ranked[k])
        for c in range(2, classes):
            left = [order[0], *order[c:]]
            sure = ranked[order[0]] / sum(ranked[k] for k in left)
            if sure >= threshold:
                break
        scores = [float(logits[u][k]) for k in left]
        losses.append(np.log(sum(np.exp(score) for score in scores)) - scores[0])
        weights.append(p.max() if sure >= threshold else 0.0)
        first.append(c)
        confidence.append(sure)
    return tuple(map(np.array, (losses, weights, first, confidence)))


def numpy(found):
    return ShrunkSpace(*(ops.convert_to_numpy(field) for field in found))


def example(classes, count=40, seed=0):
    random = np.random.default_rng(seed)
    p = softmax(random.normal(0, 2, (count, classes)))
    return p.astype("float32"), random.normal(0, 2, (count, classes)).astype("float32")


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 1.01])
@pytest.mark.parametrize("classes", [2, 3, 4, 7])
def test_random_batches(classes, threshold):
    p, logits = example(classes)
    found = numpy(compiled(lambda p, a: shrunk_cross_entropy(p, a, threshold), p, logits))
    expected = by_hand(p, logits, threshold)
    certain = p.max(-1) >= threshold
    for name, ours, theirs in zip(ShrunkSpace._fields, found, expected, strict=True):
        known = ~np.isnan(theirs)
        np.testing.assert_allclose(ours[known], theirs[known], rtol=1e-5, atol=1e-6, err_msg=name)
    assert [field.dtype for field in found] == ["float32", "float32", "int32", "float32"]
    if classes > 3 and threshold == 0.8:
        assert len({*found.first}) > 2 and certain.any() and (found.weights > 0).any()


@pytest.mark.parametrize("classes", [3, 5])
def test_another_ranking(classes):
    p, logits = example(classes)
    ranking = example(classes, seed=1)[0]
    found = numpy(shrunk_cross_entropy(p, logits, 0.7, ranking))
    expected = by_hand(p, logits, 0.7, ranking)
    for ours, theirs in zip(found, expected, strict=True):
        known = ~np.isnan(theirs)
        np.testing.assert_allclose(ours[known], theirs[known], rtol=1e-5, atol=1e-6)
    assert (found.weights != numpy(shrunk_cross_entropy(p, logits, 0.7)).weights).any()


def test_the_numbers_of_the_specification():
    p = np.array([[0.5, 0.3, 0.15, 0.05], [0.9, 0.05, 0.03, 0.02]], "float32")
    found = numpy(shrunk_cross_entropy(p, np.zeros((2, 4), "float32"), 0.8))
    np.testing.assert_allclose((found.losses[0], found.weights[0]), (np.log(2), 0.5), rtol=1e-5)
    np.testing.assert_array_equal(found.first, [3, 0])
    np.testing.assert_allclose(found.confidence[0], 0.909, atol=1e-3)
    np.testing.assert_allclose((found.weights * found.losses).sum() / 2, 0.17329, atol=1e-5)
    # A lower threshold is reached when the second class has left: (0.5, 0.15, 0.05).
    found = numpy(shrunk_cross_entropy(p, np.zeros((2, 4), "float32"), 0.7))
    assert found.first[0] == 2
    np.testing.assert_allclose(found.confidence[0], 0.714, atol=1e-3)
    np.testing.assert_allclose(found.losses[0], np.log(3), rtol=1e-5)

    p = np.array([[0.4, 0.35, 0.25]], "float32")
    found = numpy(shrunk_cross_entropy(p, np.zeros((1, 3), "float32")))
    assert found.weights[0] == 0 and found.first[0] == 2
    np.testing.assert_allclose(found.confidence[0], 0.615, atol=1e-3)

    p = np.array([[0.9, 0.06, 0.04]], "float32")
    for competitor in (7.0, -7.0):
        logits = np.array([[np.log(3), competitor, 0.0]], "float32")
        found = numpy(shrunk_cross_entropy(p, logits))
        np.testing.assert_allclose(found.confidence[0], 0.9574, atol=1e-4)
        np.testing.assert_allclose(found.losses[0], 0.28768, atol=1e-5)
        np.testing.assert_allclose((found.weights * found.losses)[0], 0.25891, atol=1e-5)


def test_gradient_flows_into_the_logits_alone():
    p, logits = example(5, 20)

    def total(p, logits, ranking):
        found = shrunk_cross_entropy(p, logits, 0.8, ranking)
        return ops.sum(found.weights * found.losses) + ops.sum(found.confidence)

    def reading(logits):
        losses, weights, *_ = by_hand(p, logits, 0.8)
        return (weights * losses).sum()

    found = gradient(lambda x: total(p, x, p), logits)
    np.testing.assert_allclose(found, finite_difference(reading, logits), atol=1e-5)
    assert np.abs(found).max() > 0.01
    # Nothing moves the competitors that left, nor a certain image.
    places = numpy(shrunk_cross_entropy(p, logits, 0.8)).first
    order = np.argsort(-p, axis=-1)
    for u, first in enumerate(places):
        gone = order[u, 1:first] if first else order[u]
        assert not found[u, gone].any()
    assert 0 in places and places.max() > 0
    np.testing.assert_array_equal(gradient(lambda x: total(x, logits, p), p), 0)
    np.testing.assert_array_equal(gradient(lambda x: total(p, logits, x), p), 0)


@pytest.mark.parametrize("seed", range(3))
def test_two_classes_give_exactly_nothing(seed):
    p, logits = example(2, 6, seed)
    for threshold in (0.0, 0.6, 0.95, 1.1):
        for field in numpy(shrunk_cross_entropy(p, logits, threshold)):
            np.testing.assert_array_equal(field, 0)
        np.testing.assert_array_equal(
            gradient(lambda x, tau=threshold: ops.sum(shrunk_cross_entropy(p, x, tau).losses), logits), 0
        )


@pytest.mark.parametrize("kind", ["unknown", "one class", "even", "extreme logits"])
def test_always_finite(kind):
    p = {"unknown": np.zeros((2, 4)), "one class": np.eye(4)[[0, 3]]}.get(kind, np.full((2, 4), 0.25))
    scale = 1e4 if kind == "extreme logits" else 1.0
    logits = (scale * np.array([[1, -1, 0, 1], [0, 0, 0, -1]])).astype("float32")
    for threshold in (0.3, 0.5, 1.1):
        found = numpy(shrunk_cross_entropy(p.astype("float32"), logits, threshold))
        assert all(np.isfinite(field).all() for field in found)
        if kind in ("unknown", "one class"):
            assert not (found.weights * found.losses).any()
        slopes = gradient(
            lambda x, tau=threshold: ops.sum(shrunk_cross_entropy(p.astype("float32"), x, tau).losses), logits
        )
        assert np.isfinite(slopes).all()


def test_classes_that_tie_leave_in_their_order():
    logits = np.array([[0.0, 1.0, 2.0, 3.0]], "float32")
    found = numpy(shrunk_cross_entropy(np.full((1, 4), 0.25, "float32"), logits, 0.5))
    # Class 0 is the top one, and classes 1 and 2 leave.
    assert found.first[0] == 3 and found.weights[0] == 0.25
    np.testing.assert_allclose(found.losses[0], np.log(1 + np.exp(3)), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    arrays = [ops.cast(x, dtype) for x in example(4)]
    rounded = [ops.convert_to_numpy(ops.cast(x, "float32")) for x in arrays]
    for ours, theirs in zip(numpy(shrunk_cross_entropy(*arrays)), numpy(shrunk_cross_entropy(*rounded)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_errors():
    p = np.full((2, 3), 1 / 3, "float32")
    with pytest.raises(ValueError, match=r"`logits` must be of the shape of `probabilities` \(2, 3\), found \(2, 4\)"):
        shrunk_cross_entropy(p, np.zeros((2, 4), "float32"))
    with pytest.raises(ValueError, match=r"`ranking` must be of the shape of `probabilities` \(2, 3\), found \(1, 3\)"):
        shrunk_cross_entropy(p, p, ranking=p[:1])
    with pytest.raises(ValueError, match=r"`probabilities` must be \(U, C\) of at least two classes, found \(3,\)"):
        shrunk_cross_entropy(p[0], p[0])
