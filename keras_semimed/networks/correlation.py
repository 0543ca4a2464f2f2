"""The head that compares the places of an encoder's deepest features, and logits that it spreads (CorrMatch)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras

from keras_semimed.configuration import check_whole
from keras_semimed.layers.correlation_map import CorrelationMap, propagate_logits
from keras_semimed.layers.feature_dropout import FeatureDropout
from keras_semimed.networks.deeplab import ConvolutionBlock, Shape, resize_to

MOST_PLACES = 48
"""Places a side, at which the map of an image takes 21 MB."""


def check_places(encoder: keras.Model, image_size: int) -> None:
    """Raises a ValueError where the deepest features of an encoder have more than `MOST_PLACES` places a side."""
    places = encoder.compute_output_spec(keras.KerasTensor((1, image_size, image_size, 3)))["P5"].shape[1]
    if places > MOST_PLACES:
        stride = -(-image_size // places)
        raise ValueError(
            f"`image_size` must be at most {MOST_PLACES * stride}, {MOST_PLACES} places of {stride} pixels, found "
            f"{image_size}: each place is compared with each other. Take smaller images, or an encoder, or with "
            "network='deeplab' an `output_stride`, of larger stride."
        )


@keras.saving.register_keras_serializable(package="keras_semimed")
class CorrelationHead(keras.layers.Layer):
    """Correlation map of features: 3x3 convolution, BatchNorm, ReLU, dropout of channels, `CorrelationMap`.

    Input: `(N, h, w, C)`, at most 48 places a side. Output: `(N, P, P)` float32 with P = h w, rows of sum 1. The layers
    are `projection`, `dropout` and `correlation`.

    Args:
        dim: channels that two places are compared in.
        units: channels of the projection.
        dropout: share of the projection's channels that is dropped in training, each as a whole.
        seed: of the dropout's stream, which is part of the weights.

    Raises:
        ValueError: for an argument out of its range, and for features of more places.
    """

    def __init__(self, dim: int = 21, units: int = 256, dropout: float = 0.1, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("units", units, 1)
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be within [0, 1), found {dropout!r}.")
        self.dim = dim
        self.units = units
        self.seed = seed
        self.projection = ConvolutionBlock(units, 3, dtype=self.dtype_policy, name="projection")
        self.dropout = FeatureDropout(dropout, seed=seed, name="dropout")
        self.correlation = CorrelationMap(dim, name="correlation")

    def build(self, input_shape: Shape) -> None:
        """Creates the weights for the number of channels in `input_shape`."""
        self.projection.build(input_shape)
        self.correlation.build((*input_shape[:-1], self.units))

    def call(self, features: Any, training: bool | None = None) -> Any:
        """The map of features."""
        if max(features.shape[1:3]) > MOST_PLACES:
            raise ValueError(
                f"`features` must have at most {MOST_PLACES} places a side, found {tuple(features.shape[1:3])}: a map "
                "has (h w)^2 entries an image. Take smaller images, or a larger output stride."
            )
        projected = self.projection(features, training=training)
        return self.correlation(self.dropout(projected, training=training))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns `(N, P, P)`."""
        return self.correlation.compute_output_shape(tuple(input_shape))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "dim": self.dim,
            "units": self.units,
            "dropout": self.dropout.rate,
            "seed": self.seed,
        }


def spread_logits(outputs: Mapping[str, Any]) -> Any:
    """Mask logits of square images after they were spread along the map of their image: `(N, S, S, K)` float32.

    Args:
        outputs: `"mask_logits"` `(N, S, S, K)`, constants here, and `"correlation"` `(N, P, P)`, which the gradient
            reaches.
    """
    side = math.isqrt(outputs["correlation"].shape[-1])
    spread = propagate_logits(outputs["mask_logits"], outputs["correlation"], (side, side))
    return resize_to(spread, outputs["mask_logits"].shape[1:3])
