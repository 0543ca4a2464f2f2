"""Whose turn it is, in turns of random length (AD-MT's random periodic alternation)."""

from __future__ import annotations

import numbers
from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_whole
from keras_semimed.layers.random_state import StoredSeedGenerator, add_random_state


@keras.saving.register_keras_serializable(package="keras_semimed")
class AlternatingTurns(keras.Layer):
    """Turns that follow each other, each of a random number of steps (Zhao et al., AD-MT, ECCV 2024).

    State, saved with the model: `active`, whose turn it is, from 0 on; `counter`, how many steps of the turn are done;
    `period`, how many it has, uniform in 1 to `max_period`; all int32 scalars. The first period is drawn when the layer
    is made. The state of the random stream is a weight as well.

    Args:
        turns: how many take turns.
        max_period: most steps of a turn.
        seed: non-negative integer.

    Raises:
        ValueError: where an argument is out of its range.
    """

    def __init__(self, turns: int = 2, max_period: int = 50, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_whole("turns", turns, 1)
        check_whole("max_period", max_period, 1)
        check_whole("seed", seed, 0)
        self.turns = turns
        self.max_period = max_period
        self.seed = seed
        self.random_state = add_random_state(self, seed)
        self.active, self.counter, self.period = (self._state(name) for name in ("active", "counter", "period"))
        self.built = True
        self.period.assign(self.draw())

    def _state(self, name: str) -> Any:
        return self.add_weight(
            name=name,
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def draw(self) -> Any:
        """Draws the length of a turn: int32 scalar, 1 to `max_period`."""
        generator = StoredSeedGenerator(self.random_state)
        number = keras.random.uniform((), dtype="float32", seed=generator) * self.max_period
        return 1 + ops.minimum(ops.cast(ops.floor(number), "int32"), self.max_period - 1)

    def advance(self, next_period: Any = None) -> Any:
        """Counts a step; with the last one of a turn the next turn begins.

        Args:
            next_period: length of the next turn, from 1 on, used where a turn ends; None: `draw`, at every step.

        Returns:
            Whose turn the next step is: int32 scalar.

        Raises:
            ValueError: a length that is a plain number, but not a whole one of at least 1.
        """
        if isinstance(next_period, numbers.Number):
            check_whole("next_period", next_period, 1)
        drawn = ops.cast(self.draw() if next_period is None else next_period, "int32")
        count = self.counter.value + 1
        ends = count >= self.period.value
        active = ops.where(ends, (self.active.value + 1) % self.turns, self.active.value)
        self.period.assign(ops.where(ends, drawn, self.period.value))
        self.counter.assign(ops.where(ends, ops.zeros_like(count), count))
        self.active.assign(active)
        return active

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {**super().get_config(), "turns": self.turns, "max_period": self.max_period, "seed": self.seed}
