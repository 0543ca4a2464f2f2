"""LoCo on Kvasir-SEG and CVC-ClinicDB together, as in the paper; the two are scored together and apart.

    python -m recipes.loco_polyp --demo
    python -m recipes.loco_polyp --manual-dir DOWNLOADS --labeled 0.1 --weights resnet50.npz

Minutes on two cores with --demo, on made images.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_semimed.experiments.command_line import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe and returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    return command.main("loco_polyp", arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
