"""Image classifier on an encoder: the mean of its last features, and a dense layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
from keras import ops

from keras_semimed.networks.contract import Network
from keras_semimed.networks.encoders import check_image_size, encoder_config, pyramid, stages
from keras_semimed.networks.heads import ImageNormalization

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="keras_semimed")
class Classifier(Network, keras.Model):
    """Normalisation, encoder, mean over the last features, dense layer.

    Input: images `(N, H, W, 1 or 3)` in 0..255, any dtype, H and W multiples of 32. Output: logits `(N, num_labels)`,
    float32 under every dtype policy.

    Args:
        encoder: what `pyramid` takes: a name such as "resnet18", a keras-hub backbone, or a functional Keras model with
            named feature levels, each computed from the one before it alone.
        num_labels: image classes.
        weights: initial weights of the encoder, as in `networks.encoder`; not part of the config.

    Raises:
        ValueError: unknown encoder or weights, an encoder that is no chain of levels, or fewer than two classes.
    """

    logits = {"label_logits": "pooled"}

    def __init__(
        self,
        encoder: str | dict[str, Any] | keras.Model = "resnet18",
        num_labels: int = 2,
        weights: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if num_labels < 2:
            raise ValueError(f"`num_labels` must be at least 2, found {num_labels}.")
        self.num_labels = num_labels
        self.normalization = ImageNormalization(dtype=self.dtype_policy)
        self.encoder = pyramid(encoder, weights, dtype=self.dtype_policy)
        self.encoder_config = encoder_config(encoder if isinstance(encoder, str) else self.encoder)
        self.stages = stages(self.encoder)
        self.levels = tuple(sorted(self.encoder.output))
        self.head = keras.layers.Dense(num_labels, dtype="float32", name="head")
        self.build((None, None, None, 3))

    def build(self, input_shape: Shape) -> None:
        """Creates the weights of the head."""
        self.head.build((None, self.widths["pooled"]))

    def encode(
        self, images: Any, training: bool | None = None, between: Callable[[str, Any], Any] | None = None
    ) -> dict[str, Any]:
        """The encoder's levels, from images `(N, H, W, 1 or 3)` in 0..255.

        Args:
            images: any dtype.
            training: batch statistics (True) or moving ones.
            between: takes the name and the features of a level, and returns what the next level is computed from.
        """
        if None not in images.shape[1:3]:
            check_image_size(tuple(images.shape[1:3]))
        return self.run_stages(self.normalization(images), training, between)

    def run_stages(
        self, x: Any, training: bool | None = None, between: Callable[[str, Any], Any] | None = None
    ) -> dict[str, Any]:
        """The levels of normalised images, as `encode`."""
        features = {}
        for level, stage in zip(self.levels, self.stages, strict=True):
            x = stage(x, training=training)
            if between is not None:
                x = between(level, x)
            features[level] = x
        return features

    def represent(self, features: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """`"pooled"`: the mean of the last level over the image, `(N, C5)`."""
        del training
        mean = ops.mean(ops.cast(features[self.levels[-1]], "float32"), axis=(1, 2))
        return {"pooled": ops.cast(mean, self.compute_dtype)}

    def classify(self, represented: Mapping[str, Any], size: tuple[Any, Any] | None = None) -> dict[str, Any]:
        """`"label_logits"` `(N, num_labels)`, float32."""
        del size
        return {"label_logits": self.head(represented["pooled"])}

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Classifies images `(N, H, W, 1 or 3)` in 0..255; returns logits `(N, num_labels)`, float32."""
        features = self.encode(images, training=training)
        return self.decode(features, ops.shape(images)[1:3], training=training)["label_logits"]

    @property
    def widths(self) -> dict[str, int]:
        """Channels of the levels and of `"pooled"`."""
        levels = {level: tensor.shape[-1] for level, tensor in self.encoder.output.items()}
        return {**levels, "pooled": levels[max(levels)]}

    @property
    def label_head(self) -> keras.layers.Dense:
        """The layer that makes the logits, for methods that need its kernel and bias."""
        return self.head

    @property
    def encoders(self) -> list[keras.layers.Layer]:
        """The encoder."""
        return [self.encoder]

    @property
    def parts(self) -> dict[str, list[keras.layers.Layer]]:
        """The encoder's stages and the head."""
        return {"classifier_stages": list(self.stages), "label_head": [self.head]}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, without `weights`."""
        return {**super().get_config(), "encoder": self.encoder_config, "num_labels": self.num_labels}

    def compute_output_spec(self, images: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """Returns the symbolic output `(N, num_labels)`, float32."""
        return keras.KerasTensor((images.shape[0], self.num_labels), dtype="float32")
