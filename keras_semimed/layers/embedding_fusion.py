"""Features of each image with a little of its neighbour's in the batch (InterLUDE)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one


@keras.saving.register_keras_serializable(package="keras_semimed")
class EmbeddingFusion(keras.Layer):
    """`(1 - strength) features_n + strength features_(n+1)`; the last image of a batch takes from the first.

    Huang et al., "InterLUDE: Interactions between Labeled and Unlabeled Data to Enhance Semi-Supervised Learning", ICML
    2024. Which image stands beside which is for the batch to say (`interleave`). Acts with `training=True` alone.

    Args:
        strength: share of the neighbour.

    Raises:
        ValueError: `strength` is not within [0, 1].
    """

    def __init__(self, strength: float = 0.1, **kwargs: Any) -> None:
        # The features keep their dtype, whatever the policy.
        super().__init__(**{**kwargs, "dtype": "float32", "autocast": False})
        self.strength = strength
        check_at_most_one(self, "strength")
        self.built = True

    def call(self, features: Any, training: bool | None = None) -> Any:
        """Fuses neighbours.

        Args:
            features: `(N, ...)`, any float dtype; gradient flows through both terms.
            training: whether to fuse anything.

        Returns:
            Shape and dtype of `features`.
        """
        if not training or not self.strength:
            return features
        own = ops.cast(features, "float32")
        fused = (1.0 - self.strength) * own + self.strength * ops.roll(own, -1, axis=0)
        return ops.cast(fused, features.dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape of the features."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {**super().get_config(), "strength": self.strength}
