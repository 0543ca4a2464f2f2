"""How a model or network describes itself: each argument of `__init__` is an attribute of the same name."""

from __future__ import annotations

import inspect
import math
from typing import Any

import keras


def arguments_config(model: keras.layers.Layer) -> dict[str, Any]:
    """Returns a JSON-ready value for each own argument of `type(model).__init__`.

    `weights` is None: a file of start weights need not exist any more where a saved model is loaded.
    """
    config = {}
    for name, parameter in inspect.signature(type(model).__init__).parameters.items():
        if name in ("self", "weights") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        value = getattr(model, name)
        if isinstance(value, keras.layers.Layer):
            value = keras.saving.serialize_keras_object(value)
        config[name] = plain(value)
    return config


def take_arguments(model: keras.Model, arguments: dict[str, Any], presets: dict[str, dict[str, Any]]) -> None:
    """Keeps each argument of `__init__` as an attribute, what is None from the preset.

    Args:
        model: whose arguments they are.
        arguments: `locals()` of its `__init__`.
        presets: defaults by the value of the argument `preset`.

    Raises:
        ValueError: if there is no such preset.
    """
    if arguments["preset"] not in presets:
        raise ValueError(f"`preset` must be one of {sorted(presets)}. Received: {arguments['preset']!r}.")
    defaults = presets[arguments["preset"]]
    for name, value in arguments.items():
        if name not in ("self", "kwargs", "__class__", "weights", "encoder", "views"):
            setattr(model, name, defaults[name] if value is None and name in defaults else value)


def check_not_negative(model: keras.Model, *names: str) -> None:
    """Raises a ValueError unless each of these attributes is a finite number of at least 0."""
    for name in names:
        value = getattr(model, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"`{name}` must be a number of at least 0. Received: {value!r}.")


def check_at_most_one(model: keras.Model, *names: str) -> None:
    """Raises a ValueError unless each of these attributes is within [0, 1]."""
    for name in names:
        value = getattr(model, name)
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` must be within [0, 1]. Received: {value!r}.")


def plain(value: Any) -> Any:
    """A deep copy in built-in containers: Keras wraps those it finds in attributes, and changes configs it reads."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
