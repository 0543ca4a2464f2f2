"""Writes the report of a finished run again; the same as `semimed report`.

python -m recipes.report --help
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_semimed.cli import report


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit code."""
    return report.main(arguments, "python -m recipes.report")


if __name__ == "__main__":
    sys.exit(main())
