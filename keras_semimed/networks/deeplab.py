"""DeepLabV3+ (Chen et al., 2018) on an image encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from keras import ops

from keras_semimed.networks.contract import Network
from keras_semimed.networks.encoders import encoder_config, pyramid
from keras_semimed.networks.heads import ImageNormalization

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="keras_semimed")
class ConvolutionBlock(keras.layers.Layer):
    """Convolution, batch normalisation (momentum 0.9), ReLU: `(N, H, W, C)` to `(N, H, W, filters)`."""

    def __init__(self, filters: int, kernel_size: int = 1, dilation_rate: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.dilation_rate = dilation_rate
        self.convolution = keras.layers.Conv2D(
            filters,
            kernel_size,
            padding="same",
            dilation_rate=dilation_rate,
            use_bias=False,
            kernel_initializer="he_normal",
            data_format="channels_last",
            dtype=self.dtype_policy,
        )
        self.normalization = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        """Creates the weights for the number of channels in `input_shape`."""
        self.convolution.build(input_shape)
        self.normalization.build((*input_shape[:-1], self.filters))

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Applies the block."""
        return ops.relu(self.normalization(self.convolution(x), training=training))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns `(N, H, W, filters)`."""
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dilation_rate": self.dilation_rate,
        }


@keras.saving.register_keras_serializable(package="keras_semimed")
class RepresentationHead(keras.layers.Layer):
    """Embeddings of pixels, of U2PL: two `ConvolutionBlock`s of 3x3 and a 1x1 convolution.

    Input: `(N, h, w, C)`. Output: `(N, h, w, units)` float32, not normalised.

    Args:
        units: channels of all three.
    """

    def __init__(self, units: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.blocks = [ConvolutionBlock(units, 3, dtype=self.dtype_policy) for _ in range(2)]
        self.output_layer = keras.layers.Conv2D(units, 1, data_format="channels_last", dtype="float32")

    def build(self, input_shape: Shape) -> None:
        """Creates the weights for the number of channels in `input_shape`."""
        shape = tuple(input_shape)
        for block in self.blocks:
            block.build(shape)
            shape = (*shape[:-1], self.units)
        self.output_layer.build(shape)

    def call(self, features: Any, training: bool | None = None) -> Any:
        """Embeddings of features."""
        for block in self.blocks:
            features = block(features, training=training)
        return self.output_layer(ops.cast(features, "float32"))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns `(N, h, w, units)`."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="keras_semimed")
class DeepLabV3PlusDecoder(keras.layers.Layer):
    """Atrous spatial pyramid pooling on P5, joined with P2, refined at a quarter of the image's size.

    Five branches look at P5: a 1x1 convolution, three dilated 3x3 convolutions and the mean of the whole map; a 1x1
    convolution joins them. The result is enlarged to P2's size, concatenated with 48 channels of P2 and refined by two
    3x3 convolutions.

    Input: `{"P2": (N, h, w, C2), "P5": (N, h', w', C5), ...}`. Output: `(N, h, w, filters)`.

    Args:
        filters: channels of the pyramid and of the output.
        rates: dilations of the 3x3 branches; the standard ones belong to output stride 16.
        low_level_filters: channels that P2 is reduced to.
    """

    def __init__(
        self, filters: int = 256, rates: Sequence[int] = (6, 12, 18), low_level_filters: int = 48, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.rates = tuple(rates)
        self.low_level_filters = low_level_filters
        policy = self.dtype_policy
        self.branches = [ConvolutionBlock(filters, 1, dtype=policy)]
        self.branches += [ConvolutionBlock(filters, 3, rate, dtype=policy) for rate in self.rates]
        self.pooling = ConvolutionBlock(filters, 1, dtype=policy)
        self.joining = ConvolutionBlock(filters, 1, dtype=policy)
        self.low_level = ConvolutionBlock(low_level_filters, 1, dtype=policy)
        self.refinement = [ConvolutionBlock(filters, 3, dtype=policy) for _ in range(2)]

    def build(self, features_shape: Mapping[str, Sequence[Any]]) -> None:
        """Creates the weights.

        Raises:
            ValueError: the features lack P2 or P5.
        """
        if not {"P2", "P5"} <= set(features_shape):
            raise ValueError(f"`features` must hold P2 and P5, found {sorted(features_shape)}.")
        deep, fine = features_shape["P5"][-1], features_shape["P2"][-1]
        for branch in (*self.branches, self.pooling):
            branch.build((None, None, None, deep))
        self.joining.build((None, None, None, self.filters * (len(self.branches) + 1)))
        self.low_level.build((None, None, None, fine))
        for block, channels in zip(self.refinement, (self.filters + self.low_level_filters, self.filters), strict=True):
            block.build((None, None, None, channels))

    def call(self, features: Mapping[str, Any], training: bool | None = None) -> Any:
        """Decodes; returns `(N, h, w, filters)` in the compute dtype."""
        deep, fine = features["P5"], features["P2"]
        branches = [branch(deep, training=training) for branch in self.branches]
        mean = ops.mean(ops.cast(deep, "float32"), axis=(1, 2), keepdims=True)
        pooled = self.pooling(ops.cast(mean, self.compute_dtype), training=training)
        branches.append(ops.broadcast_to(pooled, ops.shape(branches[0])))
        x = self.joining(ops.concatenate(branches, axis=-1), training=training)
        x = resize_to(x, ops.shape(fine)[1:3])
        x = ops.concatenate([x, self.low_level(fine, training=training)], axis=-1)
        for block in self.refinement:
            x = block(x, training=training)
        return x

    def compute_output_shape(self, features_shape: Mapping[str, Shape]) -> Shape:
        """Returns `(N, h, w, filters)`."""
        return (*features_shape["P2"][:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "rates": self.rates,
            "low_level_filters": self.low_level_filters,
        }


@keras.saving.register_keras_serializable(package="keras_semimed")
class DeepLabV3Plus(Network, keras.Model):
    """Segmentation network: normalisation, dilated encoder, `DeepLabV3PlusDecoder`, 1x1 convolution.

    Input: images `(N, H, W, 1 or 3)` in 0..255, any dtype, of any size from 32 pixels on (321 as well as 320). Output:
    logits `(N, H, W, num_classes)`, float32 under every dtype policy, enlarged bilinearly (half-pixel centres) from a
    quarter of the size.

    Args:
        encoder: what `pyramid` takes: a name such as "resnet50", a keras-hub backbone, or a functional Keras model with
            named feature levels, P2 among them.
        num_classes: classes, background included.
        output_stride: 32, 16 or 8: the stride of P5; only with a name.
        weights: initial weights of the encoder, as in `networks.encoder`; not part of the config, because a saved model
            carries its own.
        decoder_filters: channels of the pyramid and of the decoder.
        rates: dilations of the pyramid's 3x3 branches; None: 6, 12, 18 scaled by 16 / output_stride, as is usual.

    Raises:
        ValueError: unknown encoder, weights or output stride; an encoder without P2.
    """

    image_multiple = 1
    logits = {"mask_logits": "decoded"}

    def __init__(
        self,
        encoder: str | dict[str, Any] | keras.Model = "resnet50",
        num_classes: int = 2,
        output_stride: int = 16,
        weights: str | Path | None = None,
        decoder_filters: int = 256,
        rates: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        by_name = isinstance(encoder, str)
        if not isinstance(decoder_filters, int) or decoder_filters < 1:
            raise ValueError(f"`decoder_filters` must be a whole number of at least 1, found {decoder_filters!r}.")
        self.num_classes = num_classes
        self.output_stride = output_stride
        self.decoder_filters = decoder_filters
        self.rates = tuple(rates) if rates else tuple(rate * 16 // output_stride for rate in (6, 12, 18))
        self.normalization = ImageNormalization(dtype=self.dtype_policy)
        self.encoder = pyramid(encoder, weights, output_stride if by_name else 32, dtype=self.dtype_policy)
        self.encoder_config = encoder_config(encoder if by_name else self.encoder)
        self.decoder = DeepLabV3PlusDecoder(decoder_filters, self.rates, dtype=self.dtype_policy)
        self.head = keras.layers.Conv2D(num_classes, 1, data_format="channels_last", dtype="float32")
        self.build((None, None, None, 3))

    def build(self, input_shape: Shape) -> None:
        """Creates the weights of decoder and head."""
        self.decoder.build({level: tensor.shape for level, tensor in self.encoder.output.items()})
        self.head.build((None, None, None, self.decoder_filters))

    def encode(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        """The encoder's levels, from images `(N, H, W, 1 or 3)` in 0..255."""
        for pixels in images.shape[1:3]:
            if pixels is not None and pixels < 32:
                raise ValueError(f"`images` must be at least 32 pixels high and wide, found {images.shape[1:3]}.")
        return self.encoder(self.normalization(images), training=training)

    def represent(self, features: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """`"decoded"`: `(N, ceil(H/4), ceil(W/4), decoder_filters)` in the compute dtype."""
        return {"decoded": self.decoder(features, training=training)}

    def classify(self, represented: Mapping[str, Any], size: tuple[Any, Any]) -> dict[str, Any]:
        """`"mask_logits"` at the given size: `(N, *size, num_classes)`, float32."""
        return {"mask_logits": resize_to(self.head(represented["decoded"]), size)}

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Segments images `(N, H, W, 1 or 3)` in 0..255; returns logits `(N, H, W, num_classes)`, float32."""
        features = self.encode(images, training=training)
        return self.decode(features, ops.shape(images)[1:3], training=training)["mask_logits"]

    @property
    def widths(self) -> dict[str, int]:
        """Channels of the levels and of `"decoded"`."""
        levels = {level: tensor.shape[-1] for level, tensor in self.encoder.output.items()}
        return {**levels, "decoded": self.decoder_filters}

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
            "output_stride": self.output_stride,
            "decoder_filters": self.decoder_filters,
            "rates": self.rates,
        }

    def compute_output_spec(self, images: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """Returns the symbolic output `(N, H, W, num_classes)`, float32."""
        return keras.KerasTensor((*images.shape[:-1], self.num_classes), dtype="float32")


def resize_to(x: Any, size: tuple[Any, Any]) -> Any:
    """Bilinear enlargement with half-pixel centres: `(N, h, w, C)` to `(N, *size, C)`, the arithmetic in float32."""
    # TensorFlow's gradient of a half-precision resize is float32, which XLA refuses.
    enlarged = ops.image.resize(
        ops.cast(x, "float32"), tuple(size), interpolation="bilinear", data_format="channels_last"
    )
    return ops.cast(enlarged, x.dtype)
