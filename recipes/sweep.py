"""Runs a table of one of the papers, or a grid of your own, over seeds; the same as `semimed sweep`.

python -m recipes.sweep --help
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_semimed.experiments.comparison import sweep


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit code."""
    return sweep.main(arguments, "python -m recipes.sweep")


if __name__ == "__main__":
    sys.exit(main())
