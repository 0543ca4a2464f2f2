"""How badly each of two views fits the label of the other (PEFAT)."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from keras_semimed.losses.cross_entropy import cross_entropies


class PseudoLosses(NamedTuple):
    """What `pseudo_losses` returns; nothing here carries a gradient.

    Attributes:
        losses: cross-entropy of each view with the label of the other. Shape: `(2, U)`, float32.
        labels: the most probable class of each view itself. Shape: `(2, U)`, int32.
    """

    losses: Any
    labels: Any


def pseudo_losses(logits_1: Any, logits_2: Any) -> PseudoLosses:
    """`l_1 = CE(z_1, y_2)` and `l_2 = CE(z_2, y_1)`, y_v the most probable class of view v (Zeng et al., CVPR 2023).

    Args:
        logits_1: z_1, scores of the first view before the softmax, any float dtype. Shape: `(U, C)`.
        logits_2: z_2, those of the second view of the same images. Shape: `(U, C)`.

    Returns:
        `PseudoLosses`.
    """
    logits = ops.stop_gradient(ops.stack([ops.cast(each, "float32") for each in (logits_1, logits_2)]))  # (2, U, C)
    labels = ops.cast(ops.argmax(logits, axis=-1), "int32")
    losses, _ = cross_entropies(ops.flip(labels, axis=0), logits)
    return PseudoLosses(losses, labels)
