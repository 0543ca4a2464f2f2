"""Two convolutions between which a time comes in: what DiffRect's rectifier is built from."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_whole
from keras_semimed.layers.random_state import StoredSeedGenerator, add_random_state

Shape = tuple[int | None, ...]
SLOPE = 0.01


@keras.saving.register_keras_serializable(package="keras_semimed")
class RectifierBlock(keras.layers.Layer):
    """Convolution, BatchNorm, LeakyReLU, plus the time, dropout, and the first three once more.

    3x3 convolutions with bias, slope 0.01; the time is `dense(swish(code))`, the same in all places. The state of the
    dropout's random stream is a weight, saved and restored with the layer; without dropout there is none.

    Args:
        filters: channels of both convolutions.
        dropout: share of the numbers that are dropped in training, in [0, 1).
        seed: non-negative integer.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    def __init__(self, filters: int, dropout: float = 0.0, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("filters", filters, 1)
        check_whole("seed", seed, 0)
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be within [0, 1), found {dropout!r}.")
        self.filters = filters
        self.dropout = dropout
        self.seed = seed
        self.convolution_1, self.convolution_2 = (self._convolution(f"convolution_{n}") for n in (1, 2))
        self.norm_1, self.norm_2 = (
            keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=self.dtype_policy, name=f"norm_{n}")
            for n in (1, 2)
        )
        self.time = keras.layers.Dense(filters, dtype=self.dtype_policy, name="time")

    def _convolution(self, name: str) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            self.filters,
            3,
            padding="same",
            kernel_initializer="he_normal",
            data_format="channels_last",
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, x_shape: Shape, code_shape: Shape) -> None:
        """Creates the weights for the channels of both inputs."""
        between = (*tuple(x_shape)[:-1], self.filters)
        self.convolution_1.build(tuple(x_shape))
        self.norm_1.build(between)
        self.time.build(tuple(code_shape))
        self.convolution_2.build(between)
        self.norm_2.build(between)
        self.random_state = add_random_state(self, self.seed) if self.dropout else None

    def call(self, x: Any, code: Any, training: bool | None = None) -> Any:
        """Computes the block.

        Args:
            x: `(N, h, w, D)`.
            code: of the time of each image, or of one for all. Shape: `(N, E)` or `(1, E)`.
            training: whether BatchNorm uses the statistics of the batch, and numbers are dropped.

        Returns:
            `(N, h, w, filters)` in the compute dtype.
        """
        x = ops.leaky_relu(self.norm_1(self.convolution_1(x), training=training), SLOPE)
        x = x + self.time(ops.silu(code))[:, None, None, :]
        if training and self.dropout:
            x = self._dropped(x)
        return ops.leaky_relu(self.norm_2(self.convolution_2(x), training=training), SLOPE)

    def _dropped(self, x: Any) -> Any:
        """Not Keras' dropout, which on PyTorch has no stream of its own."""
        numbers = keras.random.uniform(ops.shape(x), dtype="float32", seed=StoredSeedGenerator(self.random_state))
        return ops.where(numbers >= self.dropout, x / (1.0 - self.dropout), ops.zeros_like(x))

    def compute_output_shape(self, x_shape: Shape, code_shape: Shape) -> Shape:
        """Returns `(N, h, w, filters)`."""
        del code_shape
        return (*tuple(x_shape)[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {**super().get_config(), "filters": self.filters, "dropout": self.dropout, "seed": self.seed}
