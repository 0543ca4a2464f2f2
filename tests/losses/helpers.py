"""What the loss tests share: tracing, finite differences and configuration round trips."""

from __future__ import annotations

import json
from collections.abc import Callable

import keras
import numpy as np
from keras import ops


def compiled(function: Callable, *arrays: np.ndarray, dynamic_batch: bool = False):
    """Returns function(*arrays) as the backend compiles it; PyTorch runs it as it is.

    With `dynamic_batch`, TensorFlow traces it with an unknown first dimension.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        cut = 1 if dynamic_batch else 0
        signature = [tf.TensorSpec([None] * cut + list(a.shape[cut:]), a.dtype) for a in arrays]
        return tf.function(function, input_signature=signature)(*arrays)
    if backend == "jax":
        import jax

        return jax.jit(function)(*arrays)
    return function(*[ops.convert_to_tensor(a) for a in arrays])


def finite_difference(function: Callable, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences of a float64 scalar function."""
    x = np.asarray(x, "float64")
    result = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        result[index] = (function(up) - function(down)) / (2 * step)
    return result


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def value(x) -> float:
    """The number behind a scalar, which has to be float32."""
    assert keras.backend.standardize_dtype(x.dtype) == "float32"
    assert tuple(x.shape) == ()
    return float(ops.convert_to_numpy(x))


def assert_config_round_trip(instance) -> None:
    """A changed configuration survives serialization and JSON."""
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(instance)))
    copy = keras.saving.deserialize_keras_object(serialized)
    assert type(copy) is type(instance)
    assert copy.get_config() == instance.get_config()
    assert serialized["registered_name"] == f"keras_semimed>{type(instance).__name__}"
