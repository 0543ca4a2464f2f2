"""A head of several hidden layers that can normalise over a part of its batch (SS-Net, ShrinkMatch)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_semimed")
class MLPHead(keras.Layer):
    """Perceptron on the last axis: for each hidden layer dense, BatchNorm, LeakyReLU, then a linear end; in float32.

    With a mask, BatchNorm takes its statistics over the members alone, as if the others were not in the batch; what
    comes out for the others is of no use. A mask without a member leaves the moving statistics as they are.

    The dense layers are in the list `hidden`, the BatchNorms (momentum 0.9, epsilon 1e-5) in `norms`, the end is
    `output_layer`.

    Args:
        units: width of the result.
        hidden_units: width of each hidden layer, in order.
        negative_slope: of the LeakyReLU; 0 makes it a ReLU.

    Raises:
        ValueError: a width is not positive, or the slope negative.
    """

    def __init__(self, units: int, hidden_units: tuple[int, ...], negative_slope: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        if min((units, *hidden_units)) < 1:
            raise ValueError(f"`units` and `hidden_units` must be at least 1, found {units!r} and {hidden_units!r}.")
        if negative_slope < 0:
            raise ValueError(f"`negative_slope` must not be negative, found {negative_slope!r}.")
        self.units = units
        self.hidden_units = tuple(hidden_units)
        self.negative_slope = negative_slope
        self.supports_masking = True
        self.hidden = [
            keras.layers.Dense(width, dtype="float32", name=f"hidden_{index}")
            for index, width in enumerate(self.hidden_units)
        ]
        self.norms = [
            keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype="float32", name=f"norm_{index}")
            for index in range(len(self.hidden_units))
        ]
        self.output_layer = keras.layers.Dense(units, dtype="float32", name="output")

    def build(self, input_shape: tuple) -> None:
        """Makes the weights for features of shape `(..., D)`."""
        shape = tuple(input_shape)
        for dense, norm in zip(self.hidden, self.norms, strict=True):
            dense.build(shape)
            shape = (*shape[:-1], dense.units)
            norm.build(shape)
        self.output_layer.build(shape)
        self.built = True

    def call(self, features: Any, mask: Any = None, training: bool | None = None) -> Any:
        """Computes the head.

        Args:
            features: `(..., D)`, any float dtype.
            mask: `(...)`, 1 or True for the members that BatchNorm takes its statistics over; None: all.
            training: whether BatchNorm uses the statistics of the batch.

        Returns:
            `(..., units)` float32.
        """
        mask = None if mask is None else ops.cast(mask, "bool")
        for dense, norm in zip(self.hidden, self.norms, strict=True):
            features = _normalized(norm, dense(features), mask, training)
            features = ops.leaky_relu(features, self.negative_slope)
        return self.output_layer(features)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `(..., units)`."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "units": self.units,
            "hidden_units": self.hidden_units,
            "negative_slope": self.negative_slope,
        }


def _normalized(norm: Any, features: Any, mask: Any, training: bool | None) -> Any:
    """BatchNorm over the members of the mask, whose moving statistics stay where there is none."""
    if mask is None or not training:
        return norm(features, training=training)
    statistics = (norm.moving_mean, norm.moving_variance)
    before = [variable.value * 1.0 for variable in statistics]
    result = norm(features, training=True, mask=mask)
    for variable, old in zip(statistics, before, strict=True):
        variable.assign(ops.where(ops.any(mask), variable.value, old))
    return result
