"""Prototypes of each class, the best embeddings of the latest step that had any (SS-Net)."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_choice, check_whole
from keras_semimed.embeddings import l2_normalize
from keras_semimed.losses.reductions import NEVER, safe_divide


@keras.saving.register_keras_serializable(package="keras_semimed")
class PrototypeMemory(keras.Layer):
    """Of each class but background the embeddings with the best scores; they are replaced as a whole, or stay.

    State, saved with the model: `prototypes` `(K, S, D)`, as they were given, the best first, and `filled` `(K, S)`, 1
    where there is one; both float32, 0 at start. No gradient flows into or out of them.

    Args:
        num_classes: classes K, the background first.
        size: most prototypes S of a class.
        dim: width D of an embedding.
        order: `"highest"` takes the highest scores; `"lowest"` the lowest, as the authors' code does.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    def __init__(
        self,
        num_classes: int,
        size: int = 32,
        dim: int = 32,
        order: Literal["highest", "lowest"] = "highest",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_whole("num_classes", num_classes, 2)
        check_whole("size", size, 1)
        check_whole("dim", dim, 1)
        check_choice("order", order, ("highest", "lowest"))
        self.num_classes = num_classes
        self.size = size
        self.dim = dim
        self.order = order
        options = {
            "dtype": "float32",
            "initializer": "zeros",
            "trainable": False,
            "autocast": False,
            "aggregation": "only_first_replica",
        }
        self.prototypes = self.add_weight(name="prototypes", shape=(num_classes, size, dim), **options)
        self.filled = self.add_weight(name="filled", shape=(num_classes, size), **options)
        self.built = True

    def update(self, embeddings: Any, scores: Any, members: Any) -> None:
        """Replaces the prototypes of each class that has a member.

        Members of the background, and embeddings or scores that are not finite (an overflow under float16), never
        become prototypes.

        Args:
            embeddings: `(M, D)`.
            scores: how good each is as a prototype of each class. Shape: `(K, M)`.
            members: 1 where an embedding may become a prototype of a class, else 0. Shape: `(K, M)`.
        """
        embeddings, scores, members = (ops.stop_gradient(ops.cast(x, "float32")) for x in (embeddings, scores, members))
        finite = ops.all(ops.isfinite(embeddings), axis=-1)
        foreground = ops.arange(self.num_classes) > 0
        members = ops.logical_and(members > 0, ops.logical_and(ops.isfinite(scores), finite))
        members = ops.logical_and(members, foreground[:, None])
        ranked = ops.where(members, scores if self.order == "highest" else -scores, NEVER)
        # Empty entries at the end make sure that there are always `size` to take.
        ranked = ops.pad(ranked, [[0, 0], [0, self.size]], constant_values=NEVER)
        best, places = ops.top_k(ranked, self.size)
        places = ops.minimum(ops.cast(places, "int32"), ops.shape(embeddings)[0] - 1)
        filled = ops.cast(best > 0.5 * NEVER, "float32")
        taken = ops.reshape(ops.take(embeddings, ops.reshape(places, (-1,)), axis=0), self.prototypes.shape)
        taken = ops.where(filled[..., None] > 0, taken, 0.0)
        found = filled[:, :1] > 0
        self.prototypes.assign(ops.where(found[..., None], taken, self.prototypes.value))
        self.filled.assign(ops.where(found, filled, self.filled.value))

    def means(self) -> tuple[Any, Any]:
        """Returns the mean of each class's prototypes of length 1 `(K, D)`, and their number `(K,)`; both constants."""
        filled = ops.stop_gradient(self.filled.value * 1.0)
        counts = ops.sum(filled, axis=1)
        units = l2_normalize(ops.stop_gradient(self.prototypes.value)) * filled[..., None]
        return safe_divide(ops.sum(units, axis=1), counts[:, None]), counts

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "size": self.size,
            "dim": self.dim,
            "order": self.order,
        }
