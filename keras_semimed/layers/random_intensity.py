"""A random number of random intensity operations, each of random strength: the strong view of AugSeg."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_semimed.configuration import check_whole
from keras_semimed.layers.intensity import INTENSITIES, intensity, intensity_strength
from keras_semimed.layers.random_state import StoredSeedGenerator, add_random_state


class IntensityDraw(NamedTuple):
    """Which operations each image gets, one after the other.

    Attributes:
        counts: how many of the columns apply, from the first on. Shape: `(N,)`, int32, 1..O.
        operations: places in `INTENSITIES`. Shape: `(N, O)`, int32.
        uniform: numbers in [0, 1), from which `intensity_strength` makes the strengths. Shape: `(N, O)`, float32.
        signs: 1 or -1, the direction in which hue turns. Shape: `(N, O)`, float32.
    """

    counts: Any
    operations: Any
    uniform: Any
    signs: Any


@keras.saving.register_keras_serializable(package="keras_semimed")
class RandomIntensity(keras.Layer):
    """Applies 1 to `operations` of the eleven intensity operations to each image, drawn with replacement.

    Changes intensities only, so that a view keeps its geometry to the pixel, in float32 whatever the dtype policy.
    An operation is computed for the whole batch, and only where at least one image of it drew it. The state of the
    random stream is a weight, saved and restored with the layer.

    Args:
        operations: largest number of operations O an image gets; each number from 1 on is as probable.
        seed: non-negative integer.

    Raises:
        ValueError: where an argument is out of its range.
    """

    def __init__(self, operations: int = 3, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_whole("operations", operations, 1)
        check_whole("seed", seed, 0)
        self.operations = int(operations)
        self.seed = seed
        self.random_state = add_random_state(self, seed)
        self.built = True

    def draw(self, batch_size: Any) -> IntensityDraw:
        """Draws operations and strengths for each image.

        Args:
            batch_size: number of images N.

        Returns:
            `IntensityDraw` of `operations` columns.
        """
        generator = StoredSeedGenerator(self.random_state)
        columns = self.operations
        numbers = keras.random.uniform((batch_size, 1 + 3 * columns), dtype="float32", seed=generator)
        return IntensityDraw(
            counts=1 + _whole(numbers[:, 0], columns),
            operations=_whole(numbers[:, 1 : 1 + columns], len(INTENSITIES)),
            uniform=numbers[:, 1 + columns : 1 + 2 * columns],
            signs=ops.where(numbers[:, 1 + 2 * columns :] < 0.5, 1.0, -1.0),
        )

    def call(self, images: Any, inside: Any = None, draw: IntensityDraw | None = None) -> Any:
        """Makes a strong view of weak views.

        Args:
            images: `(N, H, W, C)`, any dtype, 0..255, C = 1 or 3.
            inside: `(N, H, W)`, 1 where a pixel shows image; only these count in an image's statistics. None for all.
            draw: what `draw` returned for this batch; None to draw.

        Returns:
            `(N, H, W, C)` float32, 0..255, without gradient.
        """
        images = ops.stop_gradient(ops.cast(images, "float32"))
        draw = self.draw(ops.shape(images)[0]) if draw is None else draw
        for column in range(draw.operations.shape[1]):
            for place in range(1, len(INTENSITIES)):  # the first one is the identity
                images = _apply(images, inside, draw, column, place)
        return images

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {**super().get_config(), "operations": self.operations, "seed": self.seed}


def _whole(uniform: Any, count: int) -> Any:
    """Maps numbers in [0, 1) to 0..count - 1, int32; rounding may take a product up to `count` itself."""
    return ops.minimum(ops.cast(ops.floor(uniform * count), "int32"), count - 1)


def _apply(images: Any, inside: Any, draw: IntensityDraw, column: int, place: int) -> Any:
    """Applies one operation to the images whose draw has it in this column."""
    name = INTENSITIES[place]
    chosen = ops.logical_and(draw.counts > column, ops.equal(draw.operations[:, column], place))

    def changed() -> Any:
        strength = intensity_strength(name, draw.uniform[:, column])
        strength = draw.signs[:, column] * strength if name == "hue" else strength
        return ops.where(chosen[:, None, None, None], intensity(images, name, strength, inside), images)

    return _only_if(ops.any(chosen), changed, images)


def _only_if(condition: Any, function: Callable[[], Any], otherwise: Any) -> Any:
    """`ops.cond`, but decided here where the condition has a value: eager JAX compiles each one anew at every call."""
    try:
        known = bool(condition)
    except TypeError:  # being compiled: decided when it runs
        return ops.cond(condition, function, lambda: otherwise)
    return function() if known else otherwise
