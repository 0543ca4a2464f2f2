"""Hermes on UDIAT, 163 breast ultrasound images: segmentation and classification from 20, 40 or 60 labelled ones.

    python -m recipes.hermes_udiat --demo
    python -m recipes.hermes_udiat --manual-dir DatasetB --labeled 40 --weights resnet18.npz

The authors of UDIAT give it out on request: `keras_semimed.data.describe("udiat")` says how. With 7:3 a seed tests 49
images and trains on 114, so compare several seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_semimed.experiments.command_line import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe and returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    return command.main("hermes_udiat", arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
