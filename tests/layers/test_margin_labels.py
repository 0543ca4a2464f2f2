"""Labels by the margin, their colours and the code of times, against the rules written out (DiffRect)."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import margin_labels, paint, sinusoidal_code
from tests.gradients import gradient
from tests.losses.helpers import compiled, softmax


def numpy(value):
    return ops.convert_to_numpy(value)


def labels_by_hand(p, margin):
    found = np.zeros(p.shape[:-1], "int32")
    for place in np.ndindex(*found.shape):
        most, least = p[place].max(), p[place].min()
        if (most - least) / most > margin:
            found[place] = p[place].argmax()
    return found


def test_the_labels_of_the_specification():
    p = np.array([[0.2, 0.8], [0.1, 0.9], [0.9, 0.1], [1 - 0.8333, 0.8333], [1 - 0.8334, 0.8334]])
    np.testing.assert_array_equal(numpy(margin_labels(p.reshape(1, 1, 5, 2))), [[[0, 1, 0, 0, 1]]])


@pytest.mark.parametrize("margin", [0.0, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_labels_of_random_predictions(margin, classes):
    p = softmax(np.random.default_rng(classes).normal(0, 1.5, (2, 9, 8, classes))).astype("float32")
    found = numpy(compiled(lambda x: margin_labels(x, margin), p))
    assert found.dtype == "int32"
    np.testing.assert_array_equal(found, labels_by_hand(p, margin))
    assert len(np.unique(found)) == (1 if margin == 1 else classes)


def test_half_precision_is_judged_in_full():
    p = softmax(np.random.default_rng(0).normal(0, 1.5, (1, 9, 8, 3))).astype("float16")
    np.testing.assert_array_equal(numpy(margin_labels(p)), labels_by_hand(p.astype("float32"), 0.8))
    assert not gradient(lambda x: ops.sum(ops.cast(margin_labels(x), "float32")), p).any()


def test_colours():
    red, green, blue, white, black = [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]
    for classes, expected in ((2, [white]), (3, [red, green]), (4, [red, green, blue])):
        labels = np.array([[[0, *range(1, classes), 255]]])
        found = numpy(compiled(lambda x, k=classes: paint(x, k), labels))
        assert found.dtype == "float32"
        np.testing.assert_array_equal(found[0, 0], [black, *expected, black])


@pytest.mark.parametrize("classes", [5, 9, 255])
def test_more_classes_have_colours_that_differ(classes):
    found = numpy(paint(np.arange(classes)[None, None], classes))[0, 0]
    assert found.min() == 0 and found.max() == 1 and not found[0].any()
    assert len(np.unique(found, axis=0)) == classes


@pytest.mark.parametrize("size", [4, 128])
def test_code_of_times(size):
    values = np.array([0.0, 1.0, 266.399, 999.0], "float32")
    found = numpy(compiled(lambda x: sinusoidal_code(x, size), values))
    assert found.shape == (4, size) and found.dtype == "float32"
    for n, t in enumerate(values.astype("float64")):
        for i in range(size // 2):
            angle = t * 10000.0 ** (-i / (size // 2 - 1))
            np.testing.assert_allclose(found[n, [i, size // 2 + i]], [np.sin(angle), np.cos(angle)], atol=2e-4)
    np.testing.assert_allclose(numpy(sinusoidal_code(np.array([3], "int32"), size))[0, 0], np.sin(3), rtol=1e-5)
    assert not gradient(lambda x: ops.sum(sinusoidal_code(x, size)), values).any()


@pytest.mark.parametrize("size", [2, 7])
def test_sizes_that_there_are_no_codes_of(size):
    with pytest.raises(ValueError, match=f"`size` must be an even number of at least 4, found {size}"):
        sinusoidal_code(np.zeros(1), size)
