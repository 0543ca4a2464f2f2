"""LoCo on Kvasir-SEG and CVC-ClinicDB together, as in the paper; the two are scored together and apart.

    python -m recipes.loco_polyp --demo
    python -m recipes.loco_polyp --manual-dir DOWNLOADS --labeled 0.1 --weights resnet50.npz

The environment variable KERAS_BACKEND chooses tensorflow, jax or torch.

Output folder: config.json (configuration, versions, split, result), split.txt, metrics.csv (a row an epoch), images.csv
(a row an image of the scored part, for the last weights and for the teacher's), model.keras, overlays/, report.html
(all of it on one page) and what it is made of, cases.npz, embeddings.npz and pseudo_labels.*. No epoch is picked:
the last weights count, and the teacher is the model that predicts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from recipes.arguments import parse
from recipes.loco_arguments import DEMO, LoCoSettings

DEFAULTS = {"data": "polyp", "split": "pranet", "output": Path("runs/loco_polyp")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe and returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    settings = parse(LoCoSettings, arguments, "loco_polyp", __doc__, DEMO, DEFAULTS)
    # Imported late: Keras starts its backend, for which `--help` should not wait.
    from recipes.loco import run_recipe

    return run_recipe(settings, "loco_polyp")


if __name__ == "__main__":
    sys.exit(main())
