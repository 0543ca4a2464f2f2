"""What the start of the attention gates is worth: supervised trainings on BUSI, scored on validation images.

For each alternative of `InterTaskAttention` and each draw: one supervised training of both tasks with the exchange,
from ImageNet weights, scored on validation images. The test part of docs/protocol.md stays unseen. Of the other images
a draw takes 72 as labelled ones and three quarters for validation, near-duplicates on one side.

    python -m benchmarks.attention_gates --manual-dir Dataset_BUSI_with_GT --weights resnet18.npz
    python -m benchmarks.attention_gates --manual-dir Dataset_BUSI_with_GT --weights resnet18.npz --table

The same command goes on where it was stopped, run by run. Tables are of the draws that all alternatives have.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np

from keras_semimed.data import EvaluationBatches, ImageSet, SemiSupervisedBatches, Split, loading
from keras_semimed.data.cards import card
from keras_semimed.data.splits.parts import members_of, split_rest
from keras_semimed.evaluation import evaluate_images
from keras_semimed.evaluation.gates import gate_scores
from keras_semimed.evaluation.images import Row, read_rows
from keras_semimed.evaluation.summary import statistics
from keras_semimed.experiments.console import print_table
from keras_semimed.files import read_sealed, write_sealed, write_table
from keras_semimed.layers import InterTaskAttention
from keras_semimed.models import SemiSupervisedModel, Supervised
from keras_semimed.optimizers import branch_optimizer

ALTERNATIVES: dict[str, dict[str, Any]] = {
    "default": {},
    "start_0.8": {"initial_gate": 0.8},
    "random_kernels": {"gate_kernel": "glorot_uniform"},
    "slope_5": {"slope": 5.0},
}
DRAWS = (110, 111, 112)
LABELED, VALIDATION, LOOKED_AT = 72, 0.75, 32
TEST_PART = Path("docs/measurements/splits/busi_200.txt")
SCORES = {"dice": "Dice", "auroc": "AUROC", "accuracy": "accuracy"}
SAMPLES = 2000


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manual-dir", type=Path, help="where the images lie")
    parser.add_argument("--weights", help="ImageNet weights of ResNet-18")
    parser.add_argument("--data-dir", type=Path, help="where TFDS keeps prepared data")
    parser.add_argument("--alternatives", nargs="+", choices=tuple(ALTERNATIVES), default=list(ALTERNATIVES))
    parser.add_argument("--draws", nargs="+", type=int, default=DRAWS, help="seeds of the labelled images (110 to 112)")
    parser.add_argument("--exchange", choices=("both", "seg_to_cls"), default="both", help="(both)")
    parser.add_argument("--steps", type=int, default=300, help="training steps (300)")
    parser.add_argument("--output", type=Path, default=Path("runs/attention_gates"), help="folder of the runs")
    parser.add_argument("--table", action="store_true", help="train nothing, print what there is")
    return parser.parse_args(argv)


def split_of(images: ImageSet, draw: int) -> Split:
    """The split of a draw; its test part is the protocol's, which is not used here."""
    assert images.labels is not None and images.groups is not None
    classes = dict(zip(images.names, images.labels.tolist(), strict=True))
    groups = members_of(images.names, images.groups).values()
    return split_rest(groups, classes, set(Split.load(TEST_PART).test), draw, LABELED, VALIDATION, False)


def make(alternative: str, draw: int, options: argparse.Namespace) -> SemiSupervisedModel:
    """A compiled model whose gates are those of the alternative."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(draw)
    layer = functools.partial(InterTaskAttention, **ALTERNATIVES[alternative])
    with mock.patch("keras_semimed.networks.joint.InterTaskAttention", layer):
        model = Supervised(
            exchange=options.exchange,
            tasks="both",
            network="unet",
            encoder="resnet18_p4",
            weights=options.weights,
            decoder_filters=(128, 64, 32, 16, 16),
            image_size=64,
            total_steps=options.steps,
            seed=draw,
        )
    model.compile(branch_optimizer(options.steps, learning_rate=1e-3, classifier="adam"))
    return model


def train(images: ImageSet, alternative: str, draw: int, options: argparse.Namespace, folder: Path) -> None:
    """Trains with 8 labelled images a step, and writes the scores of the validation images and of the gates."""
    split, started = split_of(images, draw), time.perf_counter()
    labeled, held_out = images.select(split.labeled), images.select(split.validation)
    model = make(alternative, draw, options)
    batches = SemiSupervisedBatches(labeled, labeled, 8, 1, steps_per_epoch=options.steps, seed=draw)
    model.fit(batches, verbose=0, shuffle=False)
    seconds = time.perf_counter() - started
    rows = evaluate_images(model, EvaluationBatches(held_out), surface_tolerance=None)
    maps = model.explain(np.asarray(held_out.images[:LOOKED_AT]))
    folder.mkdir(parents=True, exist_ok=True)
    split.save(folder / "split.txt")
    write_sealed(folder / "gates.json", gate_scores(maps["channel_attention"], maps["spatial_attention"]))
    write_table(folder / "images.csv", rows)  # last: what has it is done
    scores = statistics(rows, np.ones((1, len(rows))))
    found = ", ".join(f"{title} {100 * scores[key][0]:.1f}" for key, title in SCORES.items())
    print(f"{alternative}, draw {draw}, {len(rows)} images: {found}; {seconds:.0f} s", flush=True)


def gain(first: Sequence[list[Row]], second: Sequence[list[Row]], key: str) -> str:
    """Mean difference over draws with a 95 % bootstrap interval over images and draws, and that of each draw."""
    random = np.random.default_rng(0)
    gains = []
    for draw, (one, other) in enumerate(zip(first, second, strict=True)):
        drawn = np.random.default_rng(draw).multinomial(len(one), np.full(len(one), 1 / len(one)), SAMPLES)
        counts = np.concatenate([np.ones((1, len(one)), int), drawn])
        gains.append(100 * (statistics(one, counts)[key] - statistics(other, counts)[key]))
    table = np.stack(gains)  # (draws, 1 + samples)
    chosen = random.integers(0, len(table), (SAMPLES, len(table)))
    means = np.array([table[draws, number + 1].mean() for number, draws in enumerate(chosen)])
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{table[:, 0].mean():+.1f} [{low:.1f}, {high:.1f}]: {' '.join(f'{value:+.1f}' for value in table[:, 0])}"


def print_tables(place: Path, alternatives: Sequence[str], draws: Sequence[int]) -> None:
    """Scores, differences from the default and gates, of the draws that all alternatives have."""
    done = [draw for draw in draws if all((place / each / str(draw) / "images.csv").exists() for each in alternatives)]
    print(f"\n{place}: draws {', '.join(map(str, done)) or 'none'}")
    if not done:
        return
    read = {each: [read_rows(place / each / str(draw) / "images.csv") for draw in done] for each in alternatives}
    lines = []
    for each, runs in read.items():
        scores = [statistics(rows, np.ones((1, len(rows)))) for rows in runs]
        means = [f"{100 * np.mean([score[key][0] for score in scores]):.1f}" for key in SCORES]
        gains = ["" if each == "default" else gain(runs, read["default"], key) for key in ("dice", "auroc")]
        lines.append([each, *means, *gains])
    print_table(["gates", *SCORES.values(), "Dice - default's", "AUROC - default's"], lines)
    lines = []
    for each in alternatives:
        gates = [read_sealed(place / each / str(draw) / "gates.json") for draw in done]
        for level in ("P1", "P2", "P3", "P4"):
            cells = []
            for name in ("channel", "spatial"):
                low, high = (f([g[f"{level}_{name}_{end}"] for g in gates]) for f, end in ((min, "low"), (max, "high")))
                cells += [f"{low:.3f} to {high:.3f}", f"{np.mean([g[f'{level}_{name}_spread'] for g in gates]):.4f}"]
            shut = np.mean([g[f"{level}_channel_closed"] for g in gates])
            cells.append(f"{shut:.0%}, {np.mean([g[f'{level}_channel_open'] for g in gates]):.0%}")
            lines.append([f"{each}, {level}", *cells])
    print_table(["gates", "channels", "between images", "places", "between places", "closed, open"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains what is not there, draw by draw, then prints the tables."""
    options = parsed(argv)
    place = options.output / f"{options.exchange}_{options.steps}"
    wanted = [(draw, each) for draw in options.draws for each in options.alternatives]
    missing = [(draw, each) for draw, each in wanted if not (place / each / str(draw) / "images.csv").exists()]
    if missing and not options.table:
        names = card("busi").study_classes
        images = loading.load_image_set("busi", 64, options.manual_dir, options.data_dir, names)
        for draw, each in missing:
            train(images, each, draw, options, place / each / str(draw))
    print_tables(place, options.alternatives, options.draws)


if __name__ == "__main__":
    main()
