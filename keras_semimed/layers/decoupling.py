"""Two predictions, parted into what both are sure of and the rest (DCNet)."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from keras_semimed.layers.consistency_threshold import mean_confidence
from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.losses.reductions import check_class_maps


class Decoupled(NamedTuple):
    """What `decouple` returns; only the logits carry a gradient.

    Attributes:
        consistent: c, 1 where both decoders are sure of a class, else 0. Shape: `(N, H, W, K)`, float32.
        logits_1: u_1, of the first decoder for the cross supervision. Shape: `(N, H, W, K)`, float32.
        logits_2: u_2, of the second decoder. Shape: `(N, H, W, K)`, float32.
        guide_1: g_1, 1 where the first decoder guides the second one, else 0. Shape: `(N, H, W, K)`, float32.
        guide_2: g_2, 1 where the second decoder guides the first one, else 0. Shape: `(N, H, W, K)`, float32.
        labels_1: l_1, classes that the first decoder teaches. Shape: `(N, H, W)`, int32.
        labels_2: l_2, classes that the second decoder teaches. Shape: `(N, H, W)`, int32.
        confidence: m, the lower mean confidence of the two. Scalar float32.
    """

    consistent: Any
    logits_1: Any
    logits_2: Any
    guide_1: Any
    guide_2: Any
    labels_1: Any
    labels_2: Any
    confidence: Any

    def taught(self, logits_2: Any, inside: Any, saturation: float = 0.95) -> PseudoLabels:
        """What the second decoder teaches the first one; kept is where any class passes.

        Args:
            logits_2: as `decouple` got them. Shape: `(N, H, W, K)`.
            inside: as `decouple` got it. Shape: `(N, H, W)`.
            saturation: as `decouple` got it.
        """
        everywhere = ops.cast(self.confidence >= saturation, "float32")
        inside = ops.stop_gradient(ops.cast(inside, "float32"))
        kept = inside * ops.maximum(ops.max(self.consistent, axis=-1), everywhere)
        probabilities = ops.softmax(ops.stop_gradient(ops.cast(logits_2, "float32")))
        confidence = ops.take_along_axis(probabilities, self.labels_2[..., None], axis=-1)[..., 0]
        return PseudoLabels(self.labels_2, confidence, kept, inside, probabilities)

    def with_truth(self, logits_1: Any, logits_2: Any, labels: Any) -> Decoupled:
        """The last images with given labels in the place of both decoders', which every class takes part in.

        Args:
            logits_1: as `decouple` got them. Shape: `(N, H, W, K)`.
            logits_2: as `decouple` got them. Shape: `(N, H, W, K)`.
            labels: of the last U images, 255 = unknown. Shape: `(U, H, W)`.
        """
        count = ops.shape(logits_1)[0] - ops.shape(labels)[0]

        def put(values: Any, others: Any) -> Any:
            return ops.concatenate([values[:count], ops.cast(others, values.dtype)])

        return self._replace(
            logits_1=put(self.logits_1, logits_1[count:]),
            logits_2=put(self.logits_2, logits_2[count:]),
            labels_1=put(self.labels_1, labels),
            labels_2=put(self.labels_2, labels),
        )


def decouple(logits_1: Any, logits_2: Any, threshold: Any, inside: Any = None, saturation: float = 0.95) -> Decoupled:
    """Parts each pixel *and class* by whether both probabilities exceed a threshold (Chen et al., DCNet, 2023).

    `c_k = [p1_k > gamma][p2_k > gamma]`. In the consistent part the decoders learn from each other: labels
    `l_j = argmax_k(c_k pj_k)`, 0 where no class passes, and logits `u_j = c z_j`, so that a class that does not pass
    has the logit 0. In the rest the larger probability of a class guides: `g_1 = (1 - c) [p1 > p2]`, `g_2` likewise;
    equal ones guide nobody. Where the lower mean confidence m reaches `saturation`, labels and logits are the plain
    ones, `l_j = argmax pj` and `u_j = z_j`; c and the guides stay.

    Args:
        logits_1: z_1, scores of the first decoder before the softmax, any float dtype. Shape: `(N, H, W, K)`.
        logits_2: z_2, of the second decoder. Shape: `(N, H, W, K)`.
        threshold: gamma: a number or a scalar tensor.
        inside: 1 where a pixel lies inside its image, else 0, which m looks at alone; None: everywhere.
            Shape: `(N, H, W)`.
        saturation: m from which on the consistent part is everything; more than 1: never.

    Returns:
        `Decoupled`.

    Raises:
        ValueError: logits that are not `(N, H, W, K)`, both of one shape.
    """
    check_class_maps(logits_1=logits_1, logits_2=logits_2)
    first, second = (ops.cast(logits, "float32") for logits in (logits_1, logits_2))
    ours, theirs = (ops.softmax(ops.stop_gradient(logits), axis=-1) for logits in (first, second))
    threshold = ops.stop_gradient(ops.cast(threshold, "float32"))
    consistent = ops.logical_and(ours > threshold, theirs > threshold)
    confidence = ops.minimum(mean_confidence(first, inside), mean_confidence(second, inside))
    passes = ops.logical_or(consistent, confidence >= saturation)
    nowhere = ops.logical_not(ops.any(passes, axis=-1))
    labels_1, labels_2 = (
        ops.where(nowhere, 0, ops.cast(ops.argmax(ops.where(passes, each, 0.0), axis=-1), "int32"))
        for each in (ours, theirs)
    )
    rest = ops.logical_not(consistent)
    return Decoupled(
        ops.cast(consistent, "float32"),
        ops.where(passes, first, 0.0),
        ops.where(passes, second, 0.0),
        ops.cast(ops.logical_and(rest, ours > theirs), "float32"),
        ops.cast(ops.logical_and(rest, theirs > ours), "float32"),
        labels_1,
        labels_2,
        confidence,
    )
