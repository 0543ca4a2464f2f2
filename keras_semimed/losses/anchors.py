"""Sampling of anchor pixels with fixed shapes (Hermes Sec. 3.4, "Anchor sampling")."""

from __future__ import annotations

import keras
from keras import ops


def sample_anchors(
    labels: keras.KerasTensor,
    certain: keras.KerasTensor,
    hard: keras.KerasTensor,
    noise: keras.KerasTensor,
    num_classes: int,
    per_group: int,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Draws anchors for every image and class: half of them hard pixels, half easy ones.

    A hard pixel is one on which the weak and the strong view disagree. The slots of a group (one image, one class) are
    filled easy, hard, easy, hard, ...; when one kind runs out, the other goes on. So any first n slots hold n/2 of
    each kind where there are enough, topped up from the other kind where not. Uncertain pixels are never drawn and no
    pixel is drawn twice: what a group lacks stays invalid.

    Args:
        labels: (pseudo-)label of each pixel. Shape: `(B, P)`, integers.
        certain: whether a pixel may be drawn. Shape: `(B, P)`, boolean or 0/1.
        hard: whether a pixel is hard. Shape: `(B, P)`, boolean or 0/1.
        noise: uniform in [0, 1); decides which pixels of a kind are drawn. Shape: `(B, P)`.
        num_classes: K.
        per_group: slots of each image and class.

    Returns:
        The positions in 0..P-1 as int32 and whether each slot holds an anchor as bool, both `(per_group, B, K)`.

    Raises:
        ValueError: the number of pixels P is not static, or `per_group` is not positive.
    """
    pixels = labels.shape[1]
    if pixels is None:
        raise ValueError(f"`labels` must have a static number of pixels, found shape {labels.shape}.")
    if per_group < 1:
        raise ValueError(f"`per_group` must be at least 1, found {per_group}.")
    drawn = min(per_group, pixels)

    one_class = ops.equal(
        ops.expand_dims(ops.cast(labels, "int32"), 1), ops.reshape(ops.arange(num_classes, dtype="int32"), (1, -1, 1))
    )
    members = ops.logical_and(one_class, ops.expand_dims(ops.cast(certain, "bool"), 1))  # (B, K, P)
    hard = ops.expand_dims(ops.cast(hard, "bool"), 1)
    kinds = ops.stack([ops.logical_and(members, ops.logical_not(hard)), ops.logical_and(members, hard)], axis=2)
    noise = ops.cast(noise, "float32")[:, None, None, :]
    # Each kind in random order, members first. (B, K, 2, drawn)
    keys, candidates = ops.top_k(ops.where(kinds, noise, -1.0), drawn)
    exists = keys >= 0

    # Interleave the two kinds: place 2 * rank + kind, the missing ones behind all others.
    place = 2 * ops.arange(drawn, dtype="int32")[None, :] + ops.arange(2, dtype="int32")[:, None]  # (2, drawn)
    place = ops.where(exists, place, place + 2 * drawn)
    order = ops.argsort(_merge_kinds(place, drawn), axis=-1)
    indices = ops.take_along_axis(_merge_kinds(ops.cast(candidates, "int32"), drawn), order, axis=-1)
    valid = ops.take_along_axis(_merge_kinds(ops.cast(exists, "int32"), drawn), order, axis=-1)
    return _slots_first(indices, per_group), ops.cast(_slots_first(valid, per_group), "bool")


def _merge_kinds(x: keras.KerasTensor, drawn: int) -> keras.KerasTensor:
    """`(B, K, 2, drawn)` to `(B, K, 2 * drawn)`."""
    return ops.reshape(x, (-1, x.shape[1], 2 * drawn))


def _slots_first(x: keras.KerasTensor, per_group: int) -> keras.KerasTensor:
    """`(B, K, slots)` to `(per_group, B, K)`, cut or filled with zeros."""
    missing = per_group - x.shape[-1]
    if missing > 0:
        x = ops.pad(x, [(0, 0), (0, 0), (0, missing)])
    return ops.transpose(x[..., :per_group], (2, 0, 1))
