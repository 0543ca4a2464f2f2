"""Dual-threshold contrastive loss between images (Hermes Eq. 12-13)."""

from __future__ import annotations

import keras
from keras import ops

from keras_semimed.losses.reductions import NEVER, safe_divide


@keras.saving.register_keras_serializable(package="keras_semimed")
class ImageContrastiveLoss(keras.losses.Loss):
    """Class-aware contrastive loss over both views of the unlabelled images (Hermes Eq. 12-13).

    For the 2U embeddings, with P(i) = the other embeddings of i's pseudo-label (the other view of its image is always
    one) and s = dot product / temperature:

    `-1/|P(i)| sum_{p in P(i)} w_ip log(exp(s_ip) / sum_{j != i} exp(s_ij))`, averaged over all 2U.

    `w_ip` is 1 for the two views of one image, else the product of the weights of the two images (Eq. 13, whose
    indices we read as images): an image without a reliable label is only compared with itself.

    Args:
        temperature: divides the dot products.
        normalize: `"count"` divides by |P(i)| as printed, `"weight"` by the sum of w_ip, so that few reliable images
            do not shrink the term.
        weighting: `"pair"` as above; `"anchor"` as the authors' code has it: all positive pairs count 1 and each
            anchor's loss is multiplied by its own weight, then averaged over all 2U.
        name: name of the loss.

    Raises:
        ValueError: an argument is unknown, `temperature` is not positive, or `normalize="weight"` with
            `weighting="anchor"`, which would cancel the weights.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        normalize: str = "count",
        weighting: str = "pair",
        name: str = "image_contrastive_loss",
    ) -> None:
        super().__init__(name=name)
        if temperature <= 0:
            raise ValueError(f"`temperature` must be positive, found {temperature}.")
        if normalize not in ("count", "weight"):
            raise ValueError(f"`normalize` must be 'count' or 'weight', found {normalize!r}.")
        if weighting not in ("pair", "anchor"):
            raise ValueError(f"`weighting` must be 'pair' or 'anchor', found {weighting!r}.")
        if weighting == "anchor" and normalize == "weight":
            raise ValueError("weighting='anchor' needs normalize='count': 'weight' would cancel the weights.")
        self.temperature = temperature
        self.normalize = normalize
        self.weighting = weighting

    def __call__(
        self, embeddings: keras.KerasTensor, labels: keras.KerasTensor, weights: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Computes the loss.

        Args:
            embeddings: L2-normalised, weak views first, then strong ones of the same images, any float dtype. Shape:
                `(2, U, D)`, D static.
            labels: pseudo-label of each image. Shape: `(U,)`, integers.
            weights: 1 for images whose pseudo-label is trusted, else 0. Shape: `(U,)`.

        Returns:
            Scalar float32.
        """
        v = ops.reshape(ops.cast(embeddings, "float32"), (-1, embeddings.shape[-1]))  # (2U, D)
        labels = ops.tile(ops.cast(labels, "int32"), (2,))
        weights = ops.tile(ops.cast(weights, "float32"), (2,))
        images = ops.tile(ops.arange(ops.shape(embeddings)[1], dtype="int32"), (2,))
        row = ops.arange(ops.shape(v)[0], dtype="int32")
        itself = ops.equal(row[:, None], row[None, :])
        logits = ops.where(itself, NEVER, ops.matmul(v, ops.transpose(v)) / self.temperature)  # (2U, 2U)
        pairs = ops.logsumexp(logits, axis=1, keepdims=True) - ops.where(itself, 0.0, logits)
        same_label = ops.equal(labels[:, None], labels[None, :])
        positives = ops.cast(ops.logical_and(same_label, ops.logical_not(itself)), "float32")

        if self.weighting == "anchor":
            per_anchor = safe_divide(ops.sum(pairs * positives, axis=1), ops.sum(positives, axis=1))
            return ops.mean(per_anchor * weights)
        same_image = ops.equal(images[:, None], images[None, :])
        pair_weights = positives * ops.where(same_image, 1.0, weights[:, None] * weights[None, :])
        divisor = ops.sum(positives if self.normalize == "count" else pair_weights, axis=1)
        return ops.mean(safe_divide(ops.sum(pairs * pair_weights, axis=1), divisor))

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            "temperature": self.temperature,
            "normalize": self.normalize,
            "weighting": self.weighting,
            "name": self.name,
        }
