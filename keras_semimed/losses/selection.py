"""Selecting a share of the pixels with static shapes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from keras import ops

_HALVINGS = 32


def share_of(share: float | Fraction, sizes: Any) -> Any:
    """Computes `floor(share * size)` exactly: 30 % of 10 is 3.

    Args:
        share: in [0, 1]; taken as the nearest fraction with a denominator of at most 10,000.
        sizes: counts below 2^31 of any dtype. Shape: any.

    Returns:
        int32, of the shape of `sizes`.
    """
    fraction = Fraction(share).limit_denominator(10_000)
    sizes = ops.cast(sizes, "int32")
    whole, rest = sizes // fraction.denominator, sizes % fraction.denominator
    return whole * fraction.numerator + rest * fraction.numerator // fraction.denominator


def lowest(values: Any, members: Any, counts: Any) -> Any:
    """Tells which members of each group have its lowest values.

    The threshold is found by halving an interval, which takes a few passes over the pixels where sorting takes many.
    Members within 1e-9 of the last one selected tie with it and are selected too.

    Args:
        values: within [-1.5, 1.5], such as cosines. Shape: `(G, P)`, or `(1, P)` for values that the groups share.
        members: which pixels belong to each group. Shape: `(G, P)`, bool.
        counts: how many to select of each group, or all that it has. Shape: `(G,)`.

    Returns:
        Shape: `(G, P)`, bool, without gradient.
    """
    values = ops.where(members, ops.stop_gradient(values), 2.0)  # (G, P)
    counts = ops.cast(counts, "float32")

    def halve(_: Any, bounds: tuple[Any, Any]) -> tuple[Any, Any]:
        too_low, enough = bounds
        middle = (too_low + enough) / 2
        # Counted in float32, exact to 2^24: TensorFlow adds up int32 on the host.
        reached = ops.sum(ops.cast(values <= middle[:, None], "float32"), axis=1) >= counts
        return ops.where(reached, too_low, middle), ops.where(reached, middle, enough)

    bounds = (ops.full_like(counts, -1.75), ops.full_like(counts, 1.75))
    _, threshold = ops.fori_loop(0, _HALVINGS, halve, bounds)
    return ops.logical_and(values <= threshold[:, None], counts[:, None] > 0)


def first_reaching(ranks: Any, targets: Any) -> Any:
    """Where the ascending `ranks` `(P,)` first reach each target, or P: int32, of the targets' shape.

    A search by halves. `ops.searchsorted` compares all with all where TensorFlow compiles with XLA.
    """
    size = ops.shape(ranks)[0]
    halvings = size.bit_length() if isinstance(size, int) else 31

    def halve(index: Any, below: Any) -> Any:  # the number of ranks known to be below the target
        further = below + ops.left_shift(1, halvings - 1 - index)
        reached = ops.take(ranks, ops.minimum(further, size) - 1) >= targets
        return ops.where(ops.logical_or(further > size, reached), below, further)

    return ops.fori_loop(0, halvings, halve, ops.zeros_like(targets, dtype="int32"))
