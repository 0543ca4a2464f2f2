"""LoCo on Kvasir-SEG: polyp segmentation from few labelled and many unlabelled colonoscopy images.

    python -m recipes.loco_kvasir --demo
    python -m recipes.loco_kvasir --manual-dir Kvasir-SEG --split official --weights resnet50.npz

Minutes on two cores with --demo, on made images. Scores of short runs and their command: README.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_semimed.experiments.command_line import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe and returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    return command.main("loco_kvasir", arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
