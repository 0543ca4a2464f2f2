"""The network of LoCo: DeepLabV3+ whose features are also projected for contrast; without training logic."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.layers.projection import ProjectionHead
from keras_semimed.networks.deeplab import DeepLabV3Plus
from keras_semimed.networks.encoders import own_encoder


class ProjectedDeepLab(keras.layers.Layer):
    """DeepLabV3+ with a projector on the features before its classifier (LoCo, Eq. 7).

    The projector is a 1x1 convolution to 128 channels, ReLU and a 1x1 convolution to the embedding. Its output stays at
    a quarter of the image's size; `LowContrastLoss` does the enlargement of Eq. 7 in closed form.

    Args:
        num_classes: number of mask classes, background included.
        encoder: name, or a Keras model with named feature levels; a given model is copied.
        output_stride: stride of the encoder's last features, 8, 16 or 32; only with a name.
        weights: start weights of the encoder: preset name, local file or None.
        decoder_filters: channels of the decoder.
        embedding: width of the embeddings.
    """

    def __init__(
        self,
        num_classes: int = 2,
        encoder: str | dict | keras.Model = "resnet50",
        output_stride: int = 16,
        weights: str | None = None,
        decoder_filters: int = 256,
        embedding: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        by_name = isinstance(encoder, str)
        with keras.name_scope("encoder"):
            own = own_encoder(encoder, weights, output_stride if by_name else 32, self.dtype_policy)
        rates = tuple(rate * 16 // output_stride for rate in (6, 12, 18))
        self.segmentation = DeepLabV3Plus(
            own, num_classes, decoder_filters=decoder_filters, rates=rates, dtype=self.dtype_policy, name="segmentation"
        )
        self.projector = ProjectionHead(embedding, 128, dtype=self.dtype_policy, name="projector")
        self.projector.build((None, None, None, decoder_filters))

    @property
    def parts(self) -> dict[str, list[keras.layers.Layer]]:
        """The layers with weights, by what they are for."""
        return {
            "segmentation_encoder": [self.segmentation.encoder],
            "decoder": [self.segmentation.decoder],
            "mask_head": [self.segmentation.head],
            "projector": [self.projector],
        }

    def features(self, images: Any, training: bool | None = None) -> Any:
        """Decoder features of images `(N, H, W, 1 or 3)` in 0..255: `(N, ceil(H/4), ceil(W/4), decoder_filters)`."""
        return self.segmentation.features(images, training=training)

    def classify(self, features: Any, size: tuple[Any, Any]) -> Any:
        """Logits of decoder features at the given size: `(N, *size, K)` float32."""
        return self.segmentation.classify(features, size)

    def project(self, features: Any, training: bool | None = None) -> Any:
        """Embeddings of decoder features: `(N, h, w, embedding)`."""
        return self.projector(features, training=training)

    def call(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        """Segments images `(N, H, W, 1 or 3)` in 0..255; returns `{"mask_logits": (N, H, W, K)}`, float32."""
        size = ops.shape(images)[1:3]
        return {"mask_logits": self.classify(self.features(images, training=training), size)}

    def for_inference(self, saliency: bool = True) -> DeepLabV3Plus:
        """A network of its own with these weights and without the projector; there is no saliency to leave out."""
        del saliency
        segmentation = DeepLabV3Plus.from_config(self.segmentation.get_config())
        segmentation.set_weights(self.segmentation.get_weights())
        return segmentation
