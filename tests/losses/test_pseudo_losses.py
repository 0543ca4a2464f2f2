"""The losses of each view with the other's label, against their equation."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import pseudo_losses
from tests.gradients import gradient
from tests.losses.helpers import softmax


def array(value):
    return ops.convert_to_numpy(value)


def crossed_by_hand(logits_1, logits_2):
    """Losses l_1, l_2 and labels y_1, y_2 of each image."""
    losses, labels = [], []
    for z_1, z_2 in zip(np.asarray(logits_1, "float64"), np.asarray(logits_2, "float64"), strict=True):
        y_1, y_2 = int(z_1.argmax()), int(z_2.argmax())
        losses.append((-np.log(softmax(z_1)[y_2]), -np.log(softmax(z_2)[y_1])))
        labels.append((y_1, y_2))
    return np.array(losses).T, np.array(labels).T


def test_the_numbers_of_the_specification():
    found = pseudo_losses(np.array([(2.0, 0.0)], "float32"), np.array([(0.0, 1.0)], "float32"))
    np.testing.assert_allclose(array(found.losses)[:, 0], [2.126928, 1.313262], atol=1e-6)
    np.testing.assert_array_equal(array(found.labels)[:, 0], [0, 1])


@pytest.mark.parametrize("classes", [2, 5])
def test_labels_are_crossed(classes):
    random = np.random.default_rng(classes)
    logits = [random.normal(0, 3, (7, classes)).astype("float32") for _ in range(2)]
    found = pseudo_losses(*logits)
    losses, labels = crossed_by_hand(*logits)
    np.testing.assert_allclose(array(found.losses), losses, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(array(found.labels), labels)
    assert (labels[0] != labels[1]).any()
    assert str(array(found.losses).dtype) == "float32" and str(array(found.labels).dtype) == "int32"


def test_no_slope_and_always_finite():
    sure = np.array([(200.0, -200.0)], "float32")
    np.testing.assert_allclose(array(pseudo_losses(sure, -sure).losses), 400)
    assert not gradient(lambda x: ops.sum(pseudo_losses(x, -sure).losses), sure).any()
