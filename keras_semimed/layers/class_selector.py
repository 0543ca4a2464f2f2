"""How much a pixel says about its class, learnt class by class (SS-Net)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_whole
from keras_semimed.layers.mlp_head import MLPHead


@keras.saving.register_keras_serializable(package="keras_semimed")
class ClassSelector(keras.Layer):
    """A score between 0 and 1 of each embedding for each class but background, by a head of each class; in float32.

    A head is dense, BatchNorm, LeakyReLU(0.2), dense, sigmoid; its BatchNorm takes its statistics over the members of
    the class alone. The embeddings are constants for it: it learns, they do not.

    The head of class c is `heads[c - 1]`.

    Args:
        num_classes: classes K, the background first.
        hidden_units: width of the hidden layer.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    def __init__(self, num_classes: int, hidden_units: int = 32, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_whole("num_classes", num_classes, 2)
        check_whole("hidden_units", hidden_units, 1)
        self.num_classes = num_classes
        self.hidden_units = hidden_units
        self.heads = [MLPHead(1, (hidden_units,), 0.2, name=f"class_{c}") for c in range(1, num_classes)]

    def build(self, embeddings_shape: tuple, members_shape: tuple | None = None) -> None:
        """Makes the weights for embeddings of shape `(M, D)`."""
        del members_shape
        for head in self.heads:
            head.build(embeddings_shape)
        self.built = True

    def call(self, embeddings: Any, members: Any, training: bool | None = None) -> Any:
        """Scores embeddings.

        Args:
            embeddings: `(M, D)`, any float dtype.
            members: 1 where an embedding belongs to a class, else 0. Shape: `(K, M)`.
            training: whether BatchNorm uses the statistics of the members.

        Returns:
            `(K, M)` float32; 0 in the row of the background, and of no use in training where there is no member.
        """
        embeddings = ops.stop_gradient(ops.cast(embeddings, "float32"))
        members = ops.cast(members, "float32") > 0
        rows = [
            ops.sigmoid(head(embeddings, mask=members[c], training=training)[:, 0])
            for c, head in enumerate(self.heads, 1)
        ]
        return ops.stack([ops.zeros_like(rows[0]), *rows])

    def compute_output_shape(self, embeddings_shape: tuple, members_shape: tuple | None = None) -> tuple:
        """Returns `(K, M)`."""
        del members_shape
        return (self.num_classes, embeddings_shape[0])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {**super().get_config(), "num_classes": self.num_classes, "hidden_units": self.hidden_units}
