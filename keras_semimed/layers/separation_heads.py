"""The heads of a class separation: projector, predictor and a selector of each class (SS-Net)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.layers.class_selector import ClassSelector
from keras_semimed.layers.projection import ProjectionHead


@keras.saving.register_keras_serializable(package="keras_semimed")
class SeparationHeads(keras.Layer):
    """Prototypes come from the projector, the pixels that are pulled to them from the predictor on top of it.

    The parts are `projector` and `predictor`, each dense, BatchNorm (epsilon 1e-5), ReLU, dense, and `selector`, a
    `ClassSelector` of what they give.

    Args:
        num_classes: classes K, the background first.
        units: width of both and of their hidden layers.
    """

    def __init__(self, num_classes: int, units: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.units = units
        self.projector, self.predictor = (
            ProjectionHead(units, batch_norm=True, epsilon=1e-5, dtype=self.dtype_policy, name=name)
            for name in ("projector", "predictor")
        )
        self.selector = ClassSelector(num_classes, units, name="selector")

    def build(self, input_shape: tuple) -> None:
        """Makes the weights for features of shape `(N, ..., C)`."""
        shape = (*input_shape[:-1], self.units)
        self.projector.build(tuple(input_shape))
        self.predictor.build(shape)
        self.selector.build((None, self.units))
        self.built = True

    def call(self, features: Any, training: bool | None = None) -> Any:
        """Embeddings of pixels: `(N, ..., C)` to `(N, ..., units)`."""
        return self.predictor(self.projector(features, training=training), training=training)

    def project(self, features: Any) -> Any:
        """What may become a prototype: the projector in inference mode, a constant, `(N, ..., units)`."""
        return ops.stop_gradient(self.projector(features, training=False))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `(N, ..., units)`."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {**super().get_config(), "num_classes": self.num_classes, "units": self.units}
