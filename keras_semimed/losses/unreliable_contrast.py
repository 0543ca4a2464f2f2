"""Contrast with a memory of what a class is unlikely to be (U2PL)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_semimed.configuration import check_pair, is_number
from keras_semimed.embeddings import l2_normalize
from keras_semimed.losses.reductions import one_hot_and_valid, safe_divide
from keras_semimed.losses.selection import first_reaching


class Drawn(NamedTuple):
    """What `draw_members` returns.

    Attributes:
        places: of the drawn members; 0 in a group without any. Shape: `(G, M)`, int32.
        found: 1 where a group has a member, else 0. Shape: `(G,)`, float32.
    """

    places: Any
    found: Any


def draw_members(members: Any, uniform: Any) -> Drawn:
    """Draws members of groups: the number u of a group with n of them takes member `floor(u n)`, in order.

    Args:
        members: which places belong to each group; together fewer than 2^24. Shape: `(G, P)`, booleans, or 0 and 1.
        uniform: in [0, 1). Shape: `(G, M)`.

    Returns:
        `Drawn`, without gradient.
    """
    members = ops.stop_gradient(ops.cast(members, "float32"))
    groups, size = members.shape[0], ops.shape(members)[1]
    counts = ops.sum(members, axis=1, keepdims=True)
    before = ops.cumsum(counts, axis=0) - counts
    number = ops.minimum(ops.floor(ops.cast(uniform, "float32") * counts), counts - 1)
    # One row of ascending ranks for all groups: what is sought is found by halves.
    ranks = ops.cumsum(ops.reshape(members, (-1,)))
    found = first_reaching(ranks, before + number + 1)
    places = found - size * ops.arange(groups, dtype="int32")[:, None]
    return Drawn(ops.where(counts > 0, places, 0), ops.cast(counts[:, 0] > 0, "float32"))


def spread_members(members: Any, uniform: Any) -> Drawn:
    """Draws members of groups, none of them twice: one of each of M equal parts of a group, or all of a smaller one.

    Args:
        members: which places belong to each group. Shape: `(G, P)`, booleans, or 0 and 1.
        uniform: in [0, 1), what chooses in a part. Shape: `(G, M)`.

    Returns:
        `Drawn`, without gradient; `found` is of each place, `(G, M)`.
    """
    room = uniform.shape[1]
    counts = ops.sum(ops.cast(members, "float32"), axis=1, keepdims=True)
    taken = ops.minimum(counts, float(room))
    place = ops.arange(room, dtype="float32")[None, :]
    places, _ = draw_members(members, (place + uniform) / ops.maximum(taken, 1.0))
    return Drawn(places, ops.cast(place < taken, "float32"))


@keras.saving.register_keras_serializable(package="keras_semimed")
class UnreliableContrastLoss(keras.losses.Loss):
    """Pulls sure pixels of a class to their mean, away from pixels that are unlikely to be of it.

    Wang et al., "Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels", CVPR 2022. Of a class c:

    - anchors: pixels of the label c, of unlabelled ones the reliable, whose probability of c is above `confidence`;
    - positive: the mean embedding of the anchors, one for the class;
    - negatives: labelled pixels of another class for which c is among the `low` most probable classes, and unreliable
      unlabelled pixels for which c has a rank from `low` up to, but not including, `high`. They come from a memory.

    The published ranks (3, 20) leave two or three classes without any negative, and the loss at 0. With two classes an
    unreliable pixel is a negative of the class that is just less probable.

    Args:
        num_classes: classes K.
        confidence: lowest probability of an anchor, in [0, 1].
        temperature: divides the cosines.
        ranks: `(low, high)`; None: `min(3, K - 1)` and `min(20, K)`.

    Raises:
        ValueError: for an argument out of its range.
    """

    def __init__(
        self,
        num_classes: int,
        confidence: float = 0.3,
        temperature: float = 0.5,
        ranks: Sequence[int] | None = None,
        name: str = "unreliable_contrast_loss",
    ) -> None:
        super().__init__(name=name)
        if not (is_number(confidence) and 0 <= confidence <= 1):
            raise ValueError(f"`confidence` must be in [0, 1], found {confidence!r}.")
        if not (is_number(temperature) and 0 < temperature < math.inf):
            raise ValueError(f"`temperature` must be a finite number above 0, found {temperature!r}.")
        given = (min(3, num_classes - 1), min(20, num_classes)) if ranks is None else ranks
        low, high = check_pair("ranks", given, 0)
        if not 0 <= low < high or low >= num_classes:
            raise ValueError(
                f"`ranks` must be (low, high) with 0 <= low < high and low below the {num_classes} classes, found "
                f"{ranks!r}: no class would have a negative."
            )
        self.num_classes = num_classes
        self.confidence = confidence
        self.temperature = temperature
        self.ranks = None if ranks is None else (low, high)
        self.low, self.high = low, high

    def masks(self, probabilities: Any, labels: Any, reliable: Any, labeled: Any) -> tuple[Any, Any]:
        """Which pixels are anchors, and which are negatives, of each class.

        Args:
            probabilities: the teacher's. Shape: `(N, h, w, K)`.
            labels: true classes of labelled images, pseudo-labels of the others, 255 outside. Shape: `(N, h, w)`.
            reliable: 1 where a pixel is; looked at in unlabelled images only. Shape: `(N, h, w)`.
            labeled: 1 for labelled images, else 0. Shape: `(N,)`.

        Returns:
            Anchors and negatives, each `(N, h, w, K)` float32 of 0 and 1, without gradient.
        """
        probabilities = ops.stop_gradient(ops.cast(probabilities, "float32"))
        own, known = one_hot_and_valid(labels, self.num_classes)
        known, labeled = known[..., None], ops.cast(labeled, "float32")[:, None, None, None]
        sure = ops.cast(reliable, "float32")[..., None]
        anchors = own * (labeled + (1 - labeled) * sure) * ops.cast(probabilities > self.confidence, "float32")
        ranks = _ranks(probabilities)
        near = ops.cast(ranks < self.low, "float32")
        far = ops.cast(ops.logical_and(ranks >= self.low, ranks < self.high), "float32")
        negatives = known * (labeled * (1 - own) * near + (1 - labeled) * (1 - sure) * far)
        return ops.stop_gradient(anchors), ops.stop_gradient(negatives)

    def prototypes(self, embeddings: Any, anchors: Any) -> Any:
        """Mean embedding of the anchors of each class.

        Args:
            embeddings: the teacher's. Shape: `(N, h, w, D)`.
            anchors: what `masks` returned. Shape: `(N, h, w, K)`.

        Returns:
            `(K, D)` float32 without gradient; 0 for a class without anchors.
        """
        embeddings, anchors = (ops.stop_gradient(ops.cast(each, "float32")) for each in (embeddings, anchors))
        sums = ops.einsum("nhwk,nhwd->kd", anchors, embeddings)
        return safe_divide(sums, ops.sum(anchors, axis=(0, 1, 2))[:, None])

    def contrast(self, anchors: Any, positives: Any, bank: Any, places: Any) -> Any:
        """InfoNCE of each anchor with its class's positive and with entries of the bank.

        Args:
            anchors: embeddings. Shape: `(K, M, D)`.
            positives: Shape: `(K, D)`.
            bank: Shape: `(K, S, D)`.
            places: of the entries that each anchor is contrasted with. Shape: `(K, M, n)`, int32.

        Returns:
            `(K, M)` float32; the gradient reaches `anchors` alone.
        """
        anchors = l2_normalize(anchors)
        positives, bank = (ops.stop_gradient(l2_normalize(x)) for x in (positives, bank))
        near = ops.einsum("kmd,kd->km", anchors, positives)[..., None] / self.temperature
        far = ops.einsum("kmd,ksd->kms", anchors, bank) / self.temperature
        far = ops.take_along_axis(far, ops.cast(places, "int32"), axis=-1)
        return ops.logsumexp(ops.concatenate([near, far], axis=-1), axis=-1) - near[..., 0]

    def __call__(
        self,
        embeddings: Any,
        anchors: Any,
        prototypes: Any,
        bank: Any,
        filled: Any,
        uniform_anchors: Any,
        uniform_negatives: Any,
    ) -> Any:
        """The loss: mean over the classes with anchors of the mean over M drawn ones.

        Args:
            embeddings: the student's; they carry the gradient. Shape: `(N, h, w, D)`.
            anchors: what `masks` returned. Shape: `(N, h, w, K)`.
            prototypes: what `prototypes` returned. Shape: `(K, D)`.
            bank: embeddings, those that are filled first. Shape: `(K, S, D)`.
            filled: 1 where the bank holds one. Shape: `(K, S)`.
            uniform_anchors: in [0, 1), what chooses anchors. Shape: `(K, M)`.
            uniform_negatives: in [0, 1), what chooses entries of the bank. Shape: `(K, M, n)`.

        Returns:
            Scalar float32. A class with anchors whose bank is empty adds 0 but counts; with fewer than two classes that
            have anchors it is 0.
        """
        dim = embeddings.shape[-1]
        drawn = draw_members(ops.transpose(ops.reshape(anchors, (-1, self.num_classes))), uniform_anchors)
        chosen = ops.take(ops.reshape(ops.cast(embeddings, "float32"), (-1, dim)), drawn.places, axis=0)
        stored = ops.sum(ops.cast(filled, "float32"), axis=-1)
        numbers = ops.floor(ops.cast(uniform_negatives, "float32") * stored[:, None, None])
        places = ops.clip(numbers, 0.0, ops.maximum(stored - 1, 0.0)[:, None, None])
        losses = ops.mean(self.contrast(chosen, prototypes, bank, places), axis=-1)
        losses = ops.where(stored > 0, losses, 0.0) * drawn.found
        present = ops.sum(drawn.found)
        return ops.where(present > 1, ops.sum(losses) / ops.maximum(present, 1.0), 0.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "confidence": self.confidence,
            "temperature": self.temperature,
            "ranks": self.ranks,
        }


def _ranks(probabilities: Any) -> Any:
    """How many classes are more probable than each, ties by index: float32, the probabilities' shape."""
    found = ops.zeros_like(probabilities)
    for other in range(probabilities.shape[-1]):
        rival = probabilities[..., other : other + 1]
        after = ops.arange(probabilities.shape[-1]) > other
        ahead = ops.logical_or(rival > probabilities, ops.logical_and(rival == probabilities, after))
        found = found + ops.cast(ahead, "float32")
    return found
