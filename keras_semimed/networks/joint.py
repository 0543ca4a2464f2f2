"""A segmentation network and a classifier that exchange attention and saliency (Hermes, Sec. 3.1 and 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import arguments_config, check_choice
from keras_semimed.layers.attention import InterTaskAttention
from keras_semimed.layers.saliency import SaliencyMap
from keras_semimed.networks.classifier import Classifier
from keras_semimed.networks.contract import Network
from keras_semimed.networks.encoders import encoder_config
from keras_semimed.networks.segmentation import segmentation_network, separate_encoder

EXCHANGES = ("both", "seg_to_cls", "cls_to_seg", "none")
ATTENTION_LEVELS = ("P1", "P2", "P3", "P4")


@keras.saving.register_keras_serializable(package="keras_semimed")
class JointNetwork(Network, keras.layers.Layer):
    """Two encoders, a decoder and a classifier that exchange attention and saliency.

    Information flows without a circle: the segmentation encoder's features steer the classifier (inter-task attention,
    Eq. 3-5), the classifier's input gradient (saliency, Eq. 6) enters the segmentation decoder.

    Args:
        num_classes: number of mask classes, background included.
        num_labels: number of image classes.
        encoder: name, or a Keras model with named feature levels (see `keras_semimed.networks.encoder`); both branches
            have their own copy.
        weights: start weights of both encoders: preset name, local file or None.
        decoder_filters: channels of the decoder, see `segmentation_network`.
        exchange: `"both"`, `"seg_to_cls"` (attention only), `"cls_to_seg"` (saliency only) or `"none"`.
        saliency_level: decoder level that the saliency map is concatenated to (Table 6; `"P2"` is 1/4).
        saliency_image: concatenate the RGB image beside the saliency map.
        stop_gradient_between_tasks: keep the classification loss out of the segmentation encoder.
        zero_saliency: put zeros in the place of the saliency map, for runtimes that cannot differentiate; a network
            that was trained with the map predicts a little differently then.
        network: of the segmentation, `"unet"` or `"deeplab"`; a saliency map needs a U-Net.
        output_stride: of a DeepLab's encoder.

    Raises:
        ValueError: for an unknown exchange, level or network, fewer than two image classes, decoder filters that do not
            fit, or a saliency map without a U-Net.
    """

    logits = {"mask_logits": "decoded", "label_logits": "pooled"}

    def __init__(
        self,
        num_classes: int = 2,
        num_labels: int = 2,
        encoder: str | dict[str, Any] | keras.Model = "resnet18",
        weights: str | None = None,
        decoder_filters: int | Sequence[int] | None = None,
        exchange: str = "both",
        saliency_level: str = "P2",
        saliency_image: bool = True,
        stop_gradient_between_tasks: bool = False,
        zero_saliency: bool = False,
        network: str = "unet",
        output_stride: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        check_choice("exchange", exchange, EXCHANGES)
        check_choice("saliency_level", saliency_level, ATTENTION_LEVELS)
        self.num_classes = num_classes
        self.num_labels = num_labels
        self.encoder = encoder_config(encoder)
        self.exchange = exchange
        self.has_attention = exchange in ("both", "seg_to_cls")
        self.has_saliency = exchange in ("both", "cls_to_seg")
        self.saliency_level = saliency_level
        self.saliency_image = saliency_image
        self.stop_gradient_between_tasks = stop_gradient_between_tasks
        self.zero_saliency = zero_saliency
        self.network = network
        self.output_stride = output_stride
        self.segmentation = segmentation_network(
            network,
            num_classes,
            encoder,
            weights,
            decoder_filters,
            output_stride,
            {saliency_level: 4 if saliency_image else 1} if self.has_saliency else None,
            dtype=self.dtype_policy,
        )
        self.decoder_filters = self.segmentation.decoder_filters
        self.image_multiple = max(Network.image_multiple, self.segmentation.image_multiple)
        self.classification = Classifier(
            separate_encoder("classification", encoder, weights, dtype=self.dtype_policy),
            num_labels,
            dtype=self.dtype_policy,
            name="classification",
        )
        if self.has_attention:
            self.attentions = [
                InterTaskAttention(dtype=self.dtype_policy, name=f"classification_attention_{level.lower()}")
                for level in ATTENTION_LEVELS
            ]
            for level, attention in zip(ATTENTION_LEVELS, self.attentions, strict=True):
                attention.build(
                    (None, None, None, self.classification.widths[level]),
                    (None, None, None, self.segmentation.widths[level]),
                )
        if self.has_saliency:
            self.saliency = SaliencyMap(name="saliency")
        self.built = True

    def encode(self, images: Any, training: bool | None = None, attended: Any = None) -> dict[str, Any]:
        """The segmentation encoder's levels, and what the classifier needs beside them.

        Args:
            images: `(N, H, W, 1 or 3)` in 0..255, H and W multiples of 32.
            training: batch statistics (True) or moving ones.
            attended: `(N,)` with 1 where an image gets inter-task attention, None for all of them.
        """
        images = ops.cast(images, "float32")
        return {**self.segmentation.encode(images, training=training), "images": images, "attended": attended}

    def represent(
        self, features: Mapping[str, Any], training: bool | None = None, maps: bool = False
    ) -> dict[str, Any]:
        """`"decoded"` and `"pooled"`; with `maps` also what the branches exchange.

        Args:
            features: what `encode` returned.
            training: batch statistics (True) or moving ones.
            maps: also return `saliency` `(N, H, W, 1)`, `channel_attention` and `spatial_attention` (lists, one entry
                a level).
        """
        levels = {name: value for name, value in features.items() if name.startswith("P")}
        normalized = self.segmentation.normalization(features["images"])
        steering = {
            name: ops.stop_gradient(value) if self.stop_gradient_between_tasks else value
            for name, value in levels.items()
        }
        outputs, attention_maps = self._classify(normalized, steering, features["attended"], training)
        if maps and self.has_attention:
            outputs["channel_attention"] = [channel for channel, _ in attention_maps]
            outputs["spatial_attention"] = [spatial for _, spatial in attention_maps]
        extra = None
        if self.has_saliency:
            saliency = self._saliency(features["images"], levels, features["attended"])
            extra = self._saliency_features(saliency, normalized, levels)
            if maps:
                outputs["saliency"] = saliency
        return {**outputs, **self.segmentation.represent({**levels, "extra": extra}, training=training)}

    def classify(self, represented: Mapping[str, Any], size: tuple[Any, Any]) -> dict[str, Any]:
        """`"mask_logits"` `(N, *size, K)` and `"label_logits"` `(N, C)` of the representations that are given."""
        outputs = self.classification.classify(represented) if "pooled" in represented else {}
        return {**outputs, **(self.segmentation.classify(represented, size) if "decoded" in represented else {})}

    def call(self, images: Any, attended: Any = None, training: bool | None = None) -> dict[str, Any]:
        """Everything that `decode` gives for images `(N, H, W, 1 or 3)` in 0..255."""
        features = self.encode(images, training=training, attended=attended)
        return self.decode(features, ops.shape(images)[1:3], training=training)

    def _classify(
        self, normalized: Any, features: Mapping[str, Any], attended: Any, training: bool | None
    ) -> tuple[dict[str, Any], list[tuple[Any, Any]]]:
        maps: list[tuple[Any, Any]] = []

        def steer(level: str, x: Any) -> Any:
            if not self.has_attention or level not in ATTENTION_LEVELS:
                return x
            attention = self.attentions[ATTENTION_LEVELS.index(level)]
            steered, channel, spatial = attention(x, features[level], return_maps=True)
            maps.append((channel, spatial))
            if attended is None:
                return steered
            gate = ops.cast(ops.reshape(attended, (-1, 1, 1, 1)), x.dtype)
            return gate * steered + (1 - gate) * x

        levels = self.classification.run_stages(normalized, training, steer)
        return self.classification.represent(levels), maps

    def _saliency(self, images: Any, features: Mapping[str, Any], attended: Any) -> Any:
        """Eq. 6: `(N, H, W, 1)`."""
        constant = {name: ops.stop_gradient(value) for name, value in features.items()}

        def score(x: Any) -> Any:
            pooled, _ = self._classify(self.segmentation.normalization(x), constant, attended, training=False)
            return self.classification.classify(pooled)["label_logits"]

        return ops.zeros_like(images[..., :1]) if self.zero_saliency else self.saliency(images, score=score)

    def _saliency_features(self, saliency: Any, normalized: Any, features: Mapping[str, Any]) -> dict[str, Any]:
        """What is concatenated to the decoder, `{level: (N, h, w, 1 or 4)}`."""
        parts = [ops.cast(saliency, self.compute_dtype)]
        if self.saliency_image:
            parts.append(ops.cast(normalized, self.compute_dtype))
        size = ops.shape(features[self.saliency_level])[1:3]
        joined = ops.concatenate(parts, axis=-1)
        resized = ops.image.resize(joined, size, interpolation="bilinear", data_format="channels_last")
        return {self.saliency_level: resized}

    def for_inference(self, saliency: bool = True, attention: bool = True) -> JointNetwork:
        """A network of its own with these weights.

        Args:
            saliency: False puts zeros in the place of the saliency map.
            attention: False leaves inter-task attention out.
        """
        without = {"both": "cls_to_seg", "seg_to_cls": "none"}
        changes = {
            "name": "network",
            "exchange": self.exchange if attention else without.get(self.exchange, self.exchange),
            "zero_saliency": self.zero_saliency or not saliency,
        }
        network = JointNetwork.from_config({**self.get_config(), **changes})
        for name, layers in network.parts.items():
            for new, old in zip(layers, self.parts[name], strict=True):
                new.set_weights(old.get_weights())
        return network

    @property
    def widths(self) -> dict[str, int]:
        """Channels of the segmentation's levels, of `"decoded"` and of `"pooled"`."""
        return {**self.segmentation.widths, "pooled": self.classification.widths["pooled"]}

    @property
    def label_head(self) -> keras.layers.Dense:
        """The layer that makes the logits of the image classes."""
        return self.classification.label_head

    @property
    def encoders(self) -> list[keras.layers.Layer]:
        """Of segmentation and classification."""
        return [*self.segmentation.encoders, *self.classification.encoders]

    @property
    def parts(self) -> dict[str, list[keras.layers.Layer]]:
        """Those of both branches, and the attention between them."""
        attentions = {"attentions": list(self.attentions)} if self.has_attention else {}
        return {**self.segmentation.parts, **self.classification.parts, **attentions}

    def get_build_config(self) -> dict[str, Any]:
        """Nothing: a network is built when it is made."""
        return {}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Nothing is left to build."""

    def get_config(self) -> dict[str, Any]:
        """Arguments of the network; start weights are in the saved weights."""
        return {**super().get_config(), **arguments_config(self)}
