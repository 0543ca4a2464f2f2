"""Dual-threshold contrastive loss between pixels (Hermes Eq. 11)."""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import ops

from keras_semimed.losses.anchors import sample_anchors
from keras_semimed.losses.reductions import NEVER, safe_divide, weighted_mean


class Anchors(NamedTuple):
    """Sampled pixels; M slots ordered by slot, then image, then class, so any first ones are spread over the images.

    Attributes:
        embeddings: shape `(M, D)`, float32, with gradient.
        labels: class of each slot. Shape: `(M,)`, int32.
        valid: whether the slot holds a pixel. Shape: `(M,)`, bool.
    """

    embeddings: keras.KerasTensor
    labels: keras.KerasTensor
    valid: keras.KerasTensor


@keras.saving.register_keras_serializable(package="keras_semimed")
class PixelContrastiveLoss(keras.losses.Loss):
    """InfoNCE between pixels of one class, against pixels of the other classes (Hermes Eq. 11).

    For an anchor i with positives P(i) (the other anchors of its class, in the whole batch) and negatives N(i) (the
    anchors of other classes and the memory bank's entries of other classes), s = dot product / temperature:

    `-1/|P(i)| sum_{p in P(i)} log(exp(s_ip) / (exp(s_ip) + sum_{n in N(i)} exp(s_in)))`,

    averaged over the anchors that have a positive. The equation's w stands inside the logarithm; here it decides which
    pixels are sampled: uncertain ones are neither anchors nor positives nor negatives. Without negatives, or without
    two anchors of one class, the loss is 0.

    Args:
        num_classes: K.
        temperature: divides the dot products.
        max_anchors: at most this many anchors in all.
        max_per_group: at most this many anchors of each image and class.
        name: name of the loss.

    Raises:
        ValueError: an argument is not positive.
    """

    def __init__(
        self,
        num_classes: int = 2,
        temperature: float = 0.07,
        max_anchors: int = 1024,
        max_per_group: int = 100,
        name: str = "pixel_contrastive_loss",
    ) -> None:
        super().__init__(name=name)
        arguments = {
            "num_classes": num_classes,
            "temperature": temperature,
            "max_anchors": max_anchors,
            "max_per_group": max_per_group,
        }
        for argument, value in arguments.items():
            if value <= 0:
                raise ValueError(f"`{argument}` must be positive, found {value}.")
        self.num_classes = num_classes
        self.temperature = temperature
        self.max_anchors = max_anchors
        self.max_per_group = max_per_group

    def __call__(
        self,
        embeddings: keras.KerasTensor,
        labels: keras.KerasTensor,
        certain: keras.KerasTensor,
        hard: keras.KerasTensor,
        noise: keras.KerasTensor,
        negatives: keras.KerasTensor | None = None,
        negatives_valid: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        """Samples anchors and computes the loss: `contrast(select(...), negatives, negatives_valid)`.

        Returns:
            Scalar float32.
        """
        return self.contrast(self.select(embeddings, labels, certain, hard, noise), negatives, negatives_valid)

    def per_group(self, batch: int | keras.KerasTensor) -> int | keras.KerasTensor:
        """Anchors of each image and class: `min(max_per_group, max_anchors / (batch * K))`, at least 1.

        An integer for an integer `batch`; for a batch size known only while the graph runs, a scalar tensor.
        """
        share = self.max_anchors // (batch * self.num_classes)
        if isinstance(batch, int):
            return max(1, min(self.max_per_group, share))
        return ops.clip(share, 1, self.max_per_group)

    def select(
        self,
        embeddings: keras.KerasTensor,
        labels: keras.KerasTensor,
        certain: keras.KerasTensor,
        hard: keras.KerasTensor,
        noise: keras.KerasTensor,
    ) -> Anchors:
        """Samples the anchors, see `sample_anchors`.

        Args:
            embeddings: L2-normalised, any float dtype. Shape: `(B, H, W, D)`, all but B static.
            labels: (pseudo-)label of each pixel. Shape: `(B, H, W)`, integers.
            certain: whether a pixel may be drawn. Shape: `(B, H, W)`, boolean or 0/1.
            hard: whether the views disagree on a pixel. Shape: `(B, H, W)`, boolean or 0/1.
            noise: uniform in [0, 1). Shape: `(B, H, W)`.

        Returns:
            `Anchors` of `M = per_group(B) * B * K` slots.

        Raises:
            ValueError: the embeddings' height, width or depth is not static.
        """
        if len(embeddings.shape) != 4 or None in tuple(embeddings.shape)[1:]:
            raise ValueError(
                f"`embeddings` must have shape (B, H, W, D) with static H, W and D, found {tuple(embeddings.shape)}."
            )
        height, width, depth = tuple(embeddings.shape)[1:]
        pixels = height * width
        batch = ops.shape(embeddings)[0]
        slots = self.per_group(batch)
        labels, certain, hard, noise = (ops.reshape(x, (-1, pixels)) for x in (labels, certain, hard, noise))
        # Any first slots of a larger draw are a smaller draw, so a dynamic batch size only cuts.
        drawn = slots if isinstance(slots, int) else self.max_per_group
        indices, valid = sample_anchors(labels, certain, hard, noise, self.num_classes, drawn)
        indices, valid = indices[:slots], valid[:slots]  # (slots, B, K)
        classes = ops.broadcast_to(ops.arange(self.num_classes, dtype="int32"), ops.shape(indices))
        first_pixel = ops.arange(batch, dtype="int32")[:, None] * pixels  # (B, 1)
        rows = ops.reshape(ops.cast(embeddings, "float32"), (-1, depth))  # (B * H * W, D)
        anchors = ops.take(rows, ops.reshape(indices + first_pixel, (-1,)), axis=0)
        return Anchors(anchors, ops.reshape(classes, (-1,)), ops.reshape(valid, (-1,)))

    def contrast(
        self,
        anchors: Anchors,
        negatives: keras.KerasTensor | None = None,
        negatives_valid: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        """Computes Eq. 11 on sampled anchors.

        Args:
            anchors: result of `select`.
            negatives: further negatives of each class, L2-normalised, such as a memory bank's; no gradient flows into
                them. Shape: `(K, S, D)`.
            negatives_valid: which of them count, all by default. Shape: `(K, S)`.

        Returns:
            Scalar float32.
        """
        embeddings = ops.cast(anchors.embeddings, "float32")
        labels = ops.cast(anchors.labels, "int32")
        valid = ops.cast(anchors.valid, "bool")
        similarities = ops.matmul(embeddings, ops.transpose(embeddings)) / self.temperature  # (M, M)
        same_class = ops.equal(labels[:, None], labels[None, :])
        usable = ops.logical_and(valid[:, None], valid[None, :])
        itself = ops.equal(ops.arange(ops.shape(labels)[0])[:, None], ops.arange(ops.shape(labels)[0])[None, :])
        others = ops.logical_and(usable, ops.logical_not(same_class))
        logits = ops.where(others, similarities, NEVER)
        if negatives is not None:
            bank = self._bank_logits(embeddings, labels, negatives, negatives_valid)
            logits = ops.concatenate([logits, bank], axis=1)
        negative = ops.logsumexp(logits, axis=1, keepdims=True)  # (M, 1)
        # -log(e^p / (e^p + e^n)) = softplus(n - p), which is 0 where there are no negatives.
        pairs = ops.softplus(negative - similarities)
        positives = ops.logical_and(ops.logical_and(usable, same_class), ops.logical_not(itself))
        positives = ops.cast(positives, "float32")
        count = ops.sum(positives, axis=1)  # (M,)
        per_anchor = safe_divide(ops.sum(pairs * positives, axis=1), count)
        return weighted_mean(per_anchor, ops.cast(count > 0, "float32"))

    def _bank_logits(
        self,
        embeddings: keras.KerasTensor,
        labels: keras.KerasTensor,
        negatives: keras.KerasTensor,
        negatives_valid: keras.KerasTensor | None,
    ) -> keras.KerasTensor:
        """Similarities of the anchors to the bank's entries of other classes, "empty" elsewhere: `(M, K * S)`."""
        classes, size, depth = negatives.shape
        bank = ops.stop_gradient(ops.reshape(ops.cast(negatives, "float32"), (classes * size, depth)))
        logits = ops.matmul(embeddings, ops.transpose(bank)) / self.temperature
        usable = ops.not_equal(labels[:, None], ops.repeat(ops.arange(classes, dtype="int32"), size)[None, :])
        if negatives_valid is not None:
            filled = ops.reshape(ops.cast(negatives_valid, "bool"), (1, classes * size))
            usable = ops.logical_and(usable, filled)
        return ops.where(usable, logits, NEVER)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            "num_classes": self.num_classes,
            "temperature": self.temperature,
            "max_anchors": self.max_anchors,
            "max_per_group": self.max_per_group,
            "name": self.name,
        }
