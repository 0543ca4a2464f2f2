"""Regions of a correlation map, and labels that fill those which are sure and of one class (CorrMatch)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from keras import ops

from keras_semimed.losses.low_resolution import Upsampling
from keras_semimed.losses.reductions import one_hot_and_valid

_IGNORE = 255
# Rows that differ less, relative to their largest value, are constant: rounding alone tells their places apart.
_ROUNDING = 1e-6


def correlation_region(rows: Any, size: tuple[int, int], target: tuple[int, int]) -> Any:
    """Where a place of each image sends more than half of the way between the least and the most that it sends.

    The row is enlarged bilinearly first; least and most are those of the enlarged map of each image.

    Args:
        rows: a row of the correlation map of each image. Shape: `(N, P)`.
        size: height and width (h, w) of the features, P = h w.
        target: height and width (H, W) of the images.

    Returns:
        `(N, H, W)` float32 of 0 and 1, without gradient; a constant row is of no region.

    Raises:
        ValueError: the rows have not as many places as `size`.
    """
    rows = ops.stop_gradient(ops.cast(rows, "float32"))
    if rows.shape[-1] != size[0] * size[1]:
        raise ValueError(f"`size` must be that of the {rows.shape[-1]} places of a row, found {size[0]} x {size[1]}.")
    most = ops.max(rows, axis=-1)
    differs = most - ops.min(rows, axis=-1) > _ROUNDING * ops.abs(most)  # (N,)
    maps = _upsampling(tuple(size), tuple(target)).enlarge(ops.reshape(rows, (-1, *size)))
    low, high = (reduce(maps, axis=(1, 2), keepdims=True) for reduce in (ops.min, ops.max))
    return ops.cast(ops.logical_and(maps - low > 0.5 * (high - low), differs[:, None, None]), "float32")


def propagate_regions(
    labels: Any,
    kept: Any,
    region: Callable[[Any], Any],
    count: Any,
    allowed: Any,
    threshold: Any,
    num_classes: int,
) -> tuple[Any, Any]:
    """Fills regions that are sure and of one class with it, one after the other (CorrMatch).

    Of a region M the sure pixels are those that were kept from the start. Where there is one, where
    `|sure| / |M| >= threshold`, and where the most frequent class among the labels that the sure pixels have by now
    (ties: the lowest) has a share above `threshold` of them, all of M takes this class and is kept. Earlier regions
    thus change what later ones count, but never what is sure.

    Args:
        labels: class of each pixel; what is 255 belongs to no region. Shape: `(U, H, W)`.
        kept: 0, or above 0 where a pixel is sure. Shape: `(U, H, W)`.
        region: gives the region of number r, 0 to count - 1 (an int or an int32 scalar), `(U, H, W)` of 0 and 1.
        count: number of regions.
        allowed: 1 where a pixel may belong to a region, else 0. Shape: `(U, H, W)`.
        threshold: for both shares. Scalar.
        num_classes: classes K.

    Returns:
        The labels, int32, and what is kept, float32, both `(U, H, W)`, without gradient.

    Raises:
        ValueError: the labels are no `(U, H, W)`.
    """
    if len(labels.shape) != 3:
        raise ValueError(f"`labels` must be (U, H, W), found {tuple(labels.shape)}.")
    labels = ops.stop_gradient(ops.cast(labels, "int32"))
    kept = ops.stop_gradient(ops.cast(kept, "float32"))
    threshold = ops.stop_gradient(ops.cast(threshold, "float32"))
    sure = kept > 0
    open_ = ops.logical_and(ops.stop_gradient(ops.cast(allowed, "float32")) > 0, labels != _IGNORE)

    def fill(index: Any, carried: tuple[Any, Any]) -> tuple[Any, Any]:
        now, learnt = carried
        members = ops.logical_and(ops.stop_gradient(ops.cast(region(index), "float32")) > 0, open_)
        certain = ops.cast(ops.logical_and(members, sure), "float32")
        one_hot, _ = one_hot_and_valid(now, num_classes)
        counts = ops.sum(one_hot * certain[..., None], axis=(1, 2))  # (U, K)
        found, size = ops.sum(counts, axis=-1), ops.sum(ops.cast(members, "float32"), axis=(1, 2))  # (U,)
        covered = found / ops.maximum(size, 1.0) >= threshold
        pure = ops.max(counts, axis=-1) / ops.maximum(found, 1.0) > threshold
        accepted = ops.logical_and(found > 0, ops.logical_and(covered, pure))
        filled = ops.logical_and(members, accepted[:, None, None])
        winner = ops.cast(ops.argmax(counts, axis=-1), "int32")[:, None, None]
        return ops.where(filled, winner, now), ops.where(filled, ops.ones_like(learnt), learnt)

    return ops.fori_loop(0, count, fill, (labels, kept))


@functools.lru_cache(maxsize=8)
def _upsampling(size: tuple[int, int], target: tuple[int, int]) -> Upsampling:
    """Made once: the loop over the regions asks for it each time."""
    return Upsampling(size, target)
