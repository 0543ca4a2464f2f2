"""Masks and means that every loss shares: always finite, in value and in gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

NEVER = -1e30
"""A logit that takes an entry out of a softmax; unlike minus infinity it leaves gradients finite."""


def one_hot_and_valid(
    labels: keras.KerasTensor, num_classes: int, ignore_value: int = 255
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """One-hot form of integer labels, with the ignored entries left out.

    Args:
        labels: integers. Shape: `(...)`.
        num_classes: K.
        ignore_value: label of the entries to leave out.

    Returns:
        The one-hot labels, all zero where ignored, shape `(..., K)`, and 1.0 where a label counts, 0.0 where it is
        ignored, shape `(...)`; both float32.

    Raises:
        ValueError: the ignore value is one of the classes.
    """
    if 0 <= ignore_value < num_classes:
        raise ValueError(f"`ignore_value` must not be one of the classes 0 to {num_classes - 1}, found {ignore_value}.")
    labels = ops.cast(labels, "int32")
    valid = ops.cast(ops.not_equal(labels, ignore_value), "float32")
    # A comparison instead of `ops.one_hot`, which PyTorch refuses for labels outside of 0..K-1; the ignore value is no
    # class, so that it compares unequal with all of them.
    one_hot = ops.equal(ops.expand_dims(labels, -1), ops.arange(num_classes, dtype="int32"))
    return ops.cast(one_hot, "float32"), valid


def safe_divide(numerator: keras.KerasTensor, denominator: keras.KerasTensor) -> keras.KerasTensor:
    """`numerator / denominator` where the denominator is positive, else the numerator.

    For sums over a selection: with nothing selected the numerator is 0, so the result is 0 and its gradient finite.
    """
    return numerator / ops.where(denominator > 0, denominator, ops.ones_like(denominator))


def weighted_mean(values: keras.KerasTensor, weights: keras.KerasTensor) -> keras.KerasTensor:
    """Mean of `values` by non-negative `weights` of the same shape; 0 where all weights are 0."""
    return safe_divide(ops.sum(values * weights), ops.sum(weights))


def shapes_agree(shape: Sequence[int | None], expected: Sequence[int | None]) -> bool:
    """Whether two shapes have the same rank and no known size differs; None is a size that is not known yet."""
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def check_class_maps(**maps: Any) -> None:
    """Raises a ValueError unless all of these are maps of classes `(N, H, W, K)` of one shape.

    Args:
        maps: tensors by the names of the arguments; sizes that are not known yet pass.
    """
    (first, expected), *others = ((name, tuple(values.shape)) for name, values in maps.items())
    if len(expected) != 4:
        raise ValueError(f"`{first}` must be (N, H, W, K), found {expected}.")
    for name, shape in others:
        if not shapes_agree(shape, expected):
            raise ValueError(f"`{name}` must be of the shape of `{first}` {expected}, found {shape}.")
