"""What resizing alone costs: the true masks sent down to the size of a network and up again, against themselves.

    python -m benchmarks.resizing_cost --manual-dir Dataset_BUSI_with_GT --sizes 64 128 256

No network is asked: its best prediction, the resized truth itself, is scored at the images' own size as
`evaluate_images(size="own")` scores any other. A row a size and way of fitting: images whose lesion vanishes, mean
Dice, normalised surface distance within 2 pixels of the file, and the share of images below a Dice of 0.9.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_semimed.data import EvaluationBatches, ImageSet, load_image_set
from keras_semimed.evaluation import evaluate_images
from keras_semimed.experiments.console import print_table


class Truth:
    """A model that knows the masks of an image set, in its order."""

    def __init__(self, images: ImageSet):
        self.masks, self.classes, self.given = images.masks, images.num_classes, 0

    def predict_on_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """One-hot probabilities of the next masks; padding is background."""
        masks = self.masks[self.given : self.given + len(images)]
        self.given += len(masks)
        masks = np.concatenate([masks, np.repeat(masks[:1], len(images) - len(masks), 0)])
        return {"mask": np.eye(self.classes, dtype="float32")[np.where(masks == 255, 0, masks)]}


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the set once a row, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="busi", help="name of the data set (busi)")
    parser.add_argument("--manual-dir", type=Path, help="its files")
    parser.add_argument("--sizes", nargs="+", type=int, default=(64, 128, 256), help="of the network, in pixels")
    options = parser.parse_args(argv)
    lines = []
    for size in options.sizes:
        for keep_aspect in (False, True):
            images = load_image_set(options.data, size, options.manual_dir, keep_aspect=keep_aspect)
            rows = evaluate_images(Truth(images), EvaluationBatches(images), size="own")
            dice = np.array([row["dice"] for row in rows])
            lines.append(
                [
                    str(size),
                    "padded" if keep_aspect else "stretched",
                    str(len(images.vanished())),
                    f"{100 * dice.mean():.1f}",
                    f"{100 * np.mean([row['nsd_at_2'] for row in rows]):.1f}",
                    f"{100 * np.mean(dice < 0.9):.1f} %",
                ]
            )
    print_table(["size", "fitted", "vanish", "Dice", "NSD at 2 px", "below 90"], lines)


if __name__ == "__main__":
    main()
