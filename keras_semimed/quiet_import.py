"""TensorFlow without what it writes to the screen before any setting of its log counts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator

_NOISE = re.compile(
    rb"(WARNING: All log messages before absl::InitializeLog|[IW]0000 |To enable the following instructions)"
)


def import_backend() -> None:
    """Imports TensorFlow where a command is about to import Keras with it."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import_tensorflow()


def import_tensorflow() -> None:
    """Imports TensorFlow where it is installed, before what imports it in any case, such as KerasHub.

    Its C++ part writes some lines about processors straight to the standard error; they say nothing that a user could
    mend. Other lines are passed on.
    """
    if "tensorflow" in sys.modules or importlib.util.find_spec("tensorflow") is None:
        return
    with _filtered_errors():
        importlib.import_module("tensorflow")


@contextlib.contextmanager
def _filtered_errors() -> Iterator[None]:
    """Holds back what is written to the standard error, by C++ as well, and then writes what is no noise."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, ValueError, AttributeError):  # there is none
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held:
                if not _NOISE.match(line):
                    os.write(2, line)
