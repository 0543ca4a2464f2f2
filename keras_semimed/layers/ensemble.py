"""Two predictions as one, the surer of the two with the larger weight (AD-MT)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from keras import ops

from keras_semimed.losses.reductions import shapes_agree


class WeightedEnsemble(NamedTuple):
    """What `entropy_weighted_ensemble` returns; nothing here carries a gradient.

    Attributes:
        probabilities: of the ensemble, adding up to 1. Shape: `(..., K)`, float32.
        weights: of both predictions, the first one's first, adding up to 1. Shape: `(2, ...)`, float32.
        entropies: of both predictions, the first one's first, in bits. Shape: `(2, ...)`, float32.
        conflict: 1 where their most probable classes differ, else 0. Shape: `(...)`, float32.
    """

    probabilities: Any
    weights: Any
    entropies: Any
    conflict: Any


def entropy_weighted_ensemble(first: Any, second: Any) -> WeightedEnsemble:
    """Weighs two predictions by `exp(-H)`, H their entropies in bits (Zhao et al., AD-MT, ECCV 2024).

    `H_k = -sum_j q_kj log2(q_kj + 1e-10)`, `w_1 = exp(-H_1) / (exp(-H_1) + exp(-H_2))`, and the ensemble is
    `w_1 q_1 + (1 - w_1) q_2`. Of equally probable classes the first is the most probable.

    Args:
        first: q_1, adding up to 1, any float dtype. Shape: `(..., K)`.
        second: q_2. Shape: `(..., K)`.

    Returns:
        `WeightedEnsemble`.

    Raises:
        ValueError: if the predictions are not of one shape.
    """
    if not shapes_agree(tuple(second.shape), tuple(first.shape)):
        raise ValueError(
            f"`second` must have the shape (..., K) of `first`, {tuple(first.shape)}, found {tuple(second.shape)}."
        )
    predictions = ops.stack([ops.stop_gradient(ops.cast(each, "float32")) for each in (first, second)])
    entropies = -ops.sum(predictions * ops.log(predictions + 1e-10), axis=-1) / math.log(2.0)
    weights = ops.softmax(-entropies, axis=0)
    classes = ops.argmax(predictions, axis=-1)
    conflict = ops.cast(classes[0] != classes[1], "float32")
    return WeightedEnsemble(ops.sum(weights[..., None] * predictions, axis=0), weights, entropies, conflict)
