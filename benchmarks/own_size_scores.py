"""Scores at the network's size beside those at the images' own, and the most that the size of the network allows.

    KERAS_BACKEND=torch python -m benchmarks.own_size_scores --manual-dir Dataset_BUSI_with_GT --weights resnet18.npz

For each size a supervised training of a ResNet-18 U-Net on 72 labelled images of BUSI, from ImageNet weights, and three
rows of its test part (leak-safe split): scored at the network's size; at the images' own size; and, in the place of the
predictions, the true masks sent down to the network's size and up again. Distances are in pixels of each row's size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import keras

from benchmarks.resizing_cost import Truth
from keras_semimed.data import SemiSupervisedBatches, load
from keras_semimed.evaluation import evaluate_images, summarize
from keras_semimed.evaluation.images import Row
from keras_semimed.experiments.console import print_table
from keras_semimed.models import SemiSupervisedModel, Supervised

LABELED = 72
SCORES = ("dice", "nsd_at_2")


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manual-dir", type=Path, help="where the images lie")
    parser.add_argument("--data-dir", type=Path, help="where TFDS keeps prepared data")
    parser.add_argument("--weights", help="ImageNet weights of ResNet-18")
    parser.add_argument("--sizes", nargs="+", type=int, default=(64, 128), help="of the network, in pixels (64 128)")
    parser.add_argument("--steps", type=int, default=300, help="training steps of 8 images (300)")
    parser.add_argument("--seed", type=int, default=0, help="of split and training (0)")
    return parser.parse_args(argv)


def trained(batches: SemiSupervisedBatches, size: int, options: argparse.Namespace) -> SemiSupervisedModel:
    """The network of a size, trained to the end."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(options.seed)
    model = Supervised(
        tasks="segmentation",
        network="unet",
        encoder="resnet18_p4",
        weights=options.weights,
        decoder_filters=(128, 64, 32, 16, 16),
        image_size=size,
        total_steps=options.steps,
        seed=options.seed,
        preset="small",
    )
    model.compile(model.default_optimizer())
    model.fit(batches, verbose=0, shuffle=False)
    return model


def line(size: int, what: str, rows: Sequence[Row]) -> list[str]:
    """A row of the table: means with 95 % intervals over images, in per cent, and missed lesions."""
    scores = summarize(rows)
    cells = [
        f"{100 * scores[key]:.1f} [{100 * scores[f'{key}_low']:.1f}, {100 * scores[f'{key}_high']:.1f}]"
        for key in SCORES
    ]
    return [str(size), what, *cells, f"{scores['missed_lesions']:.0f} of {scores['lesion_images']:.0f}"]


def main(argv: Sequence[str] | None = None) -> None:
    """Trains once a size, and prints the table."""
    options = parsed(argv)
    lines = []
    for size in options.sizes:
        given = {"manual_dir": options.manual_dir, "data_dir": options.data_dir, "image_size": size}
        train, held_out, _ = load("busi", LABELED, "leak_safe", options.seed, **given)
        labeled, test = train.labeled, held_out.image_set
        batches = SemiSupervisedBatches(labeled, labeled, 8, 1, steps_per_epoch=options.steps, seed=options.seed)
        started = time.perf_counter()
        model = trained(batches, size, options)
        print(f"{size} pixels: {options.steps} steps in {time.perf_counter() - started:.0f} s", flush=True)
        lines += [
            line(size, "network's size", evaluate_images(model, held_out)),
            line(size, "own size", evaluate_images(model, held_out, size="own")),
            line(size, "own size, the truth resized", evaluate_images(Truth(test), held_out, size="own")),
        ]
        print_table(["size", "scored at", "Dice", "NSD at 2 px", "missed lesions"], lines)


if __name__ == "__main__":
    main()
