"""Cross-entropy of images that are mixed of two, with the label of each (InfoMatch)."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_semimed.losses.cross_entropy import masked_cross_entropy


def mixed_cross_entropy(labels: Any, logits: Any, kept: Any, share: Any, partners: Any) -> Any:
    """Of each image `share kept CE(own label) + (1 - share) kept' CE(label')`, ' its partner's; the mean over all.

    Both cross-entropies are of the mixed image's own logits; each label counts where its own image is kept, and what is
    not kept stays in the mean (Han et al., InfoMatch, IJCAI 2024).

    Args:
        labels: of the images before they were mixed; 255: none, which leaves sum and mean. Shape: `(U,)`, integers.
        logits: of the mixed images before the softmax, any float dtype. Shape: `(U, C)`.
        kept: how much each label is learnt from, 0 or 1. Shape: `(U,)`.
        share: of the image that is its own. Shape: `(U,)`.
        partners: the image that each is mixed with. Shape: `(U,)`, int32.

    Returns:
        Scalar float32; gradient flows into the logits alone.
    """
    labels, partners = ops.cast(labels, "int32"), ops.cast(partners, "int32")
    kept, share = (ops.stop_gradient(ops.cast(each, "float32")) for each in (kept, share))
    others, others_kept = ops.take(labels, partners), ops.take(kept, partners)
    own = masked_cross_entropy(labels, logits, share * kept, normalize="all")
    return own + masked_cross_entropy(others, logits, (1.0 - share) * others_kept, normalize="all")
