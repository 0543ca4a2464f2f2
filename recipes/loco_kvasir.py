"""LoCo on Kvasir-SEG: polyp segmentation from few labelled and many unlabelled colonoscopy images.

    python -m recipes.loco_kvasir --demo
    python -m recipes.loco_kvasir --manual-dir Kvasir-SEG --split official --weights resnet50.npz

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

DEFAULTS = {"data": "kvasir_seg", "split": "official", "output": Path("runs/loco_kvasir")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe and returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    settings = parse(LoCoSettings, arguments, "loco_kvasir", __doc__, DEMO, DEFAULTS)
    # Imported late: Keras starts its backend, for which `--help` should not wait.
    from recipes.loco import run_recipe

    return run_recipe(settings, "loco_kvasir")


if __name__ == "__main__":
    sys.exit(main())
