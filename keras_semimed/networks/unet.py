"""U-Net (Ronneberger et al., 2015) on an image encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_choice
from keras_semimed.networks.contract import Network
from keras_semimed.networks.encoders import check_image_size, encoder_config, pyramid
from keras_semimed.networks.heads import ImageNormalization

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="keras_semimed")
class DecoderBlock(keras.layers.Layer):
    """Two times 3x3 convolution, batch normalisation (momentum 0.9), ReLU: `(N, H, W, C)` to `(N, H, W, filters)`."""

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.convolutions = [
            keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
                data_format="channels_last",
                dtype=self.dtype_policy,
            )
            for _ in range(2)
        ]
        self.normalizations = [
            keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=self.dtype_policy) for _ in range(2)
        ]

    def build(self, input_shape: Shape) -> None:
        """Creates the weights for the number of channels in `input_shape`."""
        shape = tuple(input_shape)
        for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True):
            convolution.build(shape)
            shape = (*shape[:-1], self.filters)
            normalization.build(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Applies both convolutions."""
        for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True):
            x = ops.relu(normalization(convolution(x), training=training))
        return x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns `(N, H, W, filters)`."""
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable(package="keras_semimed")
class UNetDecoder(keras.layers.Layer):
    """Brings encoder features back to the size of the image.

    Block `i` doubles the resolution, concatenates the encoder's features of that level where there are any,
    and applies a `DecoderBlock`. With five filters it goes from P5 over P4, P3, P2, P1 to P0, the size of the image,
    where no encoder features are.

    Input: `{"P1": (N, H/2, W/2, C1), ..., "P5": (N, H/32, W/32, C5)}`; a level other than the deepest may be absent.
    Where two levels have the same size (a dilated encoder), nothing is enlarged between them; transposed convolutions
    need levels that halve.
    Output: `(N, H, W, filters[-1])`.

    Args:
        filters: channels of each block, deepest first; their number is the number of the deepest level.
        upsampling: `"bilinear"`, or `"transpose"`, a learnt transposed convolution (kernel and stride 2) to the
            channels of the block.

    Raises:
        ValueError: an unknown upsampling.
    """

    def __init__(
        self, filters: Sequence[int] = (256, 128, 64, 32, 16), upsampling: str = "bilinear", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_choice("upsampling", upsampling, ("bilinear", "transpose"))
        self.filters = tuple(filters)
        self.upsampling = upsampling
        self.deepest = f"P{len(self.filters)}"
        self.levels = tuple(f"P{level}" for level in reversed(range(len(self.filters))))
        self.blocks = [DecoderBlock(width, dtype=self.dtype_policy) for width in self.filters]
        self.transposed = [
            keras.layers.Conv2DTranspose(
                width, 2, strides=2, data_format="channels_last", dtype=self.dtype_policy, name=f"upsampling_{level}"
            )
            for level, width in zip(self.levels, self.filters, strict=True)
            if upsampling == "transpose"
        ]

    def build(
        self, features_shape: Mapping[str, Sequence[Any]], extra_shape: Mapping[str, Sequence[Any]] | None = None
    ) -> None:
        """Creates the weights.

        Args:
            features_shape: shape of each encoder level; only the channels matter.
            extra_shape: shape of each further input of a level, where `call` gets any.

        Raises:
            ValueError: the deepest level is missing, or an extra level is none of the decoder's.
        """
        extra_shape = extra_shape or {}
        if self.deepest not in features_shape:
            raise ValueError(f"`features` must hold {self.deepest}, found {sorted(features_shape)}.")
        if not set(extra_shape) <= set(self.levels):
            raise ValueError(f"`extra` must name levels among {self.levels}, found {sorted(extra_shape)}.")
        channels = features_shape[self.deepest][-1]
        for index, (level, block) in enumerate(zip(self.levels, self.blocks, strict=True)):
            if self.transposed:
                self.transposed[index].build((None, None, None, channels))
                channels = block.filters
            joined = [shapes[level][-1] for shapes in (features_shape, extra_shape) if level in shapes]
            block.build((None, None, None, channels + sum(joined)))
            channels = block.filters

    def call(
        self, features: Mapping[str, Any], extra: Mapping[str, Any] | None = None, training: bool | None = None
    ) -> Any:
        """What the last of `decode_levels` is: `(N, H, W, filters[-1])` in the compute dtype."""
        return self.decode_levels(features, extra, training)[self.levels[-1]]

    def decode_levels(
        self, features: Mapping[str, Any], extra: Mapping[str, Any] | None = None, training: bool | None = None
    ) -> dict[str, Any]:
        """Decodes.

        Args:
            features: encoder levels by name.
            extra: further maps to concatenate, by level ("P2" is 1/4 of the image), in that level's size; the same
                levels in every call.
            training: whether batch normalisation uses the statistics of the batch.

        Returns:
            What each block gives, by its level, deepest first, in the compute dtype.

        Raises:
            ValueError: two levels have the same size, and the upsampling is by transposed convolutions.
        """
        found = {}
        x = features[self.deepest]
        for index, (level, block) in enumerate(zip(self.levels, self.blocks, strict=True)):
            skip = features.get(level)
            if skip is None or x.shape[1] is None or skip.shape[1] != x.shape[1]:
                x = self.transposed[index](x) if self.transposed else _double(x)
            elif self.transposed:
                raise ValueError(
                    f"`features` must halve in size from level to level for transposed convolutions, found {level} as "
                    "small as the level below; take an encoder that is not dilated."
                )
            joined = [x] + [maps[level] for maps in (features, extra or {}) if level in maps]
            x = block(ops.concatenate(joined, axis=-1) if len(joined) > 1 else x, training=training)
            found[level] = x
        return found

    def compute_output_shape(
        self, features_shape: Mapping[str, Shape], extra_shape: Mapping[str, Shape] | None = None
    ) -> Shape:
        """Returns `(N, H, W, filters[-1])`."""
        finest = min(features_shape)
        scale = 2 ** int(finest[1:])
        batch, *size, _ = features_shape[finest]
        return (batch, *(None if pixels is None else scale * pixels for pixels in size), self.filters[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "filters": self.filters, "upsampling": self.upsampling}


@keras.saving.register_keras_serializable(package="keras_semimed")
class UNet(Network, keras.Model):
    """Segmentation network: normalisation, encoder, `UNetDecoder`, 1x1 convolution.

    Input: images `(N, H, W, 1 or 3)` in 0..255, any dtype, H and W multiples of 32. Output: logits
    `(N, H, W, num_classes)`, float32 under every dtype policy.

    Args:
        encoder: what `pyramid` takes: a name such as "resnet18", a keras-hub backbone, or a functional Keras model with
            named feature levels.
        num_classes: classes, background included.
        weights: initial weights of the encoder, as in `networks.encoder`; not part of the config, because a saved model
            carries its own.
        decoder_filters: channels of the decoder's five blocks, deepest first.
        extra_channels: channels of the maps that `represent` finds in `features["extra"]` beside the encoder's, by
            level.

    Raises:
        ValueError: unknown encoder or weights, or an image size that is no multiple of 32.
    """

    logits = {"mask_logits": "decoded"}

    def __init__(
        self,
        encoder: str | dict[str, Any] | keras.Model = "resnet18",
        num_classes: int = 2,
        weights: str | Path | None = None,
        decoder_filters: Sequence[int] = (256, 128, 64, 32, 16),
        extra_channels: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.num_classes = num_classes
        self.decoder_filters = tuple(decoder_filters)
        if not 1 <= len(self.decoder_filters) <= 5 or min(self.decoder_filters) < 1:
            raise ValueError(f"`decoder_filters` must be one to five positive numbers, found {decoder_filters}.")
        self.extra_channels = dict(extra_channels or {})
        self.normalization = ImageNormalization(dtype=self.dtype_policy)
        self.encoder = pyramid(encoder, weights, dtype=self.dtype_policy)
        self.encoder_config = encoder_config(encoder if isinstance(encoder, str) else self.encoder)
        self.decoder = UNetDecoder(self.decoder_filters, dtype=self.dtype_policy)
        self.head = keras.layers.Conv2D(num_classes, 1, data_format="channels_last", dtype="float32")
        self.build((None, None, None, 3))

    def build(self, input_shape: Shape) -> None:
        """Creates the weights of decoder and head."""
        extra = {level: (None, None, None, channels) for level, channels in self.extra_channels.items()}
        self.decoder.build({level: tensor.shape for level, tensor in self.encoder.output.items()}, extra)
        self.head.build((None, None, None, self.decoder_filters[-1]))

    def encode(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        """The encoder's levels, from images `(N, H, W, 1 or 3)` in 0..255."""
        if None not in images.shape[1:3]:
            check_image_size(tuple(images.shape[1:3]))
        return self.encoder(self.normalization(images), training=training)

    def represent(self, features: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """`"decoded"` `(N, H, W, decoder_filters[-1])`, and the decoder's levels before it, `"D4"` to `"D1"`.

        `features["extra"]` holds further maps by level.
        """
        return decoded_levels(self.decoder.decode_levels(features, extra=features.get("extra"), training=training))

    def classify(self, represented: Mapping[str, Any], size: tuple[Any, Any]) -> dict[str, Any]:
        """`"mask_logits"` `(N, H, W, num_classes)`; the decoder has the size of the images already."""
        del size
        return {"mask_logits": self.head(ops.cast(represented["decoded"], "float32"))}

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Segments images `(N, H, W, 1 or 3)` in 0..255; returns logits `(N, H, W, num_classes)`, float32."""
        features = self.encode(images, training=training)
        return self.decode(features, ops.shape(images)[1:3], training=training)["mask_logits"]

    @property
    def widths(self) -> dict[str, int]:
        """Channels of the levels, of `"decoded"` and of the decoder's levels before it, `"D4"` (1/16) to `"D1"`."""
        levels = {level: tensor.shape[-1] for level, tensor in self.encoder.output.items()}
        *before, last = zip(self.decoder.levels, self.decoder_filters, strict=True)
        return {**levels, "decoded": last[1], **{f"D{level[1:]}": width for level, width in before}}

    @property
    def encoders(self) -> list[keras.layers.Layer]:
        """The encoder."""
        return [self.encoder]

    @property
    def parts(self) -> dict[str, list[keras.layers.Layer]]:
        """Encoder, decoder and head."""
        return {"segmentation_encoder": [self.encoder], "decoder": [self.decoder], "mask_head": [self.head]}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, without `weights`."""
        return {
            **super().get_config(),
            "encoder": self.encoder_config,
            "num_classes": self.num_classes,
            "decoder_filters": self.decoder_filters,
            "extra_channels": self.extra_channels,
        }

    def compute_output_spec(self, images: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """Returns the symbolic output `(N, H, W, num_classes)`, float32."""
        return keras.KerasTensor((*images.shape[:-1], self.num_classes), dtype="float32")


def decoded_levels(levels: Mapping[str, Any], suffix: str = "") -> dict[str, Any]:
    """The outputs of a decoder's blocks, deepest first, under the names of a representation.

    Args:
        levels: what `UNetDecoder.decode_levels` returned.
        suffix: behind each name.

    Returns:
        `"decoded"`, the last of them, and the others as `"D4"` (1/16) to `"D1"`.
    """
    *before, last = levels
    return {f"decoded{suffix}": levels[last], **{f"D{level[1:]}{suffix}": levels[level] for level in before}}


def _double(x: Any) -> Any:
    """Bilinear enlargement by two with half-pixel centres: `(N, H, W, C)` to `(N, 2H, 2W, C)`."""
    height, width = ops.shape(x)[1:3]
    # TensorFlow's gradient of a half-precision resize is float32, which XLA refuses.
    enlarged = ops.image.resize(
        ops.cast(x, "float32"), (2 * height, 2 * width), interpolation="bilinear", data_format="channels_last"
    )
    return ops.cast(enlarged, x.dtype)
