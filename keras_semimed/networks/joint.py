"""The joint segmentation and classification network of Hermes (Sec. 3.1 and 3.2), without training logic."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import arguments_config
from keras_semimed.layers.attention import InterTaskAttention
from keras_semimed.layers.projection import ProjectionHead
from keras_semimed.layers.saliency import SaliencyMap
from keras_semimed.networks.encoders import check_image_size, encoder_config, own_encoder, stages
from keras_semimed.networks.heads import ImageNormalization
from keras_semimed.networks.unet import UNetDecoder

EXCHANGES = ("both", "seg_to_cls", "cls_to_seg", "none")
TASKS = ("both", "segmentation", "classification")
ATTENTION_LEVELS = ("P1", "P2", "P3", "P4")


@keras.saving.register_keras_serializable(package="keras_semimed")
class JointNetwork(keras.layers.Layer):
    """Two encoders, a U-Net decoder and a classifier that exchange attention and saliency.

    Information flows without a circle: the segmentation encoder's features steer the classifier
    (inter-task attention, Eq. 3-5), the classifier's input gradient (saliency, Eq. 6) enters the
    segmentation decoder.

    Args:
        num_classes: number of mask classes, background included.
        num_labels: number of image classes.
        encoder: name, or a Keras model with named feature levels (see `keras_semimed.networks.encoder`);
            both branches have their own copy.
        weights: start weights of both encoders: preset name, local file or None.
        decoder_filters: channels of the decoder's blocks, deepest first.
        exchange: `"both"`, `"seg_to_cls"` (attention only), `"cls_to_seg"` (saliency only) or `"none"`.
        tasks: `"both"`, `"segmentation"` or `"classification"`; one task alone has no exchange.
        saliency_level: decoder level that the saliency map is concatenated to (Table 6; `"P2"` is 1/4).
        saliency_image: concatenate the RGB image beside the saliency map.
        contrast_level: encoder level whose pixels are contrasted (Table 5; `"P3"` is 1/8), or None: no projectors.
        stop_gradient_between_tasks: keep the classification loss out of the segmentation encoder.
        zero_saliency: put zeros in the place of the saliency map, for runtimes that cannot differentiate; a network
            that was trained with the map predicts a little differently then.

    Raises:
        ValueError: for an unknown exchange, task or level, fewer than two image classes, or decoder filters that do
            not fit.
    """

    def __init__(
        self,
        num_classes: int = 2,
        num_labels: int = 2,
        encoder: str | keras.Model = "resnet18",
        weights: str | None = None,
        decoder_filters: tuple[int, ...] = (256, 128, 64, 32, 16),
        exchange: str = "both",
        tasks: str = "both",
        saliency_level: str = "P2",
        saliency_image: bool = True,
        contrast_level: str | None = "P3",
        stop_gradient_between_tasks: bool = False,
        zero_saliency: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        _check("exchange", exchange, EXCHANGES)
        _check("tasks", tasks, TASKS)
        _check("saliency_level", saliency_level, ATTENTION_LEVELS)
        if contrast_level is not None:
            _check("contrast_level", contrast_level, (*ATTENTION_LEVELS, "P5"))
        if tasks != "segmentation" and num_labels < 2:
            raise ValueError(f"`num_labels` must be at least 2. Received: {num_labels}.")
        if tasks != "both":
            exchange = "none"
        _check_decoder(decoder_filters, saliency_level if exchange in ("both", "cls_to_seg") else None)
        self.num_classes = num_classes
        self.num_labels = num_labels
        self.encoder = encoder_config(encoder)
        self.decoder_filters = tuple(decoder_filters)
        self.exchange = exchange
        self.tasks = tasks
        self.segments = tasks != "classification"
        self.classifies = tasks != "segmentation"
        self.has_attention = exchange in ("both", "seg_to_cls")
        self.has_saliency = exchange in ("both", "cls_to_seg")
        self.saliency_level = saliency_level
        self.saliency_image = saliency_image
        self.contrast_level = contrast_level
        self.stop_gradient_between_tasks = stop_gradient_between_tasks
        self.zero_saliency = zero_saliency

        self.normalization = ImageNormalization(dtype=self.dtype_policy)
        if self.segments:
            with keras.name_scope("segmentation"):
                self._create_segmentation(
                    num_classes, own_encoder(encoder, weights, dtype=self.dtype_policy), decoder_filters
                )
        if self.classifies:
            with keras.name_scope("classification"):
                self._create_classification(num_labels, own_encoder(encoder, weights, dtype=self.dtype_policy))

    def _create_segmentation(self, num_classes: int, encoder: keras.Model, filters: tuple[int, ...]) -> None:
        self.segmentation_encoder = encoder
        self.decoder = UNetDecoder(filters, dtype=self.dtype_policy, name="segmentation_decoder")
        self.mask_head = keras.layers.Conv2D(
            num_classes, 1, data_format="channels_last", dtype="float32", name="segmentation_head"
        )
        if self.contrast_level is not None:
            width = encoder.output[self.contrast_level].shape[-1]
            self.pixel_projector = ProjectionHead(
                256, width, batch_norm=True, dtype=self.dtype_policy, name="segmentation_pixel_projector"
            )
        if self.contrast_level is not None and self.classifies:
            self.segmentation_projector = ProjectionHead(
                128, 256, dtype=self.dtype_policy, name="segmentation_consistency_projector"
            )
        if self.has_saliency:
            self.saliency = SaliencyMap(name="saliency")

    def _create_classification(self, num_labels: int, encoder: keras.Model) -> None:
        self.classifier_stages = stages(encoder)
        self.label_head = keras.layers.Dense(num_labels, dtype="float32", name="classification_head")
        if self.has_attention:
            self.attentions = [
                InterTaskAttention(dtype=self.dtype_policy, name=f"classification_attention_{level.lower()}")
                for level in ATTENTION_LEVELS
            ]
        if self.contrast_level is not None:
            self.image_projector = ProjectionHead(
                128, 256, normalize=True, dtype=self.dtype_policy, name="classification_image_projector"
            )
        if self.contrast_level is not None and self.segments:
            self.classification_projector = ProjectionHead(
                128, 256, dtype=self.dtype_policy, name="classification_consistency_projector"
            )

    @property
    def parts(self) -> dict[str, list[keras.layers.Layer]]:
        """The layers with weights, by what they are for; a network has those that its switches ask for."""
        names = (
            "segmentation_encoder",
            "decoder",
            "mask_head",
            "pixel_projector",
            "segmentation_projector",
            "classifier_stages",
            "attentions",
            "label_head",
            "image_projector",
            "classification_projector",
        )
        return {name: keras.tree.flatten([getattr(self, name)]) for name in names if hasattr(self, name)}

    def call(
        self,
        images: Any,
        attended: Any = None,
        heads: bool = False,
        maps: bool = False,
        training: bool | None = None,
    ) -> dict[str, Any]:
        """Runs both branches.

        Args:
            images: `(N, H, W, 1 or 3)` in 0..255, H and W multiples of 32.
            attended: `(N,)` with 1 where an image gets inter-task attention, None for all of them.
            heads: also compute the embeddings that training contrasts.
            maps: also return saliency and attention maps.
            training: batch statistics (True) or moving ones.

        Returns:
            Dict with `mask_logits` `(N, H, W, K)` and `label_logits` `(N, C)`, float32; with `heads` also
            `pixel_embeddings` `(N, h, w, 256)`, `image_embeddings` `(N, 128)` and the two `consistency_*`
            `(N, 128)`; with `maps` also `saliency` `(N, H, W, 1)`, `channel_attention` and
            `spatial_attention` (a list, one entry a level).
        """
        if None not in images.shape[1:3]:
            check_image_size(tuple(images.shape[1:3]))
        images = ops.cast(images, "float32")
        normalized = self.normalization(images)
        outputs: dict[str, Any] = {}
        features: dict[str, Any] = {}
        if self.segments:
            features = self.segmentation_encoder(normalized, training=training)
        if self.classifies:
            steering = {k: ops.stop_gradient(v) if self.stop_gradient_between_tasks else v for k, v in features.items()}
            pooled, attention_maps = self._classify(normalized, steering, attended, training)
            outputs["label_logits"] = self.label_head(pooled)
            if maps and self.has_attention:
                outputs["channel_attention"] = [channel for channel, _ in attention_maps]
                outputs["spatial_attention"] = [spatial for _, spatial in attention_maps]
        if self.segments:
            extra = self._saliency_features(images, normalized, features, attended, outputs if maps else None)
            decoded = self.decoder(features, extra=extra, training=training)
            outputs["mask_logits"] = self.mask_head(ops.cast(decoded, "float32"))
        if heads and self.contrast_level is not None:
            self._project(outputs, features, self.contrast_level, pooled if self.classifies else None, training)
        return outputs

    def _classify(self, normalized: Any, features: dict[str, Any], attended: Any, training: bool | None) -> Any:
        x, maps = normalized, []
        for index, stage in enumerate(self.classifier_stages):
            x = stage(x, training=training)
            if not self.has_attention or index >= len(ATTENTION_LEVELS):
                continue
            steered, channel, spatial = self.attentions[index](x, features[ATTENTION_LEVELS[index]], return_maps=True)
            maps.append((channel, spatial))
            if attended is None:
                x = steered
            else:
                gate = ops.cast(ops.reshape(attended, (-1, 1, 1, 1)), x.dtype)
                x = gate * steered + (1 - gate) * x
        return ops.cast(ops.mean(ops.cast(x, "float32"), axis=(1, 2)), self.compute_dtype), maps

    def _saliency_features(
        self, images: Any, normalized: Any, features: dict[str, Any], attended: Any, outputs: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """Eq. 6: what is concatenated to the decoder, `{level: (N, h, w, 1 or 4)}`."""
        if not self.has_saliency:
            return None
        constant = {name: ops.stop_gradient(value) for name, value in features.items()}

        def score(x: Any) -> Any:
            pooled, _ = self._classify(self.normalization(x), constant, attended, training=False)
            return self.label_head(pooled)

        if self.zero_saliency:
            saliency = ops.zeros_like(images[..., :1])
        else:
            saliency = self.saliency(images, score=score)
        if outputs is not None:
            outputs["saliency"] = saliency
        parts = [ops.cast(saliency, self.compute_dtype)]
        if self.saliency_image:
            parts.append(ops.cast(normalized, self.compute_dtype))
        size = ops.shape(features[self.saliency_level])[1:3]
        return {
            self.saliency_level: ops.image.resize(
                ops.concatenate(parts, axis=-1), size, interpolation="bilinear", data_format="channels_last"
            )
        }

    def for_inference(self, attention: bool = True, saliency: bool = True) -> JointNetwork:
        """A network of its own with these weights and without projectors.

        Args:
            attention: False leaves inter-task attention out.
            saliency: False puts zeros in the place of the saliency map.
        """
        without = {"both": "cls_to_seg", "seg_to_cls": "none"}
        changes = {
            "name": "network",
            "contrast_level": None,
            "exchange": self.exchange if attention else without.get(self.exchange, self.exchange),
            "zero_saliency": self.zero_saliency or not saliency,
        }
        network = JointNetwork.from_config({**self.get_config(), **changes})
        network(keras.KerasTensor((1, 32, 32, 3)))
        for name, layers in network.parts.items():
            for new, old in zip(layers, self.parts[name], strict=True):
                new.set_weights(old.get_weights())
        return network

    def get_build_config(self) -> dict[str, Any]:
        """Nothing: a loaded network is built when the model that holds it calls it."""
        return {}

    def get_config(self) -> dict[str, Any]:
        """Arguments of the network; start weights are in the saved weights."""
        return {**super().get_config(), **arguments_config(self)}

    def _project(
        self, outputs: dict[str, Any], features: dict[str, Any], level: str, pooled: Any, training: bool | None
    ) -> None:
        if self.segments:
            outputs["pixel_embeddings"] = self.pixel_projector(features[level], training=training)
        if self.classifies:
            outputs["image_embeddings"] = self.image_projector(pooled, training=training)
        if self.segments and self.classifies:
            last = ops.mean(ops.cast(features["P5"], "float32"), axis=(1, 2))
            outputs["consistency_segmentation"] = self.segmentation_projector(last, training=training)
            outputs["consistency_classification"] = self.classification_projector(pooled, training=training)


def _check_decoder(filters: tuple[int, ...], saliency_level: str | None) -> None:
    """A block for each of the levels from the deepest to the image; the saliency map enters at one of them."""
    if not 1 <= len(filters) <= 5 or min(filters) < 1:
        raise ValueError(f"`decoder_filters` must be one to five positive numbers. Received: {tuple(filters)}.")
    if saliency_level is not None and int(saliency_level[1:]) >= len(filters):
        raise ValueError(
            f"`saliency_level` {saliency_level!r} is no level of a decoder with {len(filters)} blocks; give more "
            "`decoder_filters`, or a finer level."
        )


def _check(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"`{argument}` must be one of {', '.join(map(repr, allowed))}. Received: {value!r}.")
