"""Compares finished runs on the same images; the same as `semimed compare`.

python -m recipes.compare --help
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_semimed.cli import compare


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit code."""
    return compare.main(arguments, "python -m recipes.compare")


if __name__ == "__main__":
    sys.exit(main())
