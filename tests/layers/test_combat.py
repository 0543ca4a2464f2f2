"""Who decides a pixel, teachers or student, against a reading pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import combat_conflicts
from tests.gradients import gradient
from tests.layers.compiled import compiled


def numpy(found):
    return type(found)(*map(ops.convert_to_numpy, found))


def by_hand(labels, confidence, conflict, student):
    """Label, confidence and whether it was overruled, of one pixel."""
    own = int(np.argmax(student))
    if conflict and own != labels and student[own] > confidence:
        return own, student[own], 1
    return labels, confidence, 0


@pytest.mark.parametrize("seed", range(2))
def test_only_a_surer_student_of_another_class_overrules_and_only_in_a_conflict(seed):
    random = np.random.default_rng(seed)
    student = random.dirichlet(np.ones(4), (3, 5, 6)).astype("float32")
    labels = random.integers(0, 4, (3, 5, 6)).astype("int32")
    confidence = random.uniform(0.25, 0.8, (3, 5, 6)).astype("float32")
    confidence[0, 0] = student[0, 0].max(-1)  # a draw
    conflict = random.integers(0, 2, (3, 5, 6)).astype("float32")
    found = numpy(compiled(combat_conflicts, [])(labels, confidence, conflict, student))
    for place in np.ndindex(*labels.shape):
        expected = by_hand(labels[place], confidence[place], conflict[place], student[place])
        assert (found.labels[place], found.confidence[place], found.overruled[place]) == expected
    assert 0.05 < found.overruled.mean() < 0.6 and not found.overruled[0, 0].any()
    assert [str(field.dtype) for field in found] == ["int32", "float32", "float32"]
    flags = numpy(combat_conflicts(labels, confidence, conflict > 0, student))
    np.testing.assert_array_equal(flags.labels, found.labels)


@pytest.mark.parametrize(
    ("student", "label", "confidence", "overruled"),
    [((0.3, 0.7), 1, 0.7, 1), ((0.42, 0.58), 0, 0.594029, 0), ((0.7, 0.3), 0, 0.594029, 0)],
)
def test_numbers_of_the_specification(student, label, confidence, overruled):
    given = np.array([0], "int32"), np.array([0.594029], "float32")
    found = numpy(combat_conflicts(*given, np.ones(1, "float32"), np.array([student], "float32")))
    assert (found.labels[0], found.overruled[0]) == (label, overruled)
    np.testing.assert_allclose(found.confidence, confidence, rtol=1e-6)
    at_peace = numpy(combat_conflicts(*given, np.zeros(1, "float32"), np.array([student], "float32")))
    assert (at_peace.labels[0], at_peace.overruled[0]) == (0, 0)
    np.testing.assert_array_equal(at_peace.confidence, given[1])


def test_no_gradient_to_anybody():
    student = np.random.default_rng(3).dirichlet(np.ones(3), 20).astype("float32")
    labels, conflict = np.zeros(20, "int32"), np.ones(20, "float32")
    confidence = np.full(20, 0.4, "float32")

    def of_student(x):
        return ops.sum(combat_conflicts(labels, confidence, conflict, x).confidence)

    def of_teachers(x):
        return ops.sum(combat_conflicts(labels, x, conflict, student).confidence)

    assert 0 < numpy(combat_conflicts(labels, confidence, conflict, student)).overruled.mean() < 1
    np.testing.assert_array_equal(gradient(of_student, student), 0)
    np.testing.assert_array_equal(gradient(of_teachers, confidence), 0)


def test_classes_in_the_place_of_probabilities_are_named():
    labels = np.zeros((2, 4), "int32")
    with pytest.raises(ValueError, match=r"`student` must be .*\(2, 4\), found \(2, 4\)"):
        combat_conflicts(labels, labels, labels, labels)


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 4, 3)])
def test_probabilities_of_other_pixels_are_named(shape):
    labels, ones = np.zeros((2, 2), "int32"), np.ones((2, 2), "float32")
    with pytest.raises(ValueError, match=rf"`student` must be .*\(2, 2\), found \({shape[0]}, {shape[1]}, 3\)"):
        combat_conflicts(labels, ones, ones, np.ones(shape, "float32"))
    student = np.ones((2, 2, 3), "float32")
    for name in ("confidence", "conflict"):
        given = {"confidence": ones, "conflict": ones, name: ones[:1]}
        with pytest.raises(ValueError, match=rf"`{name}` must be of the shape of `labels` \(2, 2\), found \(1, 2\)"):
            combat_conflicts(labels, student=student, **given)
