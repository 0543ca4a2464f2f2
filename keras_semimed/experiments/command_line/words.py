"""How a word of the command line is read: by the annotation of the argument that it is for."""

from __future__ import annotations

import ast
import json
import math
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from keras_semimed.experiments.console import did_you_mean
from keras_semimed.text import shortened

_ONE = {"int": "a whole number", "float": "a number", "Path": "a file or folder"}
_SEVERAL = {"int": "whole numbers", "float": "numbers", "str": "names"}
_COUNTS = {2: "two", 3: "three", 4: "four"}


def kinds(annotation: str) -> list[str]:
    """The parts of `A | B | None`; without an annotation, a text."""
    parts = [ast.parse(annotation or "str", mode="eval").body]
    while isinstance(first := parts[0], ast.BinOp):
        parts[:1] = [first.left, first.right]
    return [ast.unparse(part) for part in parts]


def choices(annotation: str) -> dict[str, Any]:
    """The values of the annotation's `Literal`s, by the words for them."""
    found: dict[str, Any] = {}
    for kind in kinds(annotation):
        if kind.startswith("Literal["):
            values = ast.literal_eval(kind.removeprefix("Literal"))
            found |= {str(value): value for value in values}
    return found


def read_word(annotation: str, word: str) -> Any:
    """The value of a word, by the strictest part of the annotation that takes it.

    `none` is None where the annotation has it; numbers of a tuple stand with commas between; a dict is JSON.

    Raises:
        ArgumentTypeError: If no part takes it; the message says what is expected, and the nearest of several choices.
    """
    parts, known = kinds(annotation), choices(annotation)
    if word in known:
        return known[word]
    if word == "none" and "None" in parts:
        return None
    for name in ("int", "float", "tuple", "dict", "Path", "str"):
        for part in parts:
            if part.partition("[")[0] == name:
                try:
                    return _read(part, word)
                except ValueError:
                    continue
    expected = [text for part in parts if (text := _expected(part, parts))]
    if not expected:
        raise ArgumentTypeError(f"{shortened(word)} is none of {', '.join(known)}{did_you_mean(word, known)}")
    expected += [f"one of {', '.join(known)}"] if known else []
    raise ArgumentTypeError(f"expected {' or '.join(expected)}, found {shortened(word)}")


def _read(part: str, word: str) -> Any:
    if part == "int":
        return int(word)
    if part == "float":
        number = float(word)
        if not math.isfinite(number):
            raise ValueError(word)
        return number
    if part == "Path":
        if not word or "\0" in word:  # an empty one would be the present folder
            raise ValueError(word)
        return Path(word)
    if part.startswith("tuple["):
        inner, words = _inner(part), word.split(",")
        if inner[-1] == "...":
            inner = inner[:1] * len(words)
        if len(inner) != len(words):
            raise ValueError(word)
        return tuple(_read(each, text) for each, text in zip(inner, words, strict=True))
    if part.startswith("dict"):
        value = json.loads(word)
        if not isinstance(value, dict):
            raise ValueError(word)
        return value
    return word


def _inner(part: str) -> list[str]:
    return part.removeprefix("tuple[").removesuffix("]").split(", ")


def _expected(part: str, parts: list[str]) -> str:
    """What a part takes, in words; empty for what no word can be, and for whole numbers beside numbers."""
    if part.startswith("tuple["):
        inner = _inner(part)
        count = "" if inner[-1] == "..." else f"{_COUNTS.get(len(inner), len(inner))} "
        return f"{count}{_SEVERAL.get(inner[0], inner[0])} with commas between"
    if part.startswith("dict"):
        return "a JSON object"
    return "" if part == "int" and "float" in parts else _ONE.get(part, "")
