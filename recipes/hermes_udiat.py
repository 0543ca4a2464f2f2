"""Hermes on UDIAT, 163 breast ultrasound images: segmentation and classification from 20, 40 or 60 labelled ones.

    python -m recipes.hermes_udiat --demo
    python -m recipes.hermes_udiat --manual-dir DatasetB --labeled 40 --weights resnet18.npz

The authors of UDIAT give it out on request: `keras_semimed.data.describe("udiat")` says how. With 7:3 a seed tests 49
images and trains on 114, so compare several seeds.

The environment variable KERAS_BACKEND chooses tensorflow, jax or torch.

Output folder: config.json (configuration, versions, split, result), split.txt, metrics.csv (a row an epoch), images.csv
(a row an image of the scored part), model.keras, overlays/, report.html (all of it on one page) and what it is made of,
cases.npz, embeddings.npz and pseudo_labels.*. No epoch is picked: the last weights count.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from recipes.arguments import parse
from recipes.console import RESUME, run_main
from recipes.hermes_arguments import DEMO, HermesSettings

DEFAULTS = {"data": "udiat", "labeled": 20, "output": Path("runs/hermes_udiat")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe and returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    settings = parse(HermesSettings, arguments, "hermes_udiat", __doc__, DEMO, DEFAULTS)
    # Imported late: Keras starts its backend, for which `--help` should not wait.
    from recipes.experiment import run
    from recipes.hermes import HermesExperiment

    return run_main(lambda: run(HermesExperiment(settings, "hermes_udiat")), RESUME)


if __name__ == "__main__":
    sys.exit(main())
