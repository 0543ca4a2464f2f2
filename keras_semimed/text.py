"""Texts as a screen and an error message take them, whatever files, classes and flags are called."""

from __future__ import annotations

import re
from typing import Any

from keras_semimed import __version__

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that make a terminal do something or turn text round, but for tabs and new lines."""
_BREAKS = re.compile(r"[\t\n]")


def printable(text: Any) -> str:
    """Returns a text as any terminal takes it: bytes that are no UTF-8 and control characters escaped."""
    return CONTROL.sub(_escaped, str(text).encode("utf-8", "backslashreplace").decode())


def one_line(text: Any) -> str:
    """Returns a text as `printable` does, its tabs and new lines escaped as well, as names may hold them."""
    return _BREAKS.sub(_escaped, printable(text))


def shortened(value: Any, most: int = 80) -> str:
    """Returns a value as it is written in Python, on one line and cut after so many characters."""
    text = one_line(repr(value))
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def install(extra: str) -> str:
    """Returns how an optional part of the package is installed, by who has a clone and by who has a wheel.

    Args:
        extra: One of `[project.optional-dependencies]`, such as `dicom`.
    """
    wheel = f"keras_semimed-{__version__}-py3-none-any.whl"
    return f'pip install ".[{extra}]" in a clone, or pip install "{wheel}[{extra}]" beside the wheel'


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
