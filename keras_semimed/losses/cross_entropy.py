"""Cross-entropy that can leave entries out (Hermes Eq. 2 and 10, LoCo Eq. 2)."""

from __future__ import annotations

import keras
from keras import ops

from keras_semimed.losses.reductions import one_hot_and_valid, safe_divide


def masked_cross_entropy(
    labels: keras.KerasTensor,
    logits: keras.KerasTensor,
    weights: keras.KerasTensor | None = None,
    ignore_value: int = 255,
    normalize: str = "valid",
) -> keras.KerasTensor:
    """Mean cross-entropy between integer labels and logits, for images and for pixels alike.

    `normalize="valid"` is the plain mean over what counts (Hermes Eq. 2). `normalize="all"` with 0/1 weights is Hermes
    Eq. 10 and LoCo Eq. 6: what the weights drop still counts in the denominator, so the term shrinks with the share
    that is kept.

    Args:
        labels: integers. Shape: `(...)`.
        logits: scores before the softmax, any float dtype. Shape: `(..., K)`.
        weights: non-negative weight of each entry, 1 by default. Shape: `(...)`.
        ignore_value: label of the entries that leave the loss altogether.
        normalize: `"valid"` divides by the sum of the weights, `"all"` by the number of entries that are not ignored.

    Returns:
        Scalar float32; 0 where nothing counts.

    Raises:
        ValueError: `normalize` is neither `"valid"` nor `"all"`.
    """
    if normalize not in ("valid", "all"):
        raise ValueError(f"`normalize` must be 'valid' or 'all', found {normalize!r}.")
    entries, valid = cross_entropies(labels, logits, ignore_value)
    weights = valid if weights is None else ops.cast(weights, "float32") * valid
    denominator = ops.sum(weights if normalize == "valid" else valid)
    return safe_divide(ops.sum(entries * weights), denominator)


def cross_entropies(
    labels: keras.KerasTensor, logits: keras.KerasTensor, ignore_value: int = 255
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Cross-entropy of each entry, which `masked_cross_entropy` is a mean of.

    Args:
        labels: integers. Shape: `(...)`.
        logits: scores before the softmax, any float dtype. Shape: `(..., K)`.
        ignore_value: label of the entries that leave the loss altogether.

    Returns:
        The cross-entropies, 0 where ignored, and 1.0 where a label counts, 0.0 where it is ignored; both `(...)`,
        float32.
    """
    logits = ops.cast(logits, "float32")
    one_hot, valid = one_hot_and_valid(labels, logits.shape[-1], ignore_value)
    return -ops.sum(one_hot * ops.log_softmax(logits, axis=-1), axis=-1), valid
