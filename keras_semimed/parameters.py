"""What a class or a function takes: names, defaults, types and texts, from its signature and its docstring.

They are written once and read here for `get_config`, for the flags of the command line and for the tables of the docs.
What is given by its name, `"keras_semimed.models:Hermes"`, is read from the source files with nothing imported, so that
help and typing errors need not wait for Keras and its backend.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args, get_origin

from keras_semimed.source import FUNCTIONS, OUTSIDE, definition, evaluate, inheritance, written_out

_ENTRY = re.compile(r"\*{0,2}(\w+)(\*?)(?: \([^)]*\))?:(?:\s+(.*))?$")


class Parameter(NamedTuple):
    """One argument."""

    name: str
    default: Any
    """None where it is required."""
    annotation: str
    """As in the source, with the names of `Literal`s written out; empty where there is none."""
    text: str = ""
    """Of the docstring's `Args:`; empty where it has none."""
    required: bool = False
    starred: bool = False
    """Written `name*:` in the docstring, the mark of what a preset fills in."""


def parameters(source: str | Callable[..., Any]) -> dict[str, Parameter]:
    """Reads what a class or a function takes.

    As long as an `__init__` passes `**kwargs` on, the arguments of the next class in Python's order of inheritance
    follow, up to Keras' classes. A default is that of the most derived class that has the argument, a text that of the
    most derived class that documents it.

    Args:
        source: A class or function, or `"package.module:Name"`, which is read from the source files without an import;
            the name may be one that the module imports from elsewhere.

    Returns:
        The arguments by name, the class's own first, without `self`, `*args` and `**kwargs`.

    Raises:
        ValueError: If there is no such name, or a default is made of more than literals and names of literals.
    """
    return dict(_parameters(source))


@functools.cache
def _parameters(source: str | Callable[..., Any]) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    texts: dict[str, tuple[str, bool]] = {}
    for own, docstrings, passes_on in _levels_by_name(source) if isinstance(source, str) else _levels(source):
        for docstring in docstrings:
            texts = {**argument_texts(docstring), **texts}
        for parameter in own:
            found.setdefault(parameter.name, parameter)
        if not passes_on:
            break
    for name, parameter in found.items():
        text, starred = texts.get(name, ("", False))
        found[name] = parameter._replace(text=text, starred=starred)
    return found


def argument_texts(docstring: str | None) -> dict[str, tuple[str, bool]]:
    """Reads `Args:` of a docstring: by name, the text in one line and whether the name has a star."""
    found: dict[str, tuple[str, bool]] = {}
    head = margin = None
    name = ""
    for line in inspect.cleandoc(docstring or "").splitlines():
        words, indent = line.strip(), len(line) - len(line.lstrip())
        if head is None:
            head = indent if words == "Args:" else None
        elif words and indent <= head:
            break
        elif words:
            margin = indent if margin is None else margin
            entry = _ENTRY.match(words) if indent == margin else None
            if entry:
                name = entry[1]
                found[name] = (entry[3] or "", bool(entry[2]))
            elif name:
                text, starred = found[name]
                found[name] = (f"{text} {words}".strip(), starred)
    return found


# A class of the walk, or a function: its own arguments, what may document them, whether `**kwargs` go on from there.
_Level = tuple[list[Parameter], list[str | None], bool]


def _levels(source: Callable[..., Any]) -> Iterator[_Level]:
    """The levels of an object."""
    if not isinstance(source, type):
        own, _ = _own(source)
        yield own, [source.__doc__], False
        return
    for level in source.__mro__:
        if level.__module__.partition(".")[0] in (OUTSIDE, "builtins"):
            return
        constructor = vars(level).get("__init__")
        own, passes_on = ([], True) if constructor is None else _own(constructor)
        yield own, [vars(level).get("__doc__"), getattr(constructor, "__doc__", None)], passes_on


def _own(function: Callable[..., Any]) -> tuple[list[Parameter], bool]:
    own, passes_on = [], False
    values = getattr(function, "__globals__", {})
    for name, parameter in inspect.signature(function).parameters.items():
        passes_on = passes_on or parameter.kind is parameter.VAR_KEYWORD
        if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        annotation = "" if parameter.annotation is parameter.empty else parameter.annotation
        written = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        for word in set(re.findall(r"\w+", written)):
            kinds = get_args(values[word]) if get_origin(values.get(word)) is Literal else ()
            written = re.sub(rf"\b{word}\b", f"Literal[{', '.join(map(repr, kinds))}]", written) if kinds else written
        own.append(Parameter(name, None if required else parameter.default, written, required=required))
    return own, passes_on


def _levels_by_name(source: str) -> Iterator[_Level]:
    """The levels of what a name stands for, from the source files."""
    module, node = definition(source)
    if isinstance(node, FUNCTIONS):
        own, _ = _own_of_node(module, node)
        yield own, [ast.get_docstring(node)], False
    elif isinstance(node, ast.ClassDef):
        for place, level in inheritance(module, node):
            constructor = next((n for n in level.body if isinstance(n, FUNCTIONS) and n.name == "__init__"), None)
            own, passes_on = ([], True) if constructor is None else _own_of_node(place, constructor)
            inner = None if constructor is None else ast.get_docstring(constructor)
            yield own, [ast.get_docstring(level), inner], passes_on
    else:
        raise ValueError(f"{source!r} is neither a class nor a function")


def _own_of_node(module: str, function: Any) -> tuple[list[Parameter], bool]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = [
        *zip(positional, [*missing, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    own = []
    for argument, default in pairs:
        if argument.arg != "self":
            written = "" if argument.annotation is None else ast.unparse(written_out(module, argument.annotation))
            value = None if default is None else evaluate(module, default, argument.arg)
            own.append(Parameter(argument.arg, value, written, required=default is None))
    return own, arguments.kwarg is not None
