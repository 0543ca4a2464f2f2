"""BatchNorm statistics taken anew from plain images."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_semimed import backend
from keras_semimed.data.progress import progress
from keras_semimed.models.semi_supervised import SemiSupervisedModel


def recompute_statistics(model: SemiSupervisedModel, images: Any, batch_size: int = 16) -> None:
    """Replaces the running statistics of the network that predicts by means over batches of plain images.

    In training they follow mixtures of views, in small batches, and lag behind the weights. The images must be those of
    the training, labelled and unlabelled, never those that are scored.

    Args:
        model: A trained model; the statistics of its `predictor` change, no weight does.
        images: `(N, H, W, 1 or 3)` in 0..255, an array or rows on disk.
        batch_size: Images a batch; a rest that is smaller than half of it is left out.

    Raises:
        ValueError: If there is no image.
    """
    if not len(images):
        raise ValueError("`images` must hold at least one image, found none.")
    network = model.predictor
    layers = [
        layer
        for layer in network._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    kept = [layer.momentum for layer in layers]
    size = min(batch_size, len(images))
    starts = [start for start in range(0, len(images), size) if len(images) - start >= size / 2]
    sums: list[np.ndarray] = []
    try:
        for layer in layers:
            layer.momentum = 0.0  # the running statistics are those of the last batch
        for start in progress(starts, "taking statistics"):
            batch = ops.convert_to_tensor(np.asarray(images[start : start + size], "float32"))
            with backend.no_gradients():
                network(batch, rows=network.without_heads(), training=True, **model.inference_arguments(batch))
            found = [ops.convert_to_numpy(value) for layer in layers for value in _statistics(layer)]
            sums = [total + value for total, value in zip(sums, found, strict=True)] if sums else found
    finally:
        for layer, momentum in zip(layers, kept, strict=True):
            layer.momentum = momentum
    variables = [variable for layer in layers for variable in _statistics(layer)]
    for variable, total in zip(variables, sums, strict=True):
        variable.assign(total / len(starts))


def _statistics(layer: keras.layers.BatchNormalization) -> tuple[keras.Variable, keras.Variable]:
    return layer.moving_mean, layer.moving_variance
