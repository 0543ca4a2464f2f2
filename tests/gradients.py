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


def jacobian(function: Callable, x: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Returns the slopes of each entry of a vector, `function(x)`, with respect to each of some arrays, eagerly."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        values, pull = jax.vjp(function, {name: jax.numpy.asarray(value) for name, value in x.items()})
        rows = [pull(row)[0] for row in jax.numpy.eye(len(values), dtype=values.dtype)]
        return {name: [np.asarray(row[name]) for row in rows] for name in x}
    if backend == "tensorflow":
        import tensorflow as tf

        tensors = {name: tf.convert_to_tensor(value) for name, value in x.items()}
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(tensors)
            values = tf.unstack(function(tensors))
        rows = [tape.gradient(value, tensors, unconnected_gradients="zero") for value in values]
        return {name: [row[name].numpy() for row in rows] for name in x}
    import torch

    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in x.items()}
    rows = [
        torch.autograd.grad(value, list(tensors.values()), retain_graph=True, allow_unused=True)
        for value in function(tensors)
    ]
    return {
        name: [np.zeros_like(x[name]) if row[place] is None else row[place].numpy() for row in rows]
        for place, name in enumerate(x)
    }
