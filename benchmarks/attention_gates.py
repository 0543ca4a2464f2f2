"""What the start of the attention gates is worth: supervised trainings on BUSI, scored on validation images.

For each alternative of `InterTaskAttention` and each draw: one supervised training of both tasks with the exchange, from
ImageNet weights, scored on validation images. The test part of docs/protocol.md stays unseen; of the other images a draw
labels 72, keeps a few for nothing, and validates on the rest, near-duplicates on one side.

    python -m benchmarks.attention_gates --manual-dir Dataset_BUSI_with_GT --weights resnet18.npz
    python -m benchmarks.attention_gates --manual-dir Dataset_BUSI_with_GT --weights resnet18.npz --table

The same command goes on where it was stopped. A table needs all runs.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.data import Split, loading
from keras_semimed.data.cards import card
from keras_semimed.data.splits import members_of, split_rest
from keras_semimed.evaluation.files import whole_file

ALTERNATIVES: dict[str, dict[str, Any]] = {
    "default": {},
    "start_0.8": {"initial_gate": 0.8},
    "random_kernels": {"gate_kernel": "glorot_uniform"},
    "slope_5": {"slope": 5.0},
}
DRAWS = (110, 111, 112)
LABELED = 72
VALIDATION = 0.75
TEST_PART = Path("docs/measurements/splits/busi_200.txt")
FLAGS = (
    "--method supervised --tasks both --validate --image-size 64 --network unet --encoder resnet18_p4 "
    "--decoder-filters 128,64,32,16,16 --optimizer-groups branch --classifier-optimizer adam --learning-rate 1e-3 "
    "--batch-size 8 --resume"
)


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manual-dir", type=Path, required=True, help="where the images lie")
    parser.add_argument("--weights", required=True, help="ImageNet weights of ResNet-18")
    parser.add_argument("--data-dir", type=Path, help="where TFDS keeps prepared data")
    parser.add_argument("--alternatives", nargs="+", choices=tuple(ALTERNATIVES), default=list(ALTERNATIVES))
    parser.add_argument("--draws", nargs="+", type=int, default=DRAWS, help="seeds of the labelled images (110 to 112)")
    parser.add_argument("--exchange", choices=("both", "seg_to_cls"), default="seg_to_cls", help="(seg_to_cls)")
    parser.add_argument("--steps", type=int, default=300, help="training steps (300)")
    parser.add_argument("--output", type=Path, default=Path("runs/attention_gates"), help="folder of the runs")
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    parser.add_argument("--only", action="store_true", help="run the one alternative and draw in this process")
    return parser.parse_args(argv)


def run_folder(options: argparse.Namespace, alternative: str, draw: int) -> Path:
    """Where a run lies."""
    return options.output / f"{options.exchange}_{options.steps}" / alternative / str(draw)


def write_split(path: Path, draw: int, options: argparse.Namespace) -> None:
    """The split of a draw, without an image of the protocol's test part outside of its own test part."""
    images = loading.load_image_set("busi", 64, options.manual_dir, options.data_dir, card("busi").study_classes)
    assert images.labels is not None and images.groups is not None
    classes = dict(zip(images.names, images.labels.tolist(), strict=True))
    groups = members_of(images.names, images.groups).values()
    split = split_rest(groups, classes, set(Split.load(TEST_PART).test), draw, LABELED, VALIDATION, False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        split.save(temporary)


def use(alternative: str) -> None:
    """Lets the networks of this process have other gates."""
    from keras_semimed.layers import InterTaskAttention
    from keras_semimed.networks import joint

    joint.InterTaskAttention = functools.partial(InterTaskAttention, **ALTERNATIVES[alternative])  # type: ignore


def train(options: argparse.Namespace, alternative: str, draw: int) -> int:
    """One run in this process, or what is left of it."""
    from recipes.train import main as recipe

    split = options.output / "splits" / f"{draw}.txt"
    if not split.exists():
        write_split(split, draw, options)
    use(alternative)
    words = [*FLAGS.split(), "--exchange", options.exchange, "--steps", str(options.steps), "--epoch-steps"]
    words += [str(min(100, options.steps)), "--seed", str(draw), "--split-file", str(split), "--weights"]
    words += [options.weights, "--manual-dir", str(options.manual_dir)]
    words += ["--data-dir", str(options.data_dir)] if options.data_dir else []
    return recipe(["busi", *words, "--output", str(run_folder(options, alternative, draw))])


def train_all(options: argparse.Namespace) -> None:
    """One process a run, draw by draw, so that whole draws are done first."""
    for draw in options.draws:
        for alternative in options.alternatives:
            command = [sys.executable, "-m", "benchmarks.attention_gates", "--only", *sys.argv[1:]]
            command += ["--alternatives", alternative, "--draws", str(draw)]
            print(f"\n{alternative} {draw}", flush=True)
            subprocess.run(command, check=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is not there, then prints the tables."""
    options = parsed(argv)
    if options.only:
        return train(options, options.alternatives[0], options.draws[0])
    if not options.table:
        train_all(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
