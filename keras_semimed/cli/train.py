"""Trains any method on a folder of images or a data set: segmentation, classification or both.

    semimed train FOLDER --method fixmatch --preset small
    semimed train phantom_ultrasound --method hermes --demo
    semimed train kvasir_seg --method loco --manual-dir Kvasir-SEG --weights resnet50.npz

FOLDER holds labeled/, unlabeled/ and test/; `semimed check FOLDER` looks for faults first. With --demo made images take
the place of the data: minutes on two cores. Every argument of a method's class is a flag: see --method NAME --help-all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_semimed.experiments.command_line import command


def main(arguments: Sequence[str] | None = None, prog: str = "semimed train") -> int:
    """Runs the command and returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    return command.main("train", arguments, __doc__, prog)


if __name__ == "__main__":
    sys.exit(main())
