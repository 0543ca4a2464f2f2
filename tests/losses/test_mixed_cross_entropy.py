"""The cross-entropy of mixed images, against its equation in loops."""

from __future__ import annotations

import numpy as np
import pytest

from keras_semimed.losses import mixed_cross_entropy
from tests.gradients import gradient
from tests.losses.helpers import compiled, finite_difference, softmax, value


def mixed_by_hand(labels, logits, kept, share, partners):
    """An image without a label has no entropy of its own, and is one fewer in the mean."""
    own = others = 0.0
    p = softmax(np.asarray(logits, "float64"))
    known = labels != 255
    for i, j in enumerate(partners):
        if known[i]:
            own += share[i] * kept[i] * -np.log(p[i, labels[i]])
        if known[j]:
            others += (1 - share[i]) * kept[j] * -np.log(p[i, labels[j]])
    return (own + others) / max(known.sum(), 1)


def example(seed, classes=3, count=5):
    random = np.random.default_rng(seed)
    return (
        random.integers(0, classes, count).astype("int32"),
        random.normal(0, 2, (count, classes)).astype("float32"),
        random.integers(0, 2, count).astype("float32"),
        random.uniform(0.5, 1, count).astype("float32"),
        random.permutation(count).astype("int32"),
    )


def test_the_numbers_of_the_specification():
    given = (
        np.array([0, 1], "int32"), np.zeros((2, 2), "float32"), np.array([1, 0], "float32"),
        np.array([0.75, 0.5], "float32"), np.array([1, 0], "int32"),
    )  # fmt: skip
    np.testing.assert_allclose(value(mixed_cross_entropy(*given)), 0.433217, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_loss_is_that_of_the_equation(classes, seed):
    given = example(seed, classes)
    if seed == 2:
        given[0][1] = 255
    found = value(compiled(mixed_cross_entropy, *given))
    np.testing.assert_allclose(found, mixed_by_hand(*given), rtol=1e-5)
    assert found > 0


def test_an_image_that_is_its_own_partner_is_learnt_as_it_is():
    labels, logits, kept, share, _ = example(3, count=1)
    kept[:] = 1
    found = value(mixed_cross_entropy(labels, logits, kept, share, np.zeros(1, "int32")))
    np.testing.assert_allclose(found, -np.log(softmax(logits.astype("float64"))[0, labels[0]]), rtol=1e-5)


def test_slopes_and_nothing_kept():
    labels, logits, kept, share, partners = example(4)
    kept[:2] = 1
    found = gradient(lambda z: mixed_cross_entropy(labels, z, kept, share, partners), logits)
    expected = finite_difference(lambda z: mixed_by_hand(labels, z, kept, share, partners), logits)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    for index, given in ((2, kept), (3, share)):
        arguments = [labels, logits, kept, share, partners]

        def loss(x, index=index, arguments=arguments):
            return mixed_cross_entropy(*[x if i == index else v for i, v in enumerate(arguments)])

        assert not gradient(loss, given).any()
    none = np.zeros(5, "float32")
    assert value(mixed_cross_entropy(labels, logits, none, share, partners)) == 0
    unknown = np.full(5, 255, "int32")
    assert value(mixed_cross_entropy(unknown, logits, kept, share, partners)) == 0
    assert not gradient(lambda z: mixed_cross_entropy(unknown, z, kept, share, partners), logits).any()
