"""The README's lines on BUSI with 72 labels, on draws of the protocol: how near they come to its supervised arms.

    KERAS_BACKEND=torch python -m benchmarks.readme_lines --manual-dir Dataset_BUSI_with_GT --weights resnet18.npz
    KERAS_BACKEND=torch python -m benchmarks.readme_lines --image-size 128 --draws 200 ...
    KERAS_BACKEND=torch python -m benchmarks.readme_lines --alpha 0 ...

Labelled, unlabelled and test images are those of a draw of table S (docs/measurements/splits). The steps are as many as
its supervised arms took, 1,000. Dice is the mean over the test images, of the last weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_semimed import data
from keras_semimed.data.splits.parts import Split
from keras_semimed.evaluation import evaluate_images, summarize
from keras_semimed.experiments.console import print_table
from keras_semimed.files import read_sealed
from keras_semimed.models import Hermes

MEASUREMENTS = Path(__file__).parents[1] / "docs" / "measurements"
ARMS = ("supervised", "supervised_strong")
EPOCHS, STEPS = 10, 100


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manual-dir", type=Path, help="where the images lie")
    parser.add_argument("--data-dir", type=Path, help="where TFDS keeps prepared data")
    parser.add_argument("--weights", help="ImageNet weights of ResNet-18")
    parser.add_argument("--image-size", type=int, default=64, help="in pixels (64)")
    parser.add_argument("--alpha", type=float, help="weight of the pixel contrast (that of the preset); 0: none")
    parser.add_argument("--draws", type=int, nargs="+", default=[200, 201, 202], help="of table S (200 201 202)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains once a draw, and prints the table."""
    options = parsed(argv)
    images = data.load_image_set("busi", options.image_size, options.manual_dir, options.data_dir)
    lines, found = [], []
    for draw in options.draws:
        split = Split.load(MEASUREMENTS / "splits" / f"busi_{draw}.txt")
        labeled, unlabeled = images.select(split.labeled), images.select(split.unlabeled)
        train = data.SemiSupervisedBatches(labeled, unlabeled, steps_per_epoch=STEPS, seed=draw)
        test = data.EvaluationBatches(images.select(split.test))
        keras.utils.set_random_seed(draw)
        started = time.perf_counter()

        # The lines of the README, of the masks alone.
        model = Hermes(
            preset="small",
            tasks="segmentation",
            image_size=options.image_size,
            weights=options.weights,
            total_steps=EPOCHS * len(train),
            alpha=options.alpha,
        )
        model.compile()
        model.fit(train, epochs=EPOCHS, verbose=2)

        minutes = (time.perf_counter() - started) / 60
        scores = summarize(evaluate_images(model, test))
        found.append(scores["dice"])
        cell = f"{100 * scores['dice']:.1f} [{100 * scores['dice_low']:.1f}, {100 * scores['dice_high']:.1f}]"
        lines.append([str(draw), cell, f"{scores['missed_lesions']:.0f}", f"{minutes:.0f}"])
        print_table(["draw", "Dice", "missed lesions", "minutes"], lines)
    print(f"mean {100 * statistics.mean(found):.1f}; table S at 64 pixels, all its draws:")
    for arm in ARMS:
        runs = [
            read_sealed(path, sealed=False)["result"]["last"]
            for path in (MEASUREMENTS / "S").glob(f"*/{arm}/config.json")
        ]
        print(f"  {arm} {100 * statistics.mean(run['dice'] for run in runs):.1f} ({len(runs)} draws)")


if __name__ == "__main__":
    main()
