"""Reading the files of annotation tools: what is missing or of another kind is said in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from keras_semimed.data.images.pixels import MAX_BYTES

# Beyond that no image reaches.
_FARTHEST = 1e7
_KINDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}


def read_text(file: Path) -> bytes:
    """Reads a whole file.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is larger than 512 MiB.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file; give the export of an annotation tool")
    if (size := file.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{file}: has {size / 2**20:.0f} MiB, and at most {MAX_BYTES // 2**20} are read; export parts")
    return file.read_bytes()


def read_json(file: Path) -> Any:
    """Reads a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no JSON; the message begins with `file`.
    """
    try:
        return json.loads(read_text(file).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is no text in UTF-8 ({error}); export it again") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file}: is damaged, or no JSON ({error}); export it again") from error


def read_xml(file: Path) -> ElementTree.Element:
    """Reads an XML file. A document type, in which entities would be declared, is refused before anything is expanded.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no XML or has a document type; the message begins with `file`.
    """
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def refuse(*_: Any) -> None:
        raise ValueError(f"{file}: declares a document type, which no annotation tool writes; export it again")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(read_text(file), True)
    except (expat.ExpatError, LookupError) as error:
        raise ValueError(f"{file}: is damaged, or no XML ({error}); export it again") from error
    return builder.close()


def entry(of: Any, key: str, kind: type, where: str) -> Any:
    """Returns `of[key]`.

    Args:
        of: An object of a JSON file.
        key: What it must have.
        kind: `dict`, `list`, `str` or `int`.
        where: What errors call the object.

    Raises:
        ValueError: If it is none, or has none of that kind.
    """
    value = of.get(key) if isinstance(of, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "nothing" if value is None else shown(value)
        raise ValueError(f"{where}: `{key}` must be {_KINDS[kind]}, found {found}; export it again")
    return value


def shown(value: Any) -> str:
    """Returns a value as an error shows it, not all of a long one."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def text_of(element: ElementTree.Element, key: str, where: str) -> str:
    """Returns an attribute of an XML element; ValueError if it has none."""
    value = element.get(key)
    if value is None:
        raise ValueError(f"{where}: <{element.tag}> must have the attribute `{key}`, found none; export it again")
    return value


def number(value: Any, name: str, where: str) -> float:
    """Returns a finite number that a JSON value or an XML attribute holds.

    Raises:
        ValueError: If it is none, or one that lies far outside of any image.
    """
    try:
        found = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = float("nan")
    if not abs(found) < _FARTHEST:
        raise ValueError(f"{where}: `{name}` must be a number within any image, found {shown(value)}; export it again")
    return found


def whole_number(value: Any, name: str, where: str, least: int = 0) -> int:
    """Returns a whole number of at least `least`; ValueError if it is none."""
    found = number(value, name, where)
    if found != int(found) or found < least:
        raise ValueError(
            f"{where}: `{name}` must be a whole number from {least}, found {shown(value)}; export it again"
        )
    return int(found)


def size_of(height: Any, width: Any, where: str) -> tuple[int, int] | None:
    """Returns the size of an image that an export gives, None where it gives none; ValueError if it is no size."""
    if height is None and width is None:
        return None
    return whole_number(height, "height", where, 1), whole_number(width, "width", where, 1)


def corners(values: Any, where: str) -> np.ndarray:
    """Returns corners `(N, 2)` of a list of pairs; ValueError if it is none."""
    if not isinstance(values, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in values):
        raise ValueError(f"{where}: its points must be a list of pairs, found {shown(values)}; export it again")
    numbers = [[number(value, "points", where) for value in pair] for pair in values]
    return np.array(numbers, "float64").reshape(-1, 2)
