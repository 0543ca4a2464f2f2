"""A memory of embeddings from earlier steps, to contrast with (Hermes, section 3.4)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_semimed")
class MemoryBank(keras.Layer):
    """A queue of fixed size per class: the newest embeddings in front, the oldest fall out at the end.

    The queue is a float32 weight, whatever the dtype policy, so it is saved with the model; no gradient flows into
    or out of it. All shapes are static, so it can be updated inside a compiled step.

    Args:
        num_classes: number of queues K.
        size: entries S per class.
        dim: width D of an embedding.
        per_update: most entries that one update adds to a class.

    Raises:
        ValueError: where an argument is not positive.
    """

    def __init__(self, num_classes: int, size: int = 256, dim: int = 256, per_update: int = 32, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        for name, value in (("num_classes", num_classes), ("size", size), ("dim", dim), ("per_update", per_update)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, found {value!r}.")
        self.num_classes = num_classes
        self.size = size
        self.dim = dim
        self.per_update = per_update
        options = {
            "dtype": "float32",
            "initializer": "zeros",
            "trainable": False,
            "autocast": False,
            "aggregation": "only_first_replica",
        }
        self.embeddings = self.add_weight(name="embeddings", shape=(num_classes, size, dim), **options)
        self.filled = self.add_weight(name="filled", shape=(num_classes, size), **options)
        self.built = True

    def negatives(self) -> tuple[Any, Any]:
        """Returns the embeddings `(K, S, D)` and which places hold one, `(K, S)` of 0 and 1; both constants."""
        return ops.stop_gradient(self.embeddings.value * 1.0), ops.stop_gradient(self.filled.value * 1.0)

    def update(self, embeddings: Any, labels: Any, valid: Any) -> None:
        """Pushes the first `per_update` valid embeddings of each class to the front of its queue.

        Entries with a label that is no class, or with a value that is not finite (an overflow under float16), never
        enter.

        Args:
            embeddings: `(M, D)`.
            labels: `(M,)` integers.
            valid: `(M,)` booleans, or 0 and 1.
        """
        embeddings = ops.stop_gradient(ops.cast(embeddings, "float32"))
        valid = ops.logical_and(ops.cast(valid, "bool"), ops.all(ops.isfinite(embeddings), axis=-1))
        room = min(self.per_update, self.size)
        # Empty entries at the end make sure that there are always `room` to take.
        embeddings = ops.pad(embeddings, [[0, room], [0, 0]])
        valid = ops.pad(ops.cast(valid, "int32"), [[0, room]])
        labels = ops.pad(ops.cast(labels, "int32"), [[0, room]])

        classes = ops.arange(self.num_classes, dtype="int32")
        wanted = ops.logical_and(labels[None, :] == classes[:, None], valid[None, :] > 0)  # (K, M)
        count = ops.shape(labels)[0]
        order = ops.arange(count, dtype="int32")[None, :]
        first = ops.argsort(ops.where(wanted, order, order + count), axis=-1)[:, :room]  # wanted ones, in order
        new = ops.take(embeddings, ops.reshape(first, (-1,)), axis=0)
        new = ops.reshape(new, (self.num_classes, room, self.dim))
        pushed = ops.minimum(ops.sum(ops.cast(wanted, "int32"), axis=-1, keepdims=True), room)  # (K, 1)

        # Place i of the queue: new entry i while there are any, then the old ones from the front.
        place = ops.arange(self.size, dtype="int32")[None, :]
        source = ops.where(place < pushed, place, room + place - pushed)  # (K, S), into [new, old]
        both = ops.concatenate([new, self.embeddings.value], axis=1)
        flags = ops.concatenate([ops.ones((self.num_classes, room)), self.filled.value], axis=1)
        self.embeddings.assign(ops.take_along_axis(both, source[:, :, None], axis=1))
        self.filled.assign(ops.take_along_axis(flags, source, axis=1))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "size": self.size,
            "dim": self.dim,
            "per_update": self.per_update,
        }
