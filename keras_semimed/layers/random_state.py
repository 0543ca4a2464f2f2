"""A random stream whose position is a layer weight, so that saving the layer saves the stream."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


class StoredSeedGenerator(keras.random.SeedGenerator):
    """Seed generator over an existing variable.

    Keras leaves the state of its own seed generators out of saved weights. Here the state is a variable
    that somebody else owns (see `add_random_state`); the generator is a thin view of it, made afresh
    for each draw so that Keras does not list the variable a second time.

    Args:
        state: integer variable of shape `(2,)`: seed and number of draws so far.
    """

    def __init__(self, state: Any) -> None:
        self.state = state

    def next(self, ordered: bool = True) -> Any:
        """Returns the current seed and moves the stream on by one draw."""
        seed = self.state.value * 1
        self.state.assign(seed + ops.convert_to_tensor(np.array([0, 1]), dtype=self.state.dtype))
        return seed


def add_random_state(layer: keras.Layer, seed: int) -> Any:
    """Gives `layer` a weight that holds the state of a random stream.

    Args:
        layer: layer to own the weight.
        seed: any non-negative integer. It is hashed first: PyTorch adds seed and draw count, so
            that streams with neighbouring seeds would be shifted copies of each other.

    Returns:
        The weight, of shape `(2,)`.
    """
    hashed = int(np.random.SeedSequence(seed).generate_state(1)[0]) >> 1
    return layer.add_weight(
        name="random_state",
        shape=(2,),
        dtype=keras.random.SeedGenerator(0).state.dtype,
        initializer=lambda shape, dtype: ops.convert_to_tensor(np.array([hashed, 0]), dtype=dtype),
        trainable=False,
        autocast=False,
        aggregation="only_first_replica",
    )
