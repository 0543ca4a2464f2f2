"""A U-Net with a second decoder, which only training needs (DCNet)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import arguments_config
from keras_semimed.networks.contract import Network
from keras_semimed.networks.encoders import encoder_config
from keras_semimed.networks.segmentation import segmentation_network
from keras_semimed.networks.unet import UNet, UNetDecoder, decoded_levels


@keras.saving.register_keras_serializable(package="keras_semimed")
class TwoDecoders(Network, keras.layers.Layer):
    """One encoder, two decoders that differ in how they enlarge (Chen et al., DCNet, 2023).

    The first decoder, with the encoder a `UNet`, enlarges bilinearly and predicts alone; the second one enlarges by
    transposed convolutions and has a head of its own. It is there in training, and else on request.

    Input: images `(N, H, W, 1 or 3)` in 0..255, any dtype, H and W multiples of 32.

    Args:
        num_classes: classes, background included.
        encoder: name, or a Keras model with named feature levels; a given model is copied.
        weights: start weights of the encoder: preset name, local file or None.
        decoder_filters: channels of both decoders' blocks, deepest first; None: 256, 128, 64, 32, 16.

    Raises:
        ValueError: unknown encoder or weights, decoder filters of another form, or an image size that is no multiple
            of 32.
    """

    logits = {"mask_logits": "decoded", "mask_logits_2": "decoded_2"}

    def __init__(
        self,
        num_classes: int = 2,
        encoder: str | dict[str, Any] | keras.Model = "resnet18",
        weights: str | None = None,
        decoder_filters: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.num_classes = num_classes
        self.encoder = encoder_config(encoder)
        made = segmentation_network("unet", num_classes, encoder, weights, decoder_filters, dtype=self.dtype_policy)
        assert isinstance(made, UNet)
        self.segmentation = made
        self.decoder_filters = made.decoder_filters
        self.second_decoder = UNetDecoder(
            self.decoder_filters, "transpose", dtype=self.dtype_policy, name="second_decoder"
        )
        self.second_decoder.build({level: tensor.shape for level, tensor in made.encoder.output.items()})
        self.second_head = keras.layers.Conv2D(
            num_classes, 1, data_format="channels_last", dtype="float32", name="second_head"
        )
        self.second_head.build((None, None, None, self.decoder_filters[-1]))
        self.built = True

    def encode(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        """The encoder's levels, from images `(N, H, W, 1 or 3)` in 0..255."""
        return self.segmentation.encode(images, training=training)

    def represent(
        self, features: Mapping[str, Any], training: bool | None = None, second: bool | None = None
    ) -> dict[str, Any]:
        """`"decoded"` `(N, H, W, decoder_filters[-1])` and the first decoder's levels before it, `"D4"` to `"D1"`.

        Args:
            features: what `encode` returned.
            training: batch statistics (True) or moving ones.
            second: also return `"decoded_2"` and `"D4_2"` to `"D1_2"` of the second decoder; None: in training.
        """
        outputs = self.segmentation.represent(features, training=training)
        if training if second is None else second:
            outputs |= decoded_levels(self.second_decoder.decode_levels(features, training=training), "_2")
        return outputs

    def classify(self, represented: Mapping[str, Any], size: tuple[Any, Any]) -> dict[str, Any]:
        """`"mask_logits"` and `"mask_logits_2"` `(N, H, W, num_classes)`, float32, of what is given."""
        outputs = self.segmentation.classify(represented, size) if "decoded" in represented else {}
        if "decoded_2" in represented:
            outputs["mask_logits_2"] = self.second_head(ops.cast(represented["decoded_2"], "float32"))
        return outputs

    def call(self, images: Any, training: bool | None = None, second: bool | None = None) -> dict[str, Any]:
        """Logits of images `(N, H, W, 1 or 3)` in 0..255; see `represent`."""
        represented = self.represent(self.encode(images, training=training), training=training, second=second)
        return self.classify(represented, ops.shape(images)[1:3])

    def for_inference(self, saliency: bool = True) -> UNet:
        """A `UNet` with the weights of the encoder and the first decoder."""
        return self.segmentation.for_inference(saliency)

    @property
    def widths(self) -> dict[str, int]:
        """Those of the `UNet`."""
        return self.segmentation.widths

    @property
    def encoders(self) -> list[keras.layers.Layer]:
        """The encoder."""
        return self.segmentation.encoders

    @property
    def parts(self) -> dict[str, list[keras.layers.Layer]]:
        """Those of the `UNet`, and the second decoder with its head."""
        second = {"second_decoder": [self.second_decoder], "second_mask_head": [self.second_head]}
        return {**self.segmentation.parts, **second}

    def get_build_config(self) -> dict[str, Any]:
        """Nothing: a network is built when it is made."""
        return {}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Nothing is left to build."""

    def get_config(self) -> dict[str, Any]:
        """Arguments of the network; start weights are in the saved weights."""
        return {**super().get_config(), **arguments_config(self)}
