"""Hermes on breast ultrasound: segmentation and classification from few labelled and many unlabelled images.

    python -m recipes.hermes_busi --demo
    python -m recipes.hermes_busi --manual-dir Dataset_BUSI_with_GT --weights resnet18.npz

Minutes on two cores with --demo, on made images. Scores of short runs on BUSI and their command: README.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_semimed.experiments.command_line import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe and returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    return command.main("hermes_busi", arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
