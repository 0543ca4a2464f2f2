"""The contrast of U2PL against an independent NumPy reading: masks, prototypes, draws, InfoNCE, degenerate batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import UnreliableContrastLoss, draw_members
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, softmax, unit, value


def example(seed: int = 0, classes: int = 4, dim: int = 5, size: int = 6):
    random = np.random.default_rng(seed)
    p = softmax(random.normal(0, 1.5, (4, size, size, classes))).astype("float32")
    labels = random.integers(0, classes, (4, size, size))
    labels[random.uniform(size=labels.shape) < 0.1] = 255
    reliable = (random.uniform(size=labels.shape) < 0.6).astype("float32")
    z, taught = random.normal(size=(2, 4, size, size, dim)).astype("float32")
    bank = random.normal(size=(classes, 7, dim)).astype("float32")
    filled = (np.arange(7) < np.array([[7], [3], [0], [5]])[:classes]).astype("float32")
    draws = random.uniform(size=(classes, 9)).astype("float32"), random.uniform(size=(classes, 9, 4)).astype("float32")
    return (
        p,
        labels.astype("int32"),
        reliable,
        np.array([1, 1, 0, 0]),
        z,
        taught,
        bank * filled[..., None],
        filled,
        *draws,
    )


def masks_by_hand(p, labels, reliable, labeled, low, high, confidence=0.3):
    """Pixel by pixel, class by class."""
    anchors, negatives = np.zeros(p.shape), np.zeros(p.shape)
    for n, i, j in np.ndindex(*labels.shape):
        order = list(np.argsort(-p[n, i, j], kind="stable"))
        for c in range(p.shape[-1]):
            own, rank = labels[n, i, j] == c, order.index(c)
            sure = labeled[n] or reliable[n, i, j]
            anchors[n, i, j, c] = own and sure and p[n, i, j, c] > confidence
            if labels[n, i, j] == 255:
                continue
            if labeled[n]:
                negatives[n, i, j, c] = not own and rank < low
            else:
                negatives[n, i, j, c] = not reliable[n, i, j] and low <= rank < high
    return anchors, negatives


def loss_by_hand(z, anchors, prototypes, bank, filled, drawn, against, temperature=0.5):
    losses, present = [], 0
    for c in range(anchors.shape[-1]):
        members = np.argwhere(anchors[..., c] > 0)
        if not len(members):
            continue
        present += 1
        stored = int(filled[c].sum())
        if not stored:
            losses.append(0.0)
            continue
        each = []
        for m, u in enumerate(drawn[c]):
            a = unit(z[tuple(members[math.floor(np.float32(u) * np.float32(len(members)))])].astype("float64"))
            near = a @ unit(prototypes[c].astype("float64")) / temperature
            chosen = [bank[c, math.floor(np.float32(v) * np.float32(stored))] for v in against[c, m]]
            far = [a @ unit(x.astype("float64")) / temperature for x in chosen]
            each.append(np.log(np.exp([near, *far]).sum()) - near)
        losses.append(np.mean(each))
    return sum(losses) / present if present > 1 else 0.0


@pytest.mark.parametrize(("classes", "ranks"), [(2, (1, 2)), (3, (2, 3)), (4, (3, 4)), (4, (1, 3)), (4, (0, 2))])
def test_masks(classes, ranks):
    p, labels, reliable, labeled, *_ = example(classes, classes)
    default = ranks == (min(3, classes - 1), classes)
    loss = UnreliableContrastLoss(classes, ranks=None if default else ranks)
    found = compiled(lambda *x: loss.masks(*x), p, labels, reliable, labeled)
    for mask, expected in zip(found, masks_by_hand(p, labels, reliable, labeled, *ranks), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mask), expected)
        assert expected.any()


def test_masks_of_the_specification():
    p = np.array([[[[0.6, 0.4], [0.99, 0.01]]], [[[0.3, 0.7], [0.7, 0.3]]]], "float32")
    labels = np.zeros((2, 1, 2), "int32")
    _, negatives = UnreliableContrastLoss(2).masks(p, labels, np.array([[[0, 1]], [[0, 0]]]), np.array([0, 1]))
    expected = [[[[0, 1], [0, 0]]], [[[0, 1], [0, 0]]]]
    np.testing.assert_array_equal(ops.convert_to_numpy(negatives), expected)


def test_prototypes_are_means_and_nothing_for_nobody():
    p, labels, reliable, labeled, _, taught, *_ = example()
    anchors, _ = masks_by_hand(p, labels, reliable, labeled, 3, 4)
    anchors[..., 2] = 0
    found = ops.convert_to_numpy(UnreliableContrastLoss(4).prototypes(taught, anchors.astype("float32")))
    for c in (0, 1, 3):
        np.testing.assert_allclose(found[c], taught[anchors[..., c] > 0].mean(0), atol=1e-5)
    assert not found[2].any()
    booleans = UnreliableContrastLoss(4).prototypes(taught, anchors > 0)
    np.testing.assert_array_equal(ops.convert_to_numpy(booleans), found)


@pytest.mark.parametrize(("embedding", "expected"), [(1.0, 0.65013), (None, 0.75862)])
def test_numbers_of_the_specification(embedding, expected):
    loss = UnreliableContrastLoss(2)
    anchor = np.array([[[1.0, 0.0]]], "float32")
    positives = np.array([[1.0, 0.0]], "float32")
    bank = np.array([[[0.0, 3.0], [2.0, 0.0], [-1.0, 0.0]]], "float32")
    places = np.array([[[0, 1]]]) if embedding is None else np.full((1, 1, 50), 2)
    np.testing.assert_allclose(
        ops.convert_to_numpy(loss.contrast(anchor, positives, bank, places)), [[expected]], atol=1e-5
    )


@pytest.mark.parametrize("seed", range(3))
def test_loss_and_slope(seed):
    p, labels, reliable, labeled, z, taught, bank, filled, *draws = example(seed, dim=3, size=3)
    loss = UnreliableContrastLoss(4)
    anchors, _ = masks_by_hand(p, labels, reliable, labeled, 3, 4)
    anchors = anchors.astype("float32")
    prototypes = ops.convert_to_numpy(loss.prototypes(taught, anchors))
    given = (anchors, prototypes, bank, filled, *draws)
    np.testing.assert_allclose(value(compiled(loss, z, *given)), loss_by_hand(z, *given), rtol=1e-4)
    slope = gradient(lambda x: loss(x, *given), z)
    expected = finite_difference(lambda x: loss_by_hand(x, *given), z)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(slope, expected, atol=1e-5)
    for place in (1, 2):  # neither prototypes nor bank
        constant = gradient(lambda x, k=place: loss(z, *given[:k], x, *given[k + 1 :]), given[place])
        assert not constant.any()


def test_members_are_drawn_in_order():
    members = np.array([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
    uniform = np.array([[0.0, 0.34, 0.67, 0.999], [0.5] * 4, [0.999] * 4], "float32")
    places, found = draw_members(members, uniform)
    np.testing.assert_array_equal(ops.convert_to_numpy(places), [[1, 2, 4, 4], [0] * 4, [0] * 4])
    np.testing.assert_array_equal(ops.convert_to_numpy(found), [1, 0, 1])


def test_draws_are_uniform():
    random = np.random.default_rng(0)
    members = random.uniform(size=(3, 50)) < 0.3
    places, _ = draw_members(members, random.uniform(size=(3, 20000)).astype("float32"))
    for row, chosen in zip(members, ops.convert_to_numpy(places), strict=True):
        counts = np.bincount(chosen, minlength=50)
        assert not counts[~row].any()
        np.testing.assert_allclose(counts[row] / 20000, 1 / row.sum(), atol=0.01)


@pytest.mark.parametrize("case", ["no anchors", "one class", "empty bank", "zero embeddings"])
def test_degenerate_batches_are_finite(case):
    p, labels, reliable, labeled, z, taught, bank, filled, *draws = example()
    loss = UnreliableContrastLoss(4)
    anchors = masks_by_hand(p, labels, reliable, labeled, 3, 4)[0].astype("float32")
    if case == "no anchors":
        anchors *= 0
    if case == "one class":
        anchors[..., 1:] = 0
    if case == "empty bank":
        filled = filled * 0
    if case == "zero embeddings":
        z, bank = z * 0, bank * 0
    given = (anchors, ops.convert_to_numpy(loss.prototypes(taught, anchors)), bank, filled, *draws)
    slope = gradient(lambda x: loss(x, *given), z)
    assert np.isfinite(slope).all()
    if case != "zero embeddings":
        assert value(loss(z, *given)) == 0 and not slope.any()
    else:
        assert np.isfinite(value(loss(z, *given)))


def test_arguments():
    assert_config_round_trip(UnreliableContrastLoss(5, 0.4, 0.7, (1, 3)))
    assert (UnreliableContrastLoss(21).low, UnreliableContrastLoss(21).high) == (3, 20)
    for wrong, message in {
        "ranks": ((2, 3), r"`ranks` must be .*low below the 2 classes, found \(2, 3\)"),
        "confidence": (1.5, r"`confidence` must be in \[0, 1\], found 1.5"),
        "temperature": (0, "`temperature` must be a finite number above 0, found 0"),
    }.items():
        with pytest.raises(ValueError, match=message[1]):
            UnreliableContrastLoss(2, **{wrong: message[0]})
    with pytest.raises(ValueError, match="`ranks`"):
        UnreliableContrastLoss(4, ranks=(2, 2))
