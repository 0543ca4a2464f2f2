"""How a model or network describes itself: each argument of `__init__` is an attribute of the same name."""

from __future__ import annotations

import difflib
import inspect
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_semimed.text import shortened

MOST = 2**32 - 1
"""The largest whole number that an argument may be; seeds go so far."""
LARGEST = 3.4e38
"""The largest number that 32 bits hold."""


class ArgumentWarning(UserWarning):
    """What a method has to say of legal arguments, where they are given; not again of copies and loaded models."""


def constructor_arguments(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments of a constructor, the class's own before those that it passes on to the classes that it extends.

    A class passes arguments on where its `__init__` takes `**kwargs`; those of Keras itself are not counted.
    """
    found: dict[str, inspect.Parameter] = {}
    for each in cls.__mro__:
        if each.__module__.partition(".")[0] == "keras" or "__init__" not in vars(each):
            continue
        own = inspect.signature(vars(each)["__init__"]).parameters
        for name, parameter in own.items():
            if name != "self" and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found.setdefault(name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values()):
            break
    return found


def arguments_config(model: keras.layers.Layer, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns a JSON-ready value for each argument of a constructor.

    `weights` is left out: a file of start weights need not exist any more where a saved model is loaded.

    Args:
        model: keeps its arguments as attributes of the same names.
        given: arguments that it keeps elsewhere.
    """
    config = {}
    for name in constructor_arguments(type(model)):
        if name == "weights":
            continue
        value = (given or {})[name] if name in (given or {}) else getattr(model, name)
        if isinstance(value, keras.layers.Layer):
            value = keras.saving.serialize_keras_object(value)
        config[name] = plain(value)
    return config


def check_choice(argument: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raises a ValueError unless the value is one of the allowed ones; the nearest name is offered."""
    if value in allowed:
        return
    near = _nearest(value, allowed)
    hint = f" Did you mean {near!r}?" if near else ""
    raise ValueError(f"`{argument}` must be one of {', '.join(map(repr, allowed))}, found {value!r}.{hint}")


def _nearest(value: Any, known: Iterable[Any]) -> str | None:
    """The known name that is most like a value, if any is."""
    return next(iter(difflib.get_close_matches(str(value).lower(), [str(name) for name in known], 1)), None)


def check_known(cls: type, given: Iterable[str]) -> None:
    """Raises a ValueError if one of the names is no argument of the class, nor of Keras' models; offers the nearest."""
    known = [*constructor_arguments(cls), "name", "dtype", "trainable"]
    for name in given:
        if name not in known:
            near = _nearest(name, known)
            raise ValueError(f"{cls.__name__} has no argument `{name}`.{f' Did you mean `{near}`?' if near else ''}")


def check_switches(model: keras.Model, given: Mapping[str, Any]) -> None:
    """Raises a ValueError unless each argument that is annotated as a truth value is one.

    Args:
        model: keeps its arguments as attributes of the same names.
        given: arguments that it keeps elsewhere.
    """
    for name, parameter in constructor_arguments(type(model)).items():
        value = given[name] if name in given else getattr(model, name, True)
        if parameter.annotation in ("bool", "bool | None") and not isinstance(value, bool):
            raise ValueError(f"`{name}` must be True or False, found {value!r}.")


def check_whole(argument: str, value: Any, lowest: int) -> None:
    """Raises a ValueError unless the value is a whole number of at least `lowest` that 32 bits hold."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < lowest:
        raise ValueError(f"`{argument}` must be a whole number of at least {lowest}, found {shortened(value)}.")
    if int(value) > MOST:
        raise ValueError(f"`{argument}` must be at most {MOST:,}, found {shortened(value)}.")


def check_pair(argument: str, value: Any, lowest: int) -> tuple[int, int]:
    """Returns two whole numbers of at least `lowest` as a tuple.

    Raises:
        ValueError: if the value is anything else.
    """
    pair = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    wanted = len(pair) == 2 and all(isinstance(each, numbers.Integral) and not isinstance(each, bool) for each in pair)
    if not wanted or min(pair) < lowest:
        raise ValueError(f"`{argument}` must be two whole numbers of at least {lowest}, found {value!r}.")
    return int(pair[0]), int(pair[1])


def check_not_negative(model: keras.Model, *names: str) -> None:
    """Raises a ValueError unless each of these attributes is a finite number of at least 0."""
    for name in names:
        value = getattr(model, name)
        if is_number(value) and value > LARGEST:
            raise ValueError(f"`{name}` must be at most {LARGEST:g}, found {shortened(value)}.")
        if not is_number(value) or not value >= 0:
            raise ValueError(f"`{name}` must be a number of at least 0, found {shortened(value)}.")


def check_at_most_one(model: keras.Model, *names: str) -> None:
    """Raises a ValueError unless each of these attributes is within [0, 1]."""
    for name in names:
        value = getattr(model, name)
        if not is_number(value) or not 0 <= value <= 1:
            raise ValueError(f"`{name}` must be within [0, 1], found {value!r}.")


def is_number(value: Any) -> bool:
    """Whether a value is a real number, and no truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """A deep copy in built-in containers: Keras wraps those it finds in attributes, and changes configs it reads."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
