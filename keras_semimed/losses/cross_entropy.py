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
    logits = ops.cast(logits, "float32")
    one_hot, valid = one_hot_and_valid(labels, logits.shape[-1], ignore_value)
    entries = -ops.sum(one_hot * ops.log_softmax(logits, axis=-1), axis=-1)  # (...)
    weights = valid if weights is None else ops.cast(weights, "float32") * valid
    denominator = ops.sum(weights if normalize == "valid" else valid)
    return safe_divide(ops.sum(entries * weights), denominator)
