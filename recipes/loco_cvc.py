"""LoCo on CVC-ClinicDB: polyp segmentation in colonoscopy frames, no sequence on two sides.

    python -m recipes.loco_cvc --demo
    python -m recipes.loco_cvc --manual-dir CVC-ClinicDB --weights resnet50.npz

Minutes on two cores with --demo, on made images.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_semimed.experiments.command_line import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe and returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    return command.main("loco_cvc", arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
