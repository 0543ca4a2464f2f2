"""Hard pseudo-labels: the most probable class of each pixel or image, where it is trusted (FixMatch)."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from keras_semimed.layers.cutmix import mix_boxes, neighbour
from keras_semimed.losses.cross_entropy import masked_cross_entropy
from keras_semimed.losses.reductions import safe_divide

_IGNORE = 255


class PseudoLabels(NamedTuple):
    """What a method makes of a prediction, pixel by pixel or image by image; nothing here carries a gradient.

    Attributes:
        labels: class of each pixel, 255 where there is none. Shape: `(N, H, W)`, int32; `(N,)` for whole images.
        confidence: how probable it is, in 0..1. Shape: that of `labels`, float32.
        kept: how much each pixel is learnt from, 0 or 1, or a weight between them. Shape: that of `labels`, float32.
        inside: 1.0 where a pixel lies inside its image, else 0.0. Shape: that of `labels`, float32.
        probabilities: of all classes, where the method needs them. Shape: `(N, H, W, K)`, float32.
    """

    labels: Any
    confidence: Any
    kept: Any
    inside: Any
    probabilities: Any = None

    @property
    def known(self) -> Any:
        """The labels, 255 where none is kept; of the shape of `labels`, int32."""
        return ops.where(self.kept > 0, self.labels, _IGNORE)

    def mixed(self, other: PseudoLabels, boxes: Any) -> PseudoLabels:
        """Puts `other` inside the boxes, in every field that both have, as CutMix does to the images.

        Args:
            other: pseudo-labels of the partners. Shapes: those of this one.
            boxes: 1 inside the boxes, else 0. Shape: `(N, H, W)`.

        Returns:
            `PseudoLabels`; `probabilities` is None where one of the two has none.
        """
        pairs = zip(self, other, strict=True)
        return PseudoLabels(
            *(None if own is None or its is None else mix_boxes(own, its, boxes) for own, its in pairs),
        )

    def rolled(self) -> PseudoLabels:
        """Those of the next image of the batch in the place of each (`neighbour`)."""
        return PseudoLabels(*(None if values is None else neighbour(values) for values in self))

    def cross_entropy(self, logits: Any) -> Any:
        """Mean cross-entropy over what is image, where what is not kept counts 0 (the unlabelled term of FixMatch).

        Pixels outside the image, and those labelled 255, leave the sum and the number that divides it.

        Args:
            logits: scores before the softmax, any float dtype. Shape: `(N, H, W, K)`, or `(N, K)` for whole images.

        Returns:
            Scalar float32; 0 where nothing is image.
        """
        labels = ops.where(self.inside > 0, self.labels, _IGNORE)
        return masked_cross_entropy(labels, logits, ops.stop_gradient(ops.cast(self.kept, "float32")), normalize="all")

    def soft_cross_entropy(self, logits: Any) -> Any:
        """As `cross_entropy`, of the probabilities in the place of the most probable class: -sum_k q_k log p_k.

        Args:
            logits: as in `cross_entropy`.

        Returns:
            Scalar float32; 0 where nothing is image.

        Raises:
            ValueError: if there are no probabilities.
        """
        if self.probabilities is None:
            raise ValueError(
                "soft labels need `probabilities`, which these pseudo-labels have not; add them in `select`."
            )
        wanted = ops.stop_gradient(ops.cast(self.probabilities, "float32"))
        entries = -ops.sum(wanted * ops.log_softmax(ops.cast(logits, "float32"), axis=-1), axis=-1)
        counted = self.inside * ops.cast(self.labels != _IGNORE, "float32")
        return safe_divide(ops.sum(ops.stop_gradient(self.kept) * counted * entries), ops.sum(counted))


def hard_labels(logits: Any, inside: Any = None, threshold: Any = 0.0) -> PseudoLabels:
    """The most probable class, kept where its probability reaches a threshold (Sohn et al., FixMatch, 2020).

    Args:
        logits: scores before the softmax, any float dtype. Shape: `(N, H, W, K)`, or `(N, K)` for whole images.
        inside: 1 where a pixel lies inside its image, else 0; None: everywhere. Shape: `(N, H, W)` or `(N,)`.
        threshold: lowest probability that is kept: 0 keeps all, more than 1 nothing.

    Returns:
        `PseudoLabels`, without `probabilities`.
    """
    probabilities = ops.softmax(ops.stop_gradient(ops.cast(logits, "float32")), axis=-1)
    labels = ops.cast(ops.argmax(probabilities, axis=-1), "int32")
    confidence = ops.max(probabilities, axis=-1)
    inside = ops.ones_like(confidence) if inside is None else ops.stop_gradient(ops.cast(inside, "float32"))
    return PseudoLabels(labels, confidence, inside * ops.cast(confidence >= threshold, "float32"), inside)
