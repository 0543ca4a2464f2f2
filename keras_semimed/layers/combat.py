"""The student overrules its teachers where they disagree and it is surer (AD-MT's conflict combating)."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from keras_semimed.losses.reductions import shapes_agree


class Combat(NamedTuple):
    """What `combat_conflicts` returns; nothing here carries a gradient.

    Attributes:
        labels: class of each pixel. Shape: `(...)`, int32.
        confidence: how probable it is to whoever chose it, in 0..1. Shape: `(...)`, float32.
        overruled: 1 where the student changed the label, else 0. Shape: `(...)`, float32.
    """

    labels: Any
    confidence: Any
    overruled: Any


def combat_conflicts(labels: Any, confidence: Any, conflict: Any, student: Any) -> Combat:
    """Hands pixels to the student (Zhao et al., AD-MT, ECCV 2024, in the form of the authors' code).

    The student's most probable class and its probability replace label and confidence where the teachers conflict, it
    chooses another class than their ensemble, and it is strictly more confident. Elsewhere the ensemble stands.

    Args:
        labels: most probable class of the teachers' ensemble. Shape: `(...)`, integers.
        confidence: its probability. Shape: `(...)`.
        conflict: 1 where the teachers disagree, else 0, see `entropy_weighted_ensemble`. Shape: `(...)`.
        student: the student's probabilities of all classes, any float dtype. Shape: `(..., K)`.

    Returns:
        `Combat`.

    Raises:
        ValueError: if confidence or conflict are not of the labels' shape, or the student's probabilities not of that
            shape with one dimension more.
    """
    labels = ops.cast(labels, "int32")
    confidence, conflict, student = (
        ops.stop_gradient(ops.cast(values, "float32")) for values in (confidence, conflict, student)
    )
    expected, classes = tuple(labels.shape), tuple(student.shape)
    if len(classes) != len(expected) + 1 or not shapes_agree(classes[:-1], expected):
        raise ValueError(f"`student` must be (..., K) for labels of the shape {expected}, found {classes}.")
    for name, values in (("confidence", confidence), ("conflict", conflict)):
        if not shapes_agree(tuple(values.shape), expected):
            raise ValueError(f"`{name}` must be of the shape of `labels` {expected}, found {tuple(values.shape)}.")
    chosen, surety = ops.cast(ops.argmax(student, axis=-1), "int32"), ops.max(student, axis=-1)
    surer = ops.logical_and(chosen != labels, surety > confidence)
    overruled = ops.logical_and(conflict > 0, surer)
    return Combat(
        ops.where(overruled, chosen, labels),
        ops.where(overruled, surety, confidence),
        ops.cast(overruled, "float32"),
    )
