"""What a notebook is told about wrong input: the same sentences as a command, about arguments instead of flags."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from keras_semimed.experiments.console import RecipeError

WORDS = (
    ("--output ", ""),
    ("another --output", "another folder"),
    ("the flags that", "the settings that"),
    ("add --resume", "add resume=True"),
    ("--resume", "resume=True"),
    ("a lower --learning-rate", "a lower learning rate"),
    ("--mixed-precision none", "float32"),
)
FLAG = re.compile(r"--([a-z][a-z-]*)")


@contextlib.contextmanager
def naming_arguments() -> Iterator[None]:
    """Turns a `RecipeError` into a ValueError that names arguments.

    Raises:
        ValueError: With the same sentence.
    """
    try:
        yield
    except RecipeError as error:
        text = str(error)
        for flag, word in WORDS:
            text = text.replace(flag, word)
        raise ValueError(FLAG.sub(lambda found: f"`{found[1].replace('-', '_')}`", text)) from error
