"""Projection head: from features to the space in which embeddings are compared."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.embeddings import l2_normalize


@keras.saving.register_keras_serializable(package="keras_semimed")
class ProjectionHead(keras.Layer):
    """Two-layer perceptron on the last axis: dense, ReLU, dense, with a linear end.

    On a vector `(N, C)` this is an MLP; on a map `(N, H, W, C)` it is two 1x1 convolutions.

    Args:
        units: width of the embedding.
        hidden_units: width of the hidden layer; `units` where None.
        batch_norm: whether to normalise the hidden layer over the batch (momentum 0.9) before its ReLU.
        normalize: whether to scale each embedding to length 1, in float32; an embedding of zeros stays zero.
        epsilon: what BatchNorm adds to the variance.
    """

    def __init__(
        self,
        units: int,
        hidden_units: int | None = None,
        batch_norm: bool = False,
        normalize: bool = False,
        epsilon: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.hidden_units = hidden_units
        self.batch_norm = batch_norm
        self.normalize = normalize
        self.epsilon = epsilon
        policy = self.dtype_policy
        # BatchNorm subtracts the mean, which makes a bias before it idle.
        self.hidden = keras.layers.Dense(hidden_units or units, use_bias=not batch_norm, dtype=policy, name="hidden")
        self.norm = (
            keras.layers.BatchNormalization(momentum=0.9, epsilon=epsilon, dtype=policy, name="norm")
            if batch_norm
            else None
        )
        self.output_layer = keras.layers.Dense(units, dtype=policy, name="embedding")

    def build(self, input_shape: tuple) -> None:
        """Makes the weights for features of shape `(N, ..., C)`."""
        hidden_shape = (*input_shape[:-1], self.hidden.units)
        self.hidden.build(input_shape)
        if self.norm is not None:
            self.norm.build(hidden_shape)
        self.output_layer.build(hidden_shape)
        self.built = True

    def call(self, features: Any, training: bool | None = None) -> Any:
        """Projects features.

        Args:
            features: `(N, ..., C)`.
            training: whether BatchNorm uses the statistics of the batch.

        Returns:
            `(N, ..., units)`; float32 where normalised.
        """
        hidden = self.hidden(features)
        if self.norm is not None:
            hidden = self.norm(hidden, training=training)
        embeddings = self.output_layer(ops.relu(hidden))
        return l2_normalize(embeddings) if self.normalize else embeddings

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "units": self.units,
            "hidden_units": self.hidden_units,
            "batch_norm": self.batch_norm,
            "normalize": self.normalize,
            "epsilon": self.epsilon,
        }
