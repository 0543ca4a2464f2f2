"""Trains any method on any data set: segmentation, classification or both, from few labelled and many other images.

    python -m recipes.train phantom_ultrasound --method fixmatch --demo
    python -m recipes.train kvasir_seg --method loco --manual-dir Kvasir-SEG --weights resnet50.npz

Minutes on two cores with --demo, which takes made images in the place of DATA's. Every argument of a method's class is
a flag: see --method NAME --help-all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_semimed.experiments.command_line import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe and returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    return command.main("train", arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
