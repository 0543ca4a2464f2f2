"""Hermes on breast ultrasound: segmentation and classification from few labelled and many unlabelled images.

    python -m recipes.hermes_busi --demo
    python -m recipes.hermes_busi --data busi --manual-dir Dataset_BUSI_with_GT --weights resnet18.npz

The environment variable KERAS_BACKEND chooses tensorflow, jax or torch.

Output folder: config.json (configuration, versions, split, result), split.txt, metrics.csv (a row an epoch), images.csv
(a row an image of the scored part), model.keras, overlays/, report.html (all of it on one page) and what it is made of,
cases.npz, embeddings.npz and pseudo_labels.*. No epoch is picked: the last weights count.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from recipes.arguments import parse
from recipes.console import RESUME, run_main
from recipes.hermes_arguments import DEMO, HermesSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe and returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    settings = parse(HermesSettings, arguments, "hermes_busi", __doc__, DEMO)
    # Imported late: Keras starts its backend, for which `--help` should not wait.
    from recipes.experiment import run
    from recipes.hermes import HermesExperiment

    return run_main(lambda: run(HermesExperiment(settings)), RESUME)


if __name__ == "__main__":
    sys.exit(main())
