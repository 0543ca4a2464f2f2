"""What every network of this package offers: `encode`, `decode`, and heads on what lies between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_semimed.layers.projection import ProjectionHead

Rows = Mapping[str, Sequence[tuple[Any, Any]]]
"""Which rows of the batch an output is computed for, as (start, stop), by its name; what is not named: for all."""


class Network:
    """Images to features, features to logits: what `UNet`, `DeepLabV3Plus`, `Classifier`, `JointNetwork` share.

    `encode` gives the levels `"P1"` to `"P5"` (and whatever else the network needs later), `represent` what stands
    before the logits, `"decoded"` `(N, h, w, D)` for masks and `"pooled"` `(N, D)` for image classes, `classify` the
    logits of these. `decode` is the last two in one.
    """

    image_multiple = 32
    """What height and width of the images must be a multiple of."""
    takes_pictures = True
    """Whether its images must be `(N, H, W, 1 or 3)` in 0..255, which is looked at wherever images come in."""
    logits: Mapping[str, str] = {}
    """The representation that each of the outputs `mask_logits` and `label_logits` is made from, where there is one."""

    def encode(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        """Features of images `(N, H, W, 1 or 3)` in 0..255, `"P1"` `(N, H/2, W/2, C1)` to `"P5"`."""
        raise NotImplementedError

    def represent(self, features: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """`"decoded"` `(N, h, w, D)` and `"pooled"` `(N, D)` of features, as far as the network has them."""
        raise NotImplementedError

    def classify(self, represented: Mapping[str, Any], size: tuple[Any, Any]) -> dict[str, Any]:
        """`"mask_logits"` `(N, *size, K)` of `"decoded"`, `"label_logits"` `(N, C)` of `"pooled"`, float32."""
        raise NotImplementedError

    def decode(
        self, features: Mapping[str, Any], size: tuple[Any, Any], training: bool | None = None
    ) -> dict[str, Any]:
        """Everything that `represent` and `classify` make of features, for images of `size` (height, width)."""
        represented = self.represent(features, training=training)
        return {**represented, **self.classify(represented, size)}

    @property
    def widths(self) -> dict[str, int]:
        """Channels of each feature that a head can stand on: `"P1"` to `"P5"`, `"decoded"`, `"pooled"`."""
        raise NotImplementedError

    @property
    def encoders(self) -> list[keras.layers.Layer]:
        """The encoders, one for each branch."""
        raise NotImplementedError

    @property
    def parts(self) -> dict[str, list[keras.layers.Layer]]:
        """The layers with weights, by what they are for."""
        raise NotImplementedError

    def for_inference(self, saliency: bool = True) -> Any:
        """A network of its own with these weights.

        Args:
            saliency: False puts zeros in the place of a saliency map, where there is one.
        """
        del saliency
        copied = type(self).from_config(self.get_config())  # type: ignore[attr-defined]
        copied.set_weights(self.get_weights())  # type: ignore[attr-defined]
        return copied


class Head(NamedTuple):
    """A layer on a named feature of a network, such as the projector of a contrastive loss; only training needs it.

    Attributes:
        feature: `"P1"` to `"P5"`, `"decoded"`, `"pooled"`, or of a U-Net's decoder `"D4"` to `"D1"`.
        units: width of the output, of a `ProjectionHead`; or what makes another layer of the arguments `width` (of the
            feature), `dtype` and `name`.
        hidden: width of its hidden layer; None: that of the feature.
        batch_norm: as in `ProjectionHead`.
        normalize: as in `ProjectionHead`.
        pool: take the mean of a map first.
    """

    feature: str
    units: int | Callable[..., keras.layers.Layer]
    hidden: int | None = None
    batch_norm: bool = False
    normalize: bool = False
    pool: bool = False

    def make(self, name: str, width: int, dtype: Any) -> keras.layers.Layer:
        """The layer, named after the branch that it belongs to, which optimizers tell apart by it."""
        branch = "classification" if self.feature == "pooled" else "segmentation"
        if not isinstance(self.units, int):
            return self.units(width=width, dtype=dtype, name=f"{branch}_{name}")
        return ProjectionHead(
            self.units,
            self.hidden or width,
            batch_norm=self.batch_norm,
            normalize=self.normalize,
            dtype=dtype,
            name=f"{branch}_{name}",
        )


class Extended(keras.layers.Layer):
    """A network with heads, as the methods train it: one dict of outputs.

    Args:
        network: one of this package's networks.
        heads: by the name of their output.
        frozen: never train, whatever is set on a layer above: for averaged weights.
    """

    def __init__(
        self, network: Any, heads: Mapping[str, Head] | None = None, frozen: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.network = network
        self.frozen = frozen
        self.head_layers: dict[str, keras.layers.Layer] = {}
        self._sources = {name: (head.feature, head.pool) for name, head in (heads or {}).items()}
        self._build_heads(heads or {})
        self.built = True
        # Of each variable, whether it is a weight; the others are statistics and the states of random streams.
        self.learnt = tuple(bool(variable.trainable) for variable in self.variables)
        if frozen:
            self.freeze()

    def freeze(self) -> None:
        """Lets none of the variables train.

        `trainable` of the layers stays: it would keep BatchNorm from using the statistics of a batch.
        """
        for variable in self.variables:
            variable.trainable = False

    def _build_heads(self, heads: Mapping[str, Head]) -> None:
        widths = self.network.widths
        for name, head in heads.items():
            if head.feature not in widths:
                raise ValueError(
                    f"the head {name!r} needs the feature {head.feature!r}, which the network lacks; it has "
                    f"{', '.join(sorted(widths))}. Choose another network, or other tasks."
                )
            width = widths[head.feature]
            layer = head.make(name, width, self.dtype_policy)
            layer.build((None, width) if head.pool or head.feature == "pooled" else (None, None, None, width))
            self.head_layers[name] = layer

    @property
    def trainable(self) -> bool:
        """Whether the layer trains; one that is frozen has no weight that does."""
        return keras.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if not self.__dict__.get("frozen", False):
            keras.layers.Layer.trainable.fset(self, value)

    def encode(self, images: Any, training: bool | None = None, **arguments: Any) -> dict[str, Any]:
        """As the network's."""
        return self.network.encode(images, training=training, **arguments)

    def decode(
        self,
        features: Mapping[str, Any],
        size: tuple[Any, Any],
        training: bool | None = None,
        rows: Rows | None = None,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Representations, logits and heads.

        Args:
            features: what `encode` returned.
            size: height and width of the images.
            training: batch statistics (True) or moving ones.
            rows: rows that an output is computed for; an empty list leaves it out.
            arguments: for the network's `represent`.
        """
        outputs = self.network.represent(features, training=training, **arguments)
        for name, source in self.network.logits.items():
            chosen = pick_rows(outputs[source], rows, name) if source in outputs else None
            if chosen is not None:
                outputs |= self.network.classify({source: chosen}, size)
        for name, layer in self.head_layers.items():
            feature, pool = self._sources[name]
            chosen = pick_rows(outputs[feature] if feature in outputs else features[feature], rows, name)
            if chosen is not None:
                if pool:
                    chosen = ops.mean(ops.cast(chosen, "float32"), axis=(1, 2))
                outputs[name] = layer(chosen, training=training)
        return outputs

    def call(
        self, images: Any, rows: Rows | None = None, training: bool | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Outputs for images `(N, H, W, 1 or 3)` in 0..255; `arguments` go to the network's `encode`."""
        features = self.encode(images, training=training, **arguments)
        return self.decode(features, ops.shape(images)[1:3], training=training, rows=rows)

    @property
    def encoders(self) -> list[keras.layers.Layer]:
        """The network's."""
        return self.network.encoders

    @property
    def parts(self) -> dict[str, list[keras.layers.Layer]]:
        """The network's and the heads."""
        return {**self.network.parts, **{name: [layer] for name, layer in self.head_layers.items()}}

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs that can be asked for some images only: logits and heads."""
        return (*self.network.logits, *self.head_layers)

    def without_heads(self) -> Rows:
        """Rows for logits alone."""
        return {name: () for name in self.head_layers}


def pick_rows(values: Any, rows: Rows | None, name: str) -> Any:
    """The rows of `values` that the output `name` is computed for; None for none."""
    if rows is None or name not in rows:
        return values
    if not rows[name]:
        return None
    pieces = [values[start:stop] for start, stop in joined_rows(rows[name])]
    return pieces[0] if len(pieces) == 1 else ops.concatenate(pieces)


def joined_rows(rows: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The same rows, with neighbours in one piece."""
    found: list[tuple[Any, Any]] = []
    for start, stop in rows:
        if found and found[-1][1] is start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found
