"""Means over an epoch of whatever figures a method reports, without their names being declared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_semimed.models.health import Share


class EpochFigures(keras.metrics.Metric):
    """The mean of each of some named scalars over the steps of an epoch, in one weight.

    A name gets its place when it first comes up, which is while the step is traced: a method writes it once, where it
    computes the figure. A `Share` counts by its whole, so that a batch without a member does not count as 0.

    Args:
        capacity: most names there can be.
        name: of the metric.
    """

    def __init__(self, capacity: int, name: str = "figures") -> None:
        super().__init__(name=name, dtype="float32")
        self.capacity = capacity
        self._places: dict[str, int] = {}
        self.sums = self.add_variable((2, capacity), "zeros", name="sums")

    def update_state(self, figures: Mapping[str, Any]) -> None:
        """Takes in the figures of a step, scalars or `Share`s.

        Raises:
            ValueError: for more names than there is room for.
        """
        for name in figures:
            self._places.setdefault(name, len(self._places))
        if len(self._places) > self.capacity:
            raise ValueError(f"{len(self._places)} figures are more than the {self.capacity} that there is room for.")
        values, weights = [ops.zeros(())] * self.capacity, [ops.zeros(())] * self.capacity
        for name, figure in figures.items():
            value, weight = (figure.value, figure.whole) if isinstance(figure, Share) else (figure, 1.0)
            place = self._places[name]
            weights[place] = ops.stop_gradient(ops.convert_to_tensor(weight, "float32"))
            values[place] = ops.stop_gradient(ops.convert_to_tensor(value, "float32")) * weights[place]
        self.sums.assign(self.sums.value + ops.stack([ops.stack(values), ops.stack(weights)]))

    def result(self) -> dict[str, Any]:
        """The means, by name."""
        sums, counts = ops.unstack(self.sums.value, axis=0)
        means = sums / ops.where(counts > 0, counts, 1.0)
        return {name: means[place] for name, place in self._places.items()}

    def reset_state(self) -> None:
        """Starts an epoch; the names stay."""
        self.sums.assign(ops.zeros_like(self.sums.value))
