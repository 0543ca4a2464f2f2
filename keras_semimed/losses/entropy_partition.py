"""Pixels parted by the entropy of their prediction: sure enough for a pseudo-label, or not (U2PL)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from keras import ops

from keras_semimed.losses.cross_entropy import masked_cross_entropy
from keras_semimed.losses.reductions import safe_divide
from keras_semimed.losses.selection import lowest


class EntropyPartition(NamedTuple):
    """What `entropy_partition` returns; nothing here carries a gradient.

    Attributes:
        reliable: 1 where a pixel is reliable, else 0. Shape: `(U, H, W)`, float32.
        unreliable: 1 where a pixel inside is not. Shape: `(U, H, W)`, float32.
        entropy: of each prediction, in nats. Shape: `(U, H, W)`, float32.
        threshold: the quantile of the entropies, in nats. Scalar float32.
    """

    reliable: Any
    unreliable: Any
    entropy: Any
    threshold: Any


def entropy_partition(probabilities: Any, inside: Any, share: Any) -> EntropyPartition:
    """Parts the pixels of a whole batch at a quantile of their entropies (U2PL, gamma_t).

    With n pixels inside and `h = (1 - share) (n - 1)` the `m = max(ceil(h), 1)` lowest entropies, and all that tie with
    the last of them, are reliable; the quantile is interpolated linearly between order statistics. Ties are kept
    together, so that a batch whose entropies are all 0 is reliable.

    Args:
        probabilities: of the classes. Shape: `(U, H, W, K)`.
        inside: 1 where a pixel lies inside its image, else 0. Shape: `(U, H, W)`.
        share: of the pixels that are to be unreliable, in [0, 1]: a number or a scalar tensor.

    Returns:
        `EntropyPartition`; with no pixel inside neither part has one, and the threshold is 0.
    """
    probabilities = ops.stop_gradient(ops.cast(probabilities, "float32"))
    members = ops.cast(inside, "float32") > 0
    terms = probabilities * ops.log(ops.maximum(probabilities, 1e-37))
    entropy = ops.maximum(-ops.sum(terms, axis=-1), 0.0)
    flat, chosen = ops.reshape(entropy, (1, -1)), ops.reshape(members, (1, -1))
    count = ops.sum(ops.cast(chosen, "float32"))
    place = (1.0 - ops.stop_gradient(ops.cast(share, "float32"))) * ops.maximum(count - 1, 0.0)
    # Where the place is a whole number, float32 may lie just above it.
    wanted = ops.minimum(ops.maximum(ops.ceil(place - 2e-7 * count), 1.0), count)
    # At most 1, as `lowest` has it.
    scaled = flat / math.log(max(probabilities.shape[-1], 2))
    reliable = lowest(scaled, chosen, ops.reshape(wanted, (1,)))
    last = ops.max(ops.where(reliable, flat, 0.0))
    rest = ops.logical_and(chosen, ops.logical_not(reliable))
    following = ops.min(ops.where(rest, flat, math.inf))
    tied = ops.sum(ops.cast(reliable, "float32")) > wanted
    following = ops.where(ops.logical_or(tied, following == math.inf), last, following)
    threshold = last + ops.clip(place - wanted + 1, 0.0, 1.0) * (following - last)
    shape = ops.shape(entropy)
    reliable, rest = (ops.cast(ops.reshape(part, shape), "float32") for part in (reliable, rest))
    return EntropyPartition(reliable, rest, entropy, threshold)


def reliable_cross_entropy(labels: Any, logits: Any, reliable: Any) -> Any:
    """Mean cross-entropy of the reliable pixels, times the number of pixels for each of them (U2PL, L_u).

    `n / n_r` times the mean over the `n_r` reliable ones of n pixels that have a label: the fewer are reliable, the
    more each counts. No gradient flows through the factor.

    Args:
        labels: class of each pixel, 255 = none. Shape: `(U, H, W)`.
        logits: scores before the softmax, any float dtype. Shape: `(U, H, W, K)`.
        reliable: 1 where a pixel is learnt, else 0. Shape: `(U, H, W)`.

    Returns:
        Scalar float32; 0 where nothing is reliable.
    """
    known = ops.cast(ops.cast(labels, "int32") != 255, "float32")
    counted = ops.stop_gradient(ops.cast(reliable, "float32")) * known
    mean = masked_cross_entropy(labels, logits, counted)
    return ops.stop_gradient(safe_divide(ops.sum(known), ops.sum(counted))) * mean
