"""How much each place of a feature map passes on to every other, and logits that are spread by it (CorrMatch)."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_whole


@keras.saving.register_keras_serializable(package="keras_semimed")
class CorrelationMap(keras.Layer):
    """Compares each place i of a feature map with every place j: `C_ij = softmax over j of (s_i . r_j) / sqrt(dim)`.

    Sun et al., "CorrMatch: Label Propagation via Correlation Matching for Semi-Supervised Semantic Segmentation", CVPR
    2024. The dense layers `sender` and `receiver`, with bias, make `s` and `r` of the features. Everything is float32,
    whatever the dtype policy. A map of h x w places has `(h w)^2` entries for each image.

    Args:
        dim: channels that two places are compared in.

    Raises:
        ValueError: `dim` is no whole number of at least 1, or features are no maps.
    """

    def __init__(self, dim: int = 21, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_whole("dim", dim, 1)
        self.dim = int(dim)
        self.sender = keras.layers.Dense(self.dim, dtype="float32", name="sender")
        self.receiver = keras.layers.Dense(self.dim, dtype="float32", name="receiver")

    def build(self, input_shape: tuple) -> None:
        """Makes the weights for features of shape `(N, h, w, D)`."""
        if len(input_shape) != 4:
            raise ValueError(f"`features` must be (N, h, w, D), found {tuple(input_shape)}.")
        self.sender.build(input_shape)
        self.receiver.build(input_shape)
        self.built = True

    def call(self, features: Any) -> Any:
        """Computes the map.

        Args:
            features: `(N, h, w, D)`, any float dtype.

        Returns:
            `(N, P, P)` float32 with P = h w, row by row of the places: what place i, the row, sends to place j. Each
            row sums up to 1; the columns do not.
        """
        height, width, channels = features.shape[1:]
        flat = ops.reshape(ops.cast(features, "float32"), (-1, height * width, channels))
        scores = ops.einsum("nid,njd->nij", self.sender(flat), self.receiver(flat))
        return ops.softmax(scores / math.sqrt(self.dim), axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `(N, h w, h w)`."""
        count, height, width, _ = input_shape
        places = None if None in (height, width) else height * width
        return (count, places, places)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {**super().get_config(), "dim": self.dim}


def propagate_logits(logits: Any, correlation: Any, size: tuple[int, int]) -> Any:
    """Spreads logits along a correlation map: place j gets the sum over i of `logits_i C_ij`.

    The gradient reaches the map alone: the logits are constants.

    Args:
        logits: scores before the softmax, any float dtype; shrunk bilinearly to `size`. Shape: `(N, H, W, K)`.
        correlation: what `CorrelationMap` returned. Shape: `(N, P, P)`.
        size: height and width (h, w) of the features that the map is of, P = h w.

    Returns:
        `(N, h, w, K)` float32.

    Raises:
        ValueError: the map has not as many places as `size`.
    """
    height, width = size
    places = tuple(correlation.shape)[1:]
    if places != (height * width, height * width):
        raise ValueError(f"`size` must be that of the {places[0]} places of the map, found {height} x {width}.")
    sent = ops.image.resize(
        ops.stop_gradient(ops.cast(logits, "float32")),
        (height, width),
        interpolation="bilinear",
        data_format="channels_last",
    )
    classes = sent.shape[-1]
    flat = ops.reshape(sent, (-1, height * width, classes))
    received = ops.einsum("nij,nik->njk", ops.cast(correlation, "float32"), flat)
    return ops.reshape(received, (-1, height, width, classes))
