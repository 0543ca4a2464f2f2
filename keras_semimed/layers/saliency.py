"""The saliency map that the classifier hands to the segmentation (Hermes, Eq. 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_semimed.backend import input_gradient


@keras.saving.register_keras_serializable(package="keras_semimed")
class SaliencyMap(keras.Layer):
    """How strongly each pixel moves the classifier's largest logit (Hermes, Eq. 6; Simonyan et al., 2014).

    `max over channels of |d max_c score(image)_c / d image|`, divided by its maximum over the image; an image
    without any gradient gives zeros. It is a constant for whatever follows: no gradient flows through it.
    Works in training, evaluation and `predict`.

    Keras takes only tensors by position: call it as `saliency(images, score=classifier)`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.built = True  # it has no weights; on JAX Keras calls what is not built, operation by operation

    def call(self, images: Any, score: Callable[[Any], Any]) -> Any:
        """Computes the map.

        Args:
            images: `(N, H, W, C)` what `score` takes.
            score: maps images to logits `(N, classes)`, each image on its own (BatchNorm in inference mode), without
                updating any state.

        Returns:
            `(N, H, W, 1)` float32 in 0..1.
        """
        images = ops.cast(images, "float32")
        gradient = input_gradient(lambda x: ops.max(ops.cast(score(x), "float32"), axis=-1), images)
        saliency = ops.max(ops.abs(gradient), axis=-1, keepdims=True)  # (N, H, W, 1)
        peak = ops.max(saliency, axis=(1, 2, 3), keepdims=True)
        return ops.stop_gradient(saliency / ops.where(peak > 0, peak, 1.0))

    def compute_output_spec(self, images: Any, score: Callable[[Any], Any]) -> keras.KerasTensor:
        """Returns the symbolic map, without calling `score`."""
        return keras.KerasTensor((*images.shape[:-1], 1), dtype="float32")
