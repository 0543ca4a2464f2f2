"""CutMix: a box of one image in the place of another's (French et al., 2020), for images and pseudo-labels alike."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.layers.random_state import StoredSeedGenerator, add_random_state


@keras.saving.register_keras_serializable(package="keras_semimed")
class CutMix(keras.Layer):
    """Draws a box for each image; whatever belongs to the image is mixed with the same box.

    `boxes` draws, `mix` applies: once to the images, again to pseudo-labels, confidence and the valid area. The state
    of the random stream is a weight, saved and restored with the layer.

    Args:
        probability: share of images that get a box.
        area: range of the box's area, as a share of the image's.
        aspect: range of the box's height by its width.
        seed: non-negative integer.

    Raises:
        ValueError: where an argument is out of its range.
    """

    def __init__(
        self,
        probability: float = 0.5,
        area: tuple[float, float] = (0.02, 0.4),
        aspect: tuple[float, float] = (0.3, 1 / 0.3),
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be within [0, 1], not {probability!r}.")
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"area must be (low, high) with 0 < low <= high <= 1, not {area!r}.")
        if not 0 < aspect[0] <= aspect[1]:
            raise ValueError(f"aspect must be (low, high) with 0 < low <= high, not {aspect!r}.")
        self.probability = probability
        self.area = tuple(area)
        self.aspect = tuple(aspect)
        self.seed = seed
        self.random_state = add_random_state(self, seed)
        self.built = True

    def boxes(self, batch_size: Any, height: int, width: int) -> Any:
        """Draws a box for each image, all of it inside the image.

        Args:
            batch_size: number of images N.
            height: of the images, in pixels.
            width: of the images, in pixels.

        Returns:
            `(N, H, W)` float32, 1 inside the box.
        """
        generator = StoredSeedGenerator(self.random_state)
        numbers = keras.random.uniform((batch_size, 5), dtype="float32", seed=generator)
        mixed, area, aspect, top, left = (numbers[:, column] for column in range(5))
        area = self.area[0] + (self.area[1] - self.area[0]) * area
        low, high = (ops.log(bound) for bound in self.aspect)
        ratio = ops.exp(low + (high - low) * aspect)
        box_height = ops.minimum(ops.sqrt(area * ratio), 1.0) * height
        box_width = ops.minimum(ops.sqrt(area / ratio), 1.0) * width
        rows = _between(height, top * (height - box_height), box_height)
        columns = _between(width, left * (width - box_width), box_width)
        drawn = ops.cast(mixed < self.probability, "float32")
        return drawn[:, None, None] * rows[:, :, None] * columns[:, None, :]

    def mix(self, values: Any, others: Any, boxes: Any) -> Any:
        """Puts `others` inside the boxes.

        Args:
            values: `(N, H, W)` or `(N, H, W, C)`.
            others: the same shape and dtype: what the boxes are filled from.
            boxes: `(N, H, W)`, what `boxes` returned.

        Returns:
            The shape and dtype of `values`.
        """
        inside = boxes > 0.5
        return ops.where(inside if len(values.shape) == 3 else inside[..., None], others, values)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "probability": self.probability,
            "area": self.area,
            "aspect": self.aspect,
            "seed": self.seed,
        }


def neighbour(values: Any) -> Any:
    """The next image of the batch in the place of each: the batch, rolled by one."""
    return ops.roll(values, 1, axis=0)


def _between(size: int, start: Any, length: Any) -> Any:
    """`(N, size)` float32: 1 where a pixel's centre lies within `length` from `start` on."""
    centres = ops.arange(size, dtype="float32")[None, :] + 0.5
    start, length = start[:, None], length[:, None]
    return ops.cast(ops.logical_and(centres >= start, centres < start + length), "float32")
