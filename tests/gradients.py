"""Gradients of a scalar function on whichever backend the tests run with."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np


def gradient(function: Callable, x: np.ndarray) -> np.ndarray:
    """Returns d function(x) / d x for a function that maps a float32 tensor to a scalar."""
    x = np.asarray(x, "float32")
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tensor = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            value = function(tensor)
        return tape.gradient(value, tensor, unconnected_gradients="zero").numpy()
    if backend == "jax":
        import jax

        return np.asarray(jax.jit(jax.grad(function))(x))
    import torch

    tensor = torch.tensor(x, requires_grad=True)
    value = function(tensor)
    if not value.requires_grad:
        return np.zeros_like(x)
    (result,) = torch.autograd.grad(value, tensor, allow_unused=True)
    return np.zeros_like(x) if result is None else result.numpy()
