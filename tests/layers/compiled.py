"""Runs a function the way Keras' trainers run a step: compiled, with the state of variables carried along."""

from __future__ import annotations

from collections.abc import Callable

import keras


def compiled(function: Callable, variables: list) -> Callable:
    """Returns `function` compiled on backends that compile; it may assign to `variables`."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if backend == "torch":
        return function
    import jax

    @jax.jit
    def stateless(values, *args):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
            result = function(*args)
        updated = [scope.get_current_value(variable) for variable in variables]
        return result, [old if new is None else new for old, new in zip(values, updated, strict=True)]

    def step(*args):
        result, values = stateless([variable.value for variable in variables], *args)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return result

    return step
