"""Packs a data set into one small file; the same as `semimed data pack`.

python -m recipes.pack --help
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_semimed.cli import pack


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit code."""
    return pack.main(arguments, "python -m recipes.pack")


if __name__ == "__main__":
    sys.exit(main())
