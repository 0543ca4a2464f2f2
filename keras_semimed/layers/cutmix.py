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

    Area and aspect are uniform and log-uniform in their ranges; both are relative to the image, so that an aspect of 1
    has the image's own. A box is `sqrt(area * aspect)` of the image's height and `sqrt(area / aspect)` of its width,
    the whole side at most. `placement="inside"` puts it anywhere inside the image; `"clipped"` centres it on any pixel,
    as `clipped_boxes` does, and what reaches over the edge is cut off: the drawn area is then the largest, and with
    `aspect=(1, 1)` the boxes are those of `clipped_boxes(area, ...)`.

    Args:
        probability: share of images that get a box.
        area: range of the box's area, as a share of the image's.
        aspect: range of the box's height by its width.
        seed: non-negative integer.
        placement: `"inside"` or `"clipped"`.
        per_batch: draw once a batch whether its images get boxes, all or none; the boxes differ all the same.

    Raises:
        ValueError: where an argument is out of its range.
    """

    def __init__(
        self,
        probability: float = 0.5,
        area: tuple[float, float] = (0.02, 0.4),
        aspect: tuple[float, float] = (0.3, 1 / 0.3),
        seed: int = 0,
        placement: str = "inside",
        per_batch: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        if not 0 <= probability <= 1:
            raise ValueError(f"`probability` must be within [0, 1], found {probability!r}.")
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"`area` must be (low, high) with 0 < low <= high <= 1, found {area!r}.")
        if not 0 < aspect[0] <= aspect[1]:
            raise ValueError(f"`aspect` must be (low, high) with 0 < low <= high, found {aspect!r}.")
        if placement not in ("inside", "clipped"):
            raise ValueError(f"`placement` must be 'inside' or 'clipped', found {placement!r}.")
        self.probability = probability
        self.area = tuple(area)
        self.aspect = tuple(aspect)
        self.seed = seed
        self.placement = placement
        self.per_batch = per_batch
        self.random_state = add_random_state(self, seed)
        self.built = True

    def boxes(self, batch_size: Any, height: int, width: int) -> Any:
        """Draws a box for each image.

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
        if self.placement == "inside":
            box_height = ops.minimum(ops.sqrt(area * ratio), 1.0) * height
            box_width = ops.minimum(ops.sqrt(area / ratio), 1.0) * width
            rows = _between(height, top * (height - box_height), box_height)
            columns = _between(width, left * (width - box_width), box_width)
        else:
            rows = _around(height, ops.minimum(area * ratio, 1.0), _pixel(top, height))
            columns = _around(width, ops.minimum(area / ratio, 1.0), _pixel(left, width))
        drawn = ops.cast((mixed[:1] if self.per_batch else mixed) < self.probability, "float32")
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
        return mix_boxes(values, others, boxes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "probability": self.probability,
            "area": self.area,
            "aspect": self.aspect,
            "seed": self.seed,
            "placement": self.placement,
            "per_batch": self.per_batch,
        }


def clipped_boxes(area: Any, centres: Any, height: int, width: int) -> Any:
    """Boxes around given pixels, cut off at the edge of the image (AugSeg, InfoMatch).

    Along an axis of `side` pixels a box reaches from `centre - half` up to, but not including, `centre + half`, with
    `half = floor(side sqrt(area)) // 2`.

    Args:
        area: of the whole box, as a share of the image's, in 0..1. Scalar or `(N,)`.
        centres: `(N, 2)` int32, row and column.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        `(N, H, W)` float32, 1 inside the box, without gradient.
    """
    area = ops.reshape(ops.stop_gradient(ops.cast(area, "float32")), (-1,))  # (N,) or (1,)
    centres = ops.cast(centres, "int32")
    rows, columns = _around(height, area, centres[:, 0]), _around(width, area, centres[:, 1])
    return rows[:, :, None] * columns[:, None, :]


def mix_boxes(values: Any, others: Any, boxes: Any) -> Any:
    """Puts `others` inside the boxes, wherever these come from.

    Args:
        values: `(N, H, W)` or `(N, H, W, C)`.
        others: the same shape and dtype.
        boxes: `(N, H, W)`, 1 inside the boxes, else 0.

    Returns:
        The shape and dtype of `values`.
    """
    if len(values.shape) < len(boxes.shape):
        raise ValueError(
            f"boxes {tuple(boxes.shape)} are of maps and cannot mix values of whole images {tuple(values.shape)}."
        )
    inside = boxes > 0.5
    return ops.where(inside if len(values.shape) == 3 else inside[..., None], others, values)


def neighbour(values: Any) -> Any:
    """The next image of the batch in the place of each: the batch, rolled by one."""
    return ops.roll(values, 1, axis=0)


def _between(size: int, start: Any, length: Any) -> Any:
    """`(N, size)` float32: 1 where a pixel's centre lies within `length` from `start` on."""
    centres = ops.arange(size, dtype="float32")[None, :] + 0.5
    start, length = start[:, None], length[:, None]
    return ops.cast(ops.logical_and(centres >= start, centres < start + length), "float32")


def _around(size: int, area: Any, centres: Any) -> Any:
    """`(N, size)` float32: 1 from `centre - half` up to `centre + half`, half of the box's part of the axis."""
    half = (ops.cast(ops.floor(size * ops.sqrt(area)), "int32") // 2)[:, None]
    pixels, centres = ops.arange(size, dtype="int32")[None, :], centres[:, None]
    return ops.cast(ops.logical_and(pixels >= centres - half, pixels < centres + half), "float32")


def _pixel(number: Any, size: int) -> Any:
    """The pixel `0..size-1`, int32, that numbers of [0, 1) stand for, all alike."""
    return ops.minimum(ops.cast(ops.floor(number * size), "int32"), size - 1)
