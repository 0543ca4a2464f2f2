"""Weak and strong views of a batch, made inside the compiled training step."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_whole
from keras_semimed.layers.photometric import colour_jitter
from keras_semimed.layers.random_state import StoredSeedGenerator, add_random_state
from keras_semimed.layers.resampling import apply_matrices, bilinear_matrix, gaussian_matrix, inside, nearest_matrix

IGNORE = 255  # mask value outside the image


WIDE_VIEWS = {"scale": (0.5, 2.0), "shift": 0.25, "grey_probability": 0.2}
"""Arguments of `WeakStrongViews` for the views of UniMatch's published code, which LoCo and others took over."""


def _check_range(name: str, value: tuple[float, float], positive: bool) -> tuple[float, float]:
    low, high = (float(bound) for bound in value)
    if not (0 < low <= high if positive else 0 <= low <= high):
        bound = "0 < low <= high" if positive else "0 <= low <= high"
        raise ValueError(f"`{name}` must be (low, high) with {bound}, found {value!r}.")
    return low, high


def _check_fraction(name: str, value: float, below: float = 1.0) -> float:
    if not 0 <= value <= below:
        raise ValueError(f"`{name}` must lie between 0 and {below}, found {value!r}.")
    return float(value)


@keras.saving.register_keras_serializable(package="keras_semimed")
class WeakStrongViews(keras.Layer):
    """Draws and applies a random weak view (geometry) and strong view (colour, blur) of each image.

    The weak view flips, scales and shifts: `draw` makes the geometry, `weak` applies it to images and `mask`
    to masks. The strong view of a weak view changes intensities only, so it keeps its geometry
    to the pixel and shares its pseudo-labels. Everything is a product with small matrices of static shape,
    drawn per image, in float32 whatever the dtype policy.

    The state of the random stream is a weight: it is saved and restored with the layer, and the same seed
    gives the same views again on the same backend.

    Called on a batch, the layer returns one weak and one strong view of it.

    Args:
        image_size: height and width S of the views, in pixels.
        horizontal_flip: whether to mirror left and right, with probability 0.5.
        vertical_flip: whether to mirror top and bottom, with probability 0.5.
        scale: range of the zoom; above 1 enlarges (and so crops), below 1 shrinks. Zoom 1 fits the whole image
            into the view.
        shift: largest displacement in each direction, as a share of the image's height or width.
        jitter: strengths of brightness, contrast, saturation and hue. The first three give factors in
            `[max(0, 1 - strength), 1 + strength]`, hue (at most 0.5) is in full turns.
        jitter_probability: share of images whose colours change.
        grey_probability: share of images that become grey.
        blur_sigma: range of the Gaussian's standard deviation, in pixels of the view.
        blur_probability: share of images that are blurred.
        seed: non-negative integer.

    Raises:
        ValueError: where an argument is out of its range.
    """

    def __init__(
        self,
        image_size: int = 224,
        horizontal_flip: bool = True,
        vertical_flip: bool = False,
        scale: tuple[float, float] = (0.8, 1.2),
        shift: float = 0.1,
        jitter: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.25),
        jitter_probability: float = 0.8,
        grey_probability: float = 0.0,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        blur_probability: float = 0.5,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        if image_size < 2:
            raise ValueError(f"`image_size` must be at least 2 pixels, found {image_size!r}.")
        if len(jitter) != 4 or min(jitter) < 0 or jitter[3] > 0.5:
            raise ValueError(
                "`jitter` must be four strengths (brightness, contrast, saturation, hue), none negative and "
                f"hue at most 0.5, found {jitter!r}."
            )
        check_whole("seed", seed, 0)
        self.image_size = int(image_size)
        self.horizontal_flip = bool(horizontal_flip)
        self.vertical_flip = bool(vertical_flip)
        self.scale = _check_range("scale", scale, positive=True)
        self.shift = _check_fraction("shift", shift)
        self.jitter = tuple(float(strength) for strength in jitter)
        self.jitter_probability = _check_fraction("jitter_probability", jitter_probability)
        self.grey_probability = _check_fraction("grey_probability", grey_probability)
        self.blur_sigma = _check_range("blur_sigma", blur_sigma, positive=False)
        self.blur_probability = _check_fraction("blur_probability", blur_probability)
        self.seed = seed
        self.random_state = add_random_state(self, seed)
        self.built = True

    def _uniform(self, batch_size: Any, columns: int) -> list[Any]:
        """Draws `columns` vectors of shape `(N,)`, uniform in [0, 1)."""
        generator = StoredSeedGenerator(self.random_state)
        numbers = keras.random.uniform((batch_size, columns), dtype="float32", seed=generator)
        return [numbers[:, column] for column in range(columns)]

    def draw(self, batch_size: Any, height: Any, width: Any) -> dict[str, Any]:
        """Draws a geometry for each image: where in the source each row and column of the view lies.

        Args:
            batch_size: number of images N.
            height: height H0 of the source images, in pixels.
            width: width W0 of the source images, in pixels.

        Returns:
            `{"rows": (N, S), "columns": (N, S)}`, float32 source coordinates; pixel centres are integers.
        """
        up, left, zoom, down, right = self._uniform(batch_size, 5)
        zoom = self.scale[0] + (self.scale[1] - self.scale[0]) * zoom
        return {
            "rows": self._coordinates(height, zoom, up < 0.5 * self.vertical_flip, down),
            "columns": self._coordinates(width, zoom, left < 0.5 * self.horizontal_flip, right),
        }

    def _coordinates(self, source_size: Any, zoom: Any, flip: Any, shift: Any) -> Any:
        # Measured from the centre, so that zoom 1 at the same size hits pixel centres exactly.
        offsets = ops.arange(self.image_size, dtype="float32") - (self.image_size - 1) / 2
        size = ops.cast(source_size, "float32")
        direction = ops.where(flip, -1.0, 1.0)
        step = direction * (size / self.image_size) / zoom
        centre = (size - 1) / 2 + self.shift * (2.0 * shift - 1.0) * size
        return centre[:, None] + step[:, None] * offsets[None, :]  # (N, S)

    def weak(self, images: Any, geometry: dict[str, Any]) -> Any:
        """Applies a geometry to images: bilinear, antialiased where they shrink, 0 outside.

        Args:
            images: `(N, H0, W0, C)`, any dtype, 0..255.
            geometry: what `draw` returned for this batch.

        Returns:
            `(N, S, S, C)` float32, 0..255.
        """
        images = ops.cast(images, "float32")
        height, width = ops.shape(images)[1:3]
        rows = bilinear_matrix(geometry["rows"], height)
        columns = bilinear_matrix(geometry["columns"], width)
        return apply_matrices(images, rows, columns)

    def mask(self, masks: Any, geometry: dict[str, Any]) -> Any:
        """Applies a geometry to masks: nearest pixel, 255 (ignore) outside.

        Args:
            masks: `(N, H0, W0)` integers, 0..255.
            geometry: what `draw` returned for this batch.

        Returns:
            `(N, S, S)` int32.
        """
        height, width = ops.shape(masks)[1:3]
        rows, columns = geometry["rows"], geometry["columns"]
        values = ops.cast(masks, "float32")[..., None]  # exact: one weight of 1 each, values of 8 bits
        values = apply_matrices(values, nearest_matrix(rows, height), nearest_matrix(columns, width))[..., 0]
        known = self.visible(geometry, height, width)
        return ops.where(known, ops.cast(ops.round(values), "int32"), IGNORE)

    def visible(self, geometry: dict[str, Any], height: Any, width: Any, area: Any = None) -> Any:
        """Tells which pixels of a view show the source image rather than the black around it.

        Args:
            geometry: what `draw` returned.
            height: height H0 of the source images, in pixels.
            width: width W0 of the source images, in pixels.
            area: `(N, 4)` integers, top, left, bottom and right of what is no padding in each source image, in pixels;
                None for all of it.

        Returns:
            `(N, S, S)` booleans.
        """
        rows, columns = inside(geometry["rows"], height), inside(geometry["columns"], width)
        if area is not None:
            top, left, bottom, right = (edge[:, None] for edge in ops.unstack(ops.cast(area, "float32"), axis=1))
            rows = ops.logical_and(rows, inside(geometry["rows"] - top, bottom - top))
            columns = ops.logical_and(columns, inside(geometry["columns"] - left, right - left))
        return ops.logical_and(rows[:, :, None], columns[:, None, :])

    def strong(self, weak_images: Any) -> Any:
        """Makes a strong view of weak views: colour jitter, grey, Gaussian blur; no geometry.

        Args:
            weak_images: `(N, S, S, C)`, 0..255, C = 1 or 3.

        Returns:
            `(N, S, S, C)` float32, 0..255.

        Raises:
            ValueError: for another number of channels.
        """
        images = ops.cast(weak_images, "float32")
        batch_size, height, width, channels = ops.shape(images)
        if channels not in (1, 3):
            raise ValueError(f"strong views need images with 1 or 3 channels, found {channels}.")
        changed, brightness, contrast, saturation, hue, grey, blurred, sigma = self._uniform(batch_size, 8)
        changed = ops.cast(changed < self.jitter_probability, "float32")
        saturation = self._factor(2, saturation, changed)
        if self.grey_probability:
            saturation = ops.where(grey < self.grey_probability, 0.0, saturation)
        images = colour_jitter(
            images,
            self._factor(0, brightness, changed),
            self._factor(1, contrast, changed),
            saturation,
            changed * self.jitter[3] * (2.0 * hue - 1.0),
        )
        if not self.blur_probability:
            return images
        sigma = self.blur_sigma[0] + (self.blur_sigma[1] - self.blur_sigma[0]) * sigma
        sigma = ops.where(blurred < self.blur_probability, sigma, 0.0)
        return apply_matrices(images, gaussian_matrix(sigma, height), gaussian_matrix(sigma, width))

    def _factor(self, kind: int, number: Any, changed: Any) -> Any:
        """Maps uniform numbers to jitter factors of the given kind; 1 where the image stays as it is."""
        strength = self.jitter[kind]
        low, high = max(0.0, 1.0 - strength), 1.0 + strength
        return 1.0 + changed * (low + (high - low) * number - 1.0)

    def call(self, images: Any) -> tuple[Any, Any]:
        """Returns a weak and a strong view, `(N, S, S, C)` float32 each, of `images` `(N, H0, W0, C)`."""
        batch_size, height, width, _ = ops.shape(images)
        weak = self.weak(images, self.draw(batch_size, height, width))
        return weak, self.strong(weak)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "horizontal_flip": self.horizontal_flip,
            "vertical_flip": self.vertical_flip,
            "scale": self.scale,
            "shift": self.shift,
            "jitter": self.jitter,
            "jitter_probability": self.jitter_probability,
            "grey_probability": self.grey_probability,
            "blur_sigma": self.blur_sigma,
            "blur_probability": self.blur_probability,
            "seed": self.seed,
        }
