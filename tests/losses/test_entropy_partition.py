"""The partition by entropy and the loss of the reliable pixels, against an independent NumPy reading (U2PL)."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import entropy_partition, reliable_cross_entropy
from keras_semimed.thresholds import unreliable_share
from tests.gradients import gradient
from tests.losses.helpers import compiled, finite_difference, softmax, value


def probabilities_of(entropies: np.ndarray) -> np.ndarray:
    """Two classes with the given entropies in nats, by halves."""
    low, high = np.full(entropies.shape, 0.5), np.full(entropies.shape, 1.0)
    for _ in range(60):
        middle = (low + high) / 2
        q = np.clip(1 - middle, 1e-300, 1)
        larger = -(middle * np.log(middle) + q * np.log(q)) > entropies
        low, high = np.where(larger, middle, low), np.where(larger, high, middle)
    return np.stack([low, 1 - low], -1).astype("float32")


def by_hand(p: np.ndarray, inside: np.ndarray, share: float):
    """Sorting, in float64."""
    p = p.astype("float64")
    entropy = -np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0), -1)
    ordered = np.sort(entropy[inside > 0])
    if not len(ordered):
        return np.zeros(inside.shape), np.zeros(inside.shape), entropy, 0.0
    h = (1 - share) * (len(ordered) - 1)
    m = max(int(np.ceil(h)), 1)
    reliable = (inside > 0) & (entropy <= ordered[m - 1] + 1e-9)
    following = ordered[min(m, len(ordered) - 1)]
    return reliable, (inside > 0) & ~reliable, entropy, ordered[m - 1] + (h - m + 1) * (following - ordered[m - 1])


@pytest.mark.parametrize(("share", "threshold"), [(0.2, 0.42), (0.0, 0.5)])
def test_the_numbers_of_the_specification(share, threshold):
    p = probabilities_of(np.array([[[0.3, 0.1, 0.5, 0.4, 0.2]]]))
    found = entropy_partition(p, np.ones((1, 1, 5)), share)
    np.testing.assert_array_equal(ops.convert_to_numpy(found.reliable)[0, 0], [1, 1, 0, 1, 1])
    np.testing.assert_array_equal(ops.convert_to_numpy(found.unreliable)[0, 0], [0, 0, 1, 0, 0])
    np.testing.assert_allclose(value(found.threshold), threshold, atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(found.entropy)[0, 0], [0.3, 0.1, 0.5, 0.4, 0.2], atol=1e-6)


def test_a_share_that_cuts_at_a_whole_number_keeps_no_pixel_more():
    for count in (26, 46, 51, 101, 201):
        p = probabilities_of(np.linspace(0.01, 0.6, count).reshape(1, 1, -1))
        reliable = ops.convert_to_numpy(entropy_partition(p, np.ones((1, 1, count)), 0.4).reliable)
        assert reliable.sum() == 3 * (count - 1) // 5, count


@pytest.mark.parametrize("share", [0.0, 0.137, 0.5, 1.0])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_partition_of_random_batches(share, classes):
    random = np.random.default_rng(classes)
    p = softmax(random.normal(0, 2, (3, 8, 9, classes))).astype("float32")
    inside = (random.uniform(size=(3, 8, 9)) < 0.7).astype("float32")
    found = compiled(lambda p, inside: entropy_partition(p, inside, share), p, inside)
    reliable, unreliable, entropy, threshold = by_hand(p, inside, share)
    np.testing.assert_array_equal(ops.convert_to_numpy(found.reliable), reliable)
    np.testing.assert_array_equal(ops.convert_to_numpy(found.unreliable), unreliable)
    np.testing.assert_allclose(ops.convert_to_numpy(found.entropy), entropy, atol=2e-6)
    np.testing.assert_allclose(value(found.threshold), threshold, atol=2e-6)


def test_ties_stay_together_and_nothing_gives_nothing():
    sure = np.tile(np.array([1.0, 0.0], "float32"), (1, 4, 4, 1))
    found = entropy_partition(sure, np.ones((1, 4, 4)), 0.2)
    assert ops.convert_to_numpy(found.reliable).all() and value(found.threshold) == 0
    found = entropy_partition(sure, np.zeros((1, 4, 4)), 0.2)
    assert not ops.convert_to_numpy(found.reliable).any() and not ops.convert_to_numpy(found.unreliable).any()
    assert value(found.threshold) == 0
    one = np.zeros((1, 4, 4), "float32")
    one[0, 2, 1] = 1
    found = entropy_partition(np.full((1, 4, 4, 2), 0.5, "float32"), one, 0.2)
    np.testing.assert_array_equal(ops.convert_to_numpy(found.reliable), one)
    np.testing.assert_allclose(value(found.threshold), np.log(2), rtol=1e-6)


def test_share_falls_to_nothing():
    found = [value(ops.convert_to_tensor(unreliable_share(t))) for t in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(found, [0.2, 0.1, 0.0], atol=1e-7)


def test_loss_of_the_specification():
    losses = np.array([1.0, 2.0, 3.0, 4.0, 9.0])
    p = np.exp(-losses)
    logits = np.log(np.stack([p, 1 - p], -1))[None, None].astype("float32")
    found = reliable_cross_entropy(np.zeros((1, 1, 5), "int32"), logits, np.array([[[1, 1, 1, 1, 0]]]))
    np.testing.assert_allclose(value(found), 3.125, rtol=1e-5)


def test_loss_and_slope_of_random_batches():
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (2, 3, 4, 3))
    labels = random.integers(0, 3, (2, 3, 4))
    labels[0, 0] = 255
    reliable = (random.uniform(size=labels.shape) < 0.5).astype("float32")

    def reading(z):
        chosen = np.take_along_axis(np.log(softmax(z)), np.where(labels == 255, 0, labels)[..., None], -1)[..., 0]
        kept = reliable * (labels != 255)
        return (labels != 255).sum() * -(kept * chosen).sum() / kept.sum() ** 2

    found = reliable_cross_entropy(labels, logits.astype("float32"), reliable)
    np.testing.assert_allclose(value(found), reading(logits), rtol=1e-5)
    slope = gradient(lambda z: reliable_cross_entropy(labels, z, reliable), logits.astype("float32"))
    np.testing.assert_allclose(slope, finite_difference(reading, logits), atol=1e-5)
    for nothing in (0 * reliable, None):
        masks = np.full_like(labels, 255) if nothing is None else labels
        kept = reliable if nothing is None else nothing
        assert value(reliable_cross_entropy(masks, logits.astype("float32"), kept)) == 0
        assert not gradient(lambda z, m=masks, k=kept: reliable_cross_entropy(m, z, k), logits.astype("float32")).any()
