"""Learning from images without a certain label, in a class space without the classes that compete (ShrinkMatch)."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from keras_semimed.losses.reductions import NEVER, safe_divide, shapes_agree


class ShrunkSpace(NamedTuple):
    """What each image gives in its own class space.

    Attributes:
        losses: cross-entropy of the top class among the classes that are left; 0 where the image is certain. Shape:
            `(U,)`, float32; the only one with a gradient.
        weights: probability of the top class among all classes where the image is uncertain and reaches the threshold
            in some smaller space, else 0. Shape: `(U,)`, float32.
        first: place, in falling order, of the most probable competitor that is left; 0 where the image is certain.
            Shape: `(U,)`, int32.
        confidence: probability of the top class among the classes that are left. Shape: `(U,)`, float32.
    """

    losses: Any
    weights: Any
    first: Any
    confidence: Any


def shrunk_cross_entropy(probabilities: Any, logits: Any, threshold: Any = 0.95, ranking: Any = None) -> ShrunkSpace:
    """Cross-entropy of the top class in the largest class space in which it is certain (ShrinkMatch).

    Yang et al., "Shrinking Class Space for Enhanced Certainty in Semi-Supervised Learning", ICCV 2023. With the
    probabilities in falling order, the classes 1 to c - 1 leave for the first c >= 2 with
    `p_0 / (p_0 + sum over j >= c of p_j) >= threshold`, or for the last c where none reaches it. With two classes there
    is no such space: everything is 0.

    Args:
        probabilities: of the weak view, any float dtype; an image whose largest one reaches the threshold is certain.
            Shape: `(U, C)`.
        logits: of the strong view, any float dtype. Shape: `(U, C)`.
        threshold: confidence that is asked for.
        ranking: what the classes are ordered by and the confidences are computed from; None: `probabilities`. Shape:
            `(U, C)`.

    Returns:
        `ShrunkSpace`; gradient flows into the logits alone.

    Raises:
        ValueError: the shapes are no `(U, C)`, or not the same.
    """
    probabilities = ops.stop_gradient(ops.cast(probabilities, "float32"))
    ranking = probabilities if ranking is None else ops.stop_gradient(ops.cast(ranking, "float32"))
    logits = ops.cast(logits, "float32")
    _check_shapes(probabilities, logits=logits, ranking=ranking)
    classes = probabilities.shape[-1]
    top = ops.max(probabilities, axis=-1)
    if classes < 3:
        nothing = ops.zeros_like(top)
        return ShrunkSpace(nothing, nothing, ops.cast(nothing, "int32"), nothing)
    uncertain = ops.cast(top < threshold, "float32")

    order = ops.argsort(-ranking, axis=-1)
    ranked = ops.take_along_axis(ranking, order, axis=-1)  # (U, C)
    tails = ops.flip(ops.cumsum(ops.flip(ranked, axis=-1), axis=-1), axis=-1)[:, 2:]
    confidences = safe_divide(ranked[:, :1], ranked[:, :1] + tails)  # (U, C - 2)
    reached = ops.cast(confidences >= threshold, "int32")
    place = ops.where(ops.max(reached, axis=-1) > 0, ops.argmax(reached, axis=-1), classes - 3)
    confidence = ops.take_along_axis(confidences, place[:, None], axis=-1)[:, 0]
    first = ops.cast(place + 2, "int32") * ops.cast(uncertain, "int32")

    places = ops.arange(classes, dtype="int32")
    left = ops.logical_or(places == 0, places >= first[:, None])
    ordered = ops.where(left, ops.take_along_axis(logits, order, axis=-1), NEVER)
    losses = -uncertain * ops.log_softmax(ordered, axis=-1)[:, 0]
    return ShrunkSpace(losses, uncertain * top * ops.cast(confidence >= threshold, "float32"), first, confidence)


def _check_shapes(probabilities: Any, **others: Any) -> None:
    expected = tuple(probabilities.shape)
    if len(expected) != 2 or expected[-1] is None or expected[-1] < 2:
        raise ValueError(f"`probabilities` must be (U, C) of at least two classes, found {expected}.")
    for name, values in others.items():
        if not shapes_agree(tuple(values.shape), expected):
            raise ValueError(
                f"`{name}` must be of the shape of `probabilities` {expected}, found {tuple(values.shape)}."
            )
