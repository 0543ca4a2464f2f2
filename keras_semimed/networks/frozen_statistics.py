"""Passes of a network that leave its moving statistics alone (SS-Net)."""

from __future__ import annotations

from typing import Any

import keras


class _Frozen(keras.StatelessScope):
    """A scope in which its variables keep their values, and all others are as they are outside."""

    def add_update(self, update: Any) -> None:
        """Drops the update: kept, it would be a tracer that outlives a gradient inside the scope on JAX."""

    def get_current_value(self, variable: keras.Variable) -> Any:
        """The value that a variable had when the scope was entered, of others that of the scope around."""
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            return self.original_scope.get_current_value(variable)
        return value


def frozen_statistics(layer: keras.layers.Layer) -> keras.StatelessScope:
    """A context in which a layer uses the statistics of its batch, in training mode, and moves none of its own.

    Gradients reach the weights as ever, and `backend.input_gradient` works inside. Nothing is assigned while it lasts:
    draw random numbers from stored streams before.

    Args:
        layer: built, such as a network with BatchNorm.

    Returns:
        What a `with` statement takes.
    """
    return _Frozen(state_mapping=[(variable, variable.value) for variable in layer.variables])
