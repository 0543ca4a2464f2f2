"""A moving average as a weight of the model (ShrinkMatch's share of certain images)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_semimed")
class RunningMean(keras.Layer):
    """`value <- momentum * value + (1 - momentum) * values`, element by element.

    State, saved with the model: `value`, float32, and `updates`, how often each element was moved, int32, both of
    `shape`. No gradient flows through them.

    Args:
        shape: of what is averaged; `()`: one number.
        initial: value before the first update; None: the first update of an element copies what it is given, and
            before that it is 0.
        momentum: of the moving average.

    Raises:
        ValueError: `momentum` is not within [0, 1].
    """

    def __init__(
        self, shape: tuple[int, ...] = (), initial: float | None = None, momentum: float = 0.999, **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        if not 0 <= momentum <= 1:
            raise ValueError(f"`momentum` must be within [0, 1], found {momentum!r}.")
        self.shape = tuple(shape)
        self.initial = initial
        self.momentum = momentum
        self.value = self.add_weight(
            name="value",
            shape=self.shape,
            dtype="float32",
            initializer=keras.initializers.Constant(0.0 if initial is None else initial),
            trainable=False,
            autocast=False,
            aggregation="mean",
        )
        self.updates = self.add_weight(
            name="updates",
            shape=self.shape,
            dtype="int32",
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )
        self.built = True

    def update(self, values: Any, present: Any = None) -> Any:
        """Takes in new values.

        Args:
            values: of `shape`, any float dtype.
            present: 1 for the elements to move, else 0, of `shape` or a scalar; None: all.

        Returns:
            The updated value: of `shape`, float32, a constant.
        """
        values = ops.stop_gradient(ops.cast(values, "float32"))
        old, updates = self.value.value * 1.0, self.updates.value * 1
        new = self.momentum * old + (1.0 - self.momentum) * values
        if self.initial is None:
            new = ops.where(updates == 0, values, new)
        if present is None:
            present = ops.ones(self.shape)
        present = ops.broadcast_to(ops.cast(present, "float32"), self.shape) > 0
        new = ops.where(present, new, old)
        self.value.assign(new)
        self.updates.assign(updates + ops.cast(present, "int32"))
        return new

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {**super().get_config(), "shape": self.shape, "initial": self.initial, "momentum": self.momentum}
