"""A network that turns coarse label maps into better ones, with a diffusion of its latents (DiffRect)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_semimed import backend
from keras_semimed.configuration import check_whole
from keras_semimed.layers.latent_diffusion import LatentDiffusion
from keras_semimed.layers.sinusoidal_code import sinusoidal_code
from keras_semimed.losses.reductions import shapes_agree
from keras_semimed.networks.deeplab import resize_to
from keras_semimed.networks.heads import ImageNormalization
from keras_semimed.networks.rectifier_block import RectifierBlock, Shape

DROPOUTS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Of the levels, finest first."""
CODE, WIDE_CODE = 128, 512
COLOURS = 3


class TimeCode(keras.layers.Layer):
    """What blocks know of a time: its sinusoidal code, dense, swish, dense; `(N,)` to `(N, 512)`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.layers = [keras.layers.Dense(WIDE_CODE, dtype=self.dtype_policy, name=f"dense_{n}") for n in (1, 2)]

    def build(self, input_shape: Shape) -> None:
        """Creates the weights."""
        del input_shape
        for layer, size in zip(self.layers, (CODE, WIDE_CODE), strict=True):
            layer.build((None, size))

    def call(self, values: Any) -> Any:
        """The code of each value."""
        first, second = self.layers
        return second(ops.silu(first(sinusoidal_code(values, CODE))))


class Contraction(keras.layers.Layer):
    """A block for each width, and 2x2 max-pooling between them; odd sides are rounded up."""

    def __init__(self, widths: Sequence[int], seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blocks = [
            RectifierBlock(width, dropout, seed + level, dtype=self.dtype_policy, name=f"block_{level + 1}")
            for level, (width, dropout) in enumerate(zip(widths, DROPOUTS, strict=True))
        ]

    def build(self, input_shape: Shape) -> None:
        """Creates the weights for the channels in `input_shape`."""
        shape = tuple(input_shape)
        for block in self.blocks:
            block.build(shape, (None, WIDE_CODE))
            shape = (None, None, None, block.filters)

    def call(self, x: Any, code: Any, added: Sequence[Any] | None = None, training: bool | None = None) -> list[Any]:
        """What each block gives, finest first, plus what is added to it before it goes deeper."""
        found: list[Any] = []
        for level, block in enumerate(self.blocks):
            x = block(x if level == 0 else pool(x), code, training=training)
            x = x if added is None else x + added[level]
            found.append(x)
        return found


class Enlargement(keras.layers.Layer):
    """1x1 convolution to the skip's width, enlargement to its size, both joined, and a block."""

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.convolution = keras.layers.Conv2D(
            filters, 1, data_format="channels_last", dtype=self.dtype_policy, name="convolution"
        )
        self.block = RectifierBlock(filters, dtype=self.dtype_policy, name="block")

    def build(self, input_shape: Shape) -> None:
        """Creates the weights for the channels in `input_shape`."""
        self.convolution.build(tuple(input_shape))
        self.block.build((None, None, None, 2 * self.block.filters), (None, WIDE_CODE))

    def call(self, x: Any, skip: Any, code: Any, training: bool | None = None) -> Any:
        """Features in the size and width of the skip."""
        enlarged = resize_to(self.convolution(x), ops.shape(skip)[1:3])
        return self.block(ops.concatenate([enlarged, skip], axis=-1), code, training=training)


class LatentDenoiser(keras.layers.Layer):
    """Estimates a latent x_0 from a noised one; the condition comes in at the last skip alone."""

    def __init__(self, width: int, widths: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.time_code = TimeCode(dtype=self.dtype_policy, name="time_code")
        self.blocks = [RectifierBlock(w, dtype=self.dtype_policy, name=f"block_{n}") for n, w in enumerate(widths, 1)]
        self.enlargements = [
            Enlargement(w, dtype=self.dtype_policy, name=f"enlargement_{n}")
            for n, w in enumerate((widths[0], width), 1)
        ]

    def build(self, input_shape: Shape) -> None:
        """Creates the weights."""
        del input_shape
        self.time_code.build((None,))
        width = self.width
        for block in self.blocks:
            block.build((None, None, None, width), (None, WIDE_CODE))
            width = block.filters
        for enlargement in self.enlargements:
            enlargement.build((None, None, None, width))
            width = enlargement.block.filters

    def call(self, x: Any, steps: Any, condition: Any, training: bool | None = None) -> Any:
        """The estimate for latents `(N, h, w, width)` of the diffusion steps `(N,)`, given a condition like them."""
        code = self.time_code(steps)
        first = self.blocks[0](pool(x), code, training=training)
        deepest = self.blocks[1](pool(first), code, training=training)
        enlarged = self.enlargements[0](deepest, first, code, training=training)
        return self.enlargements[1](enlarged, x + condition, code, training=training)


@keras.saving.register_keras_serializable(package="keras_semimed")
class LabelRectifier(keras.layers.Layer):
    """Better label maps from coarse ones and their image (Liu et al., DiffRect, 2024, as their code has it).

    A contracting network takes image and coarse labels to five levels, to which an embedder of the image alone adds
    its own; the deepest level, a latent of a 16th of the side, is the condition under which a denoiser estimates the
    latent of better labels, which the coarse levels are expanded from. In training the better labels, the guide, are
    given: their latent is noised, and the denoiser learns what it was. Without guide a latent is sampled from noise.
    The time says how coarse the labels are; it is the same for all images.

    Args:
        num_classes: classes K, background included.
        widths: channels of the five levels, finest first.
        denoiser_widths: channels of the denoiser's two deeper levels.
        image_channels: channels that images go in with: 3, to which grey ones are repeated, or 1 for grey ones alone.
        diffusion: a `LatentDiffusion`; None: one with its defaults.
        seed: non-negative integer, of the dropout and of that `LatentDiffusion`.

    Raises:
        ValueError: for an argument out of its range.
    """

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[int] = (16, 32, 64, 128, 256),
        denoiser_widths: Sequence[int] = (384, 512),
        image_channels: int = 3,
        diffusion: LatentDiffusion | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        check_whole("num_classes", num_classes, 2)
        check_whole("seed", seed, 0)
        for name, given, count in (("widths", widths, len(DROPOUTS)), ("denoiser_widths", denoiser_widths, 2)):
            if len(given) != count or min(given) < 1:
                raise ValueError(f"`{name}` must be {count} positive numbers, found {tuple(given)!r}.")
        if image_channels not in (1, 3):
            raise ValueError(f"`image_channels` must be 1 or 3, found {image_channels!r}.")
        self.num_classes = num_classes
        self.widths = tuple(widths)
        self.denoiser_widths = tuple(denoiser_widths)
        self.image_channels = image_channels
        self.seed = seed
        if isinstance(diffusion, dict):
            diffusion = keras.saving.deserialize_keras_object(diffusion)
        self.diffusion = LatentDiffusion(seed=seed, name="diffusion") if diffusion is None else diffusion
        options = {"dtype": self.dtype_policy}
        self.normalization = ImageNormalization(**options)
        self.time_code = TimeCode(name="time_code", **options)
        # Nothing here may be called an encoder: optimizers give what is one another learning rate.
        self.embedder = Contraction(self.widths, seed + 1, name="embedder", **options)
        self.contraction = Contraction(self.widths, seed + 1 + len(DROPOUTS), name="contraction", **options)
        self.denoiser = LatentDenoiser(self.widths[-1], self.denoiser_widths, name="denoiser", **options)
        self.expansion = [
            Enlargement(width, name=f"expansion_{level}", **options)
            for level, width in enumerate(reversed(self.widths[:-1]), 1)
        ]
        self.head = keras.layers.Conv2D(
            num_classes, 3, padding="same", data_format="channels_last", dtype="float32", name="head"
        )
        self.build()

    def build(self, input_shape: Shape | None = None) -> None:
        """Creates all weights."""
        del input_shape
        self.time_code.build((None,))
        self.embedder.build((None, None, None, self.image_channels))
        self.contraction.build((None, None, None, self.image_channels + COLOURS))
        self.denoiser.build((None, None, None, self.widths[-1]))
        width = self.widths[-1]
        for enlargement in self.expansion:
            enlargement.build((None, None, None, width))
            width = enlargement.block.filters
        self.head.build((None, None, None, width))

    def call(
        self,
        colours: Any,
        time: Any,
        images: Any,
        guide: Any = None,
        steps: Any = None,
        noise: Any = None,
        training: bool | None = None,
    ) -> dict[str, Any]:
        """Rectifies labels; gradient flows into the weights alone.

        Args:
            colours: coarse labels, painted. Shape: `(N, S, S, 3)`, 0..1.
            time: how coarse they are, 0 to 999. Scalar.
            images: in 0..255. Shape: `(N, S, S, 1 or 3)`.
            guide: better labels, painted; None: the latent is sampled. Shape: `(N, S, S, 3)`.
            steps: of the diffusion, of each image; None: drawn. Shape: `(N,)`, integers.
            noise: standard normal numbers, of the latent's shape `(N, S/16, S/16, widths[-1])`; None: drawn.
            training: whether BatchNorm uses the statistics of the batch, and numbers are dropped.

        Returns:
            `"mask_logits"` `(N, S, S, K)` float32, and `"latent_loss"`, scalar float32: mean square of the denoiser's
            error, 0 without a guide.

        Raises:
            ValueError: for images of other channels, or labels that are not painted or not of their size.
        """
        if images.shape[-1] not in (1, self.image_channels):
            raise ValueError(
                f"`images` must have 1 channel or `image_channels`, {self.image_channels}, found {images.shape[-1]}."
            )
        for name, painted in (("colours", colours), ("guide", guide)):
            expected = (*tuple(images.shape)[:-1], COLOURS)
            if painted is not None and not shapes_agree(tuple(painted.shape), expected):
                raise ValueError(f"`{name}` must be {expected}, like the images, found {tuple(painted.shape)}.")
        code = self.time_code(ops.reshape(ops.cast(time, "float32"), (1,)))
        images = ops.stop_gradient(self.normalization(images)[..., : self.image_channels])
        embedded = self.embedder(images, code, training=training)
        levels = self._levels(images, colours, code, embedded, training)
        condition = levels[-1]

        def denoise(latent: Any, steps: Any) -> Any:
            return self.denoiser(latent, steps, condition, training=training)

        if steps is None or noise is None:
            drawn = self.diffusion.draw(condition)
            steps, noise = (own if given is None else given for own, given in zip(drawn, (steps, noise), strict=True))
        if guide is None:
            estimate, latent_loss = self.diffusion.sample(denoise, noise)[-1], ops.zeros(())
        else:
            with backend.no_gradients():
                latent = ops.cast(self._levels(images, guide, code, embedded, training)[-1], "float32")
            latent = ops.stop_gradient(latent)
            estimate = denoise(self.diffusion.noised(latent, steps, noise), steps)
            latent_loss = ops.mean(ops.square(ops.cast(estimate, "float32") - latent))
        x = ops.cast(estimate, self.compute_dtype)
        for enlargement, skip in zip(self.expansion, reversed(levels[:-1]), strict=True):
            x = enlargement(x, skip, code, training=training)
        return {"mask_logits": self.head(ops.cast(x, "float32")), "latent_loss": latent_loss}

    def _levels(self, images: Any, colours: Any, code: Any, embedded: Any, training: bool | None) -> list[Any]:
        """The contracting network's levels of images with painted labels, f_0 to f_4."""
        colours = ops.stop_gradient(ops.cast(colours, images.dtype))
        return self.contraction(ops.concatenate([images, colours], axis=-1), code, embedded, training=training)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "widths": self.widths,
            "denoiser_widths": self.denoiser_widths,
            "image_channels": self.image_channels,
            "diffusion": keras.saving.serialize_keras_object(self.diffusion),
            "seed": self.seed,
        }


def pool(x: Any) -> Any:
    """2x2 max-pooling, odd sides rounded up: `(N, h, w, C)` to `(N, ceil(h / 2), ceil(w / 2), C)`."""
    return ops.max_pool(x, (2, 2), (2, 2), padding="same", data_format="channels_last")
