"""Whether a method learns from unlabelled images: phantoms, from a network that labelled images alone teach no more.

For each seed a supervised training to saturation (where a method trains two networks, a second one with another seed,
for the second network); from its weights, with as many steps and images each, the method, its control (the same step
with no weight on what needs no labels) and, for one seed, the method with the true targets in the place of its
pseudo-labels. A method has to be no worse than its control, and to gain by the truth.

Of each unlabelled term: its range over the epochs, and its share of the gradient at full weight, in the encoder and in
all weights: the norm of the term's gradient, times its weight, by the sum of all terms' norms, a mean over batches.

    KERAS_BACKEND=torch python -m benchmarks.learning_without_labels
    KERAS_BACKEND=torch python -m benchmarks.learning_without_labels --methods u2pl dcnet:lambda_feature=0
    KERAS_BACKEND=torch python -m benchmarks.learning_without_labels --classes 3
    python -m benchmarks.learning_without_labels --table

Without --classes masks are learnt and Dice is compared; with --classes 2 or 3 image classes and accuracy: benign and
malignant phantoms, or benign ones with a lesion smaller and larger than the median, and malignant ones.

The same command goes on where it was stopped, run by run. Nothing is chosen by these runs, and they say nothing about
patients.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_semimed.data import EvaluationBatches, ImageSet, SemiSupervisedBatches, load
from keras_semimed.evaluation import evaluate_images
from keras_semimed.evaluation.compare import paired_scores
from keras_semimed.evaluation.images import read_rows
from keras_semimed.experiments.command_line.defaults import control_of
from keras_semimed.experiments.console import print_table
from keras_semimed.files import read_sealed, write_sealed, write_table
from keras_semimed.models import METHODS, SemiSupervisedModel, Supervised

ARMS = ("method", "control", "truth")
SIZE, BATCH, EPOCHS = 64, 4, 10
SHARED: dict[str, Any] = {"encoder": "resnet_tiny", "image_size": SIZE, "preset": "small"}
TASKS: dict[str, dict[str, Any]] = {
    "segmentation": {"network": "unet", "decoder_filters": (64, 48, 32, 16, 16)},
    "classification": {},
}
SCORE = {"segmentation": "dice", "classification": "accuracy"}
ENCODER = {"segmentation": "segmentation_encoder", "classification": "classifier_stages"}
# All 200 that can be would give 9 Dice, 6 and 13 per cent of the classes more, after as many steps.
LABELED = {None: 12, 2: 24, 3: 32}
# Averages must be short beside 300 steps.
MOMENTUM = 0.98


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, choices=(2, 3), help="learn that many image classes instead of masks")
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD[:ARGUMENT=NUMBER,…]", help="(all that can do it, with their defaults)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2), help="(0 1 2); the truth for seed 0 alone")
    parser.add_argument("--labeled", type=int, help="labelled phantoms (12; of 2 classes 24, of 3 classes 32)")
    parser.add_argument("--first", type=int, default=600, help="supervised steps before (600)")
    parser.add_argument("--steps", type=int, default=300, help="steps of each arm (300)")
    parser.add_argument("--data-dir", type=Path, help="where TFDS keeps prepared data")
    parser.add_argument("--output", type=Path, default=Path("runs/learning_without_labels"), help="folder of the runs")
    parser.add_argument("--table", action="store_true", help="train nothing, print what there is")
    options = parser.parse_args(argv)
    if not options.table and keras.backend.backend() != "torch":
        parser.error("the shares of gradients are measured on PyTorch alone; set KERAS_BACKEND=torch")
    options.task = "segmentation" if options.classes is None else "classification"
    able = [name for name, method in METHODS.items() if options.task in method.supports and name != "supervised"]
    options.methods = options.methods or able
    for name in options.methods:
        method, _, change = name.partition(":")
        if method not in able or change and not re.fullmatch(r"\w+=[-+.e\d]+(,\w+=[-+.e\d]+)*", change):
            parser.error(f"--methods: expected METHOD or METHOD:ARGUMENT=NUMBER,… of {', '.join(able)}; found {name!r}")
    options.labeled = options.labeled or LABELED[options.classes]
    options.output = options.output / (options.task if options.classes is None else f"{options.classes}_classes")
    return options


class Bench:
    """The phantoms of a seed, and the networks that start on them."""

    def __init__(self, seed: int, options: argparse.Namespace) -> None:
        self.seed, self.options = seed, options
        given = {"labeled": options.labeled, "seed": seed, "image_size": SIZE, "data_dir": options.data_dir}
        training, held_out, _ = load("phantom_ultrasound", **given)
        parts = training.labeled, training.unlabeled, held_out.image_set
        if options.classes == 3:
            parts = by_size(*parts)
        self.labeled, self.unlabeled = parts[:2]
        self.held_out = EvaluationBatches(parts[2])

    def arguments(self, method: str, steps: int) -> dict[str, Any]:
        """Of a method's model."""
        task = self.options.task
        given = {**SHARED, "tasks": task, **TASKS[task], "total_steps": steps, "seed": self.seed}
        given["num_labels"] = self.options.classes or 2
        return given | ({"teacher_momentum": MOMENTUM} if METHODS[method].teachers else {})

    def start(self, student: int = 0) -> SemiSupervisedModel:
        """The supervised network of a student, trained where it is not there yet."""
        seed = self.seed + 100 * student
        place = self.options.output / f"start_{seed}.weights.h5"
        keras.utils.set_random_seed(seed)
        model = Supervised(**self.arguments("supervised", self.options.first) | {"seed": seed})
        if place.exists():
            model.load_weights(place)
            return model
        self._fit(model, SemiSupervisedBatches(self.labeled, self.labeled, 2 * BATCH, 1, 60, seed), 1.0)
        place.parent.mkdir(parents=True, exist_ok=True)
        model.save_weights(place)
        self._score(model, self.options.output / "first" / str(seed), {})
        return model

    def run(self, method: str, arm: str) -> None:
        """One training, from the start to its files; a method may be followed by an argument of its own."""
        keras.backend.clear_session()
        options, place = self.options, self.options.output / method / arm / str(self.seed)
        method, _, change = method.partition(":")
        starts = [self.start(student) for student in range(METHODS[method].students)]
        keras.utils.set_random_seed(self.seed)
        given = self.arguments(method, options.steps)
        for each in change.split(",") if change else ():
            argument, _, value = each.partition("=")
            given[argument] = int(value) if value.isdigit() else float(value)
        if arm == "control":
            given |= control_of(method, METHODS[method](**given).get_config())
        if arm == "truth":
            given["pseudo_labels"] = "truth"
        model = METHODS[method](**given)
        model.start_from(*starts)
        every = options.steps // EPOCHS
        batches = SemiSupervisedBatches(
            self.labeled, self.unlabeled, BATCH, BATCH, every, self.seed, unlabeled_targets=arm == "truth"
        )
        began = time.perf_counter()
        history = self._fit(model, batches, 0.5)
        seconds = time.perf_counter() - began
        details: dict[str, Any] = {"history": history, "seconds": seconds}
        if arm == "method":
            details |= gradient_shares(model, [batches[index] for index in range(3)], ENCODER[options.task])
        self._score(model, place, details)

    @staticmethod
    def _fit(model: SemiSupervisedModel, batches: SemiSupervisedBatches, factor: float) -> dict[str, list[float]]:
        rate = factor * model.preset_optimizers["small"]["branch"]["learning_rate"]
        model.compile(model.default_optimizer(learning_rate=rate))
        epochs = model.total_steps // len(batches)
        return model.fit(batches, epochs=epochs, verbose=0, shuffle=False).history

    def _score(self, model: SemiSupervisedModel, folder: Path, details: dict[str, Any]) -> None:
        rows = evaluate_images(model, self.held_out, surface_tolerance=None)
        folder.mkdir(parents=True, exist_ok=True)
        write_sealed(folder / "details.json", details)
        write_table(folder / "images.csv", rows)  # last: what has it is done
        score = 100 * mean_score(rows, self.options.task)
        print(f"{folder}: {score:.1f} of {len(rows)} images, {details.get('seconds', 0):.0f} s", flush=True)


def by_size(*parts: ImageSet) -> list[ImageSet]:
    """Benign images become two classes, by the median of their lesions in the first part; malignant ones the third."""
    first = parts[0]
    middle = np.median([mask.sum() for mask, label in zip(first.masks, first.labels, strict=True) if label == 0])
    found = []
    for part in parts:
        large = np.array([mask.sum() > middle for mask in part.masks])
        labels = np.where(part.labels == 1, 2, large).astype("int32")
        found.append(dataclasses.replace(part, labels=labels, class_names=("small", "large", "malignant")))
    return found


def mean_score(rows: Sequence[dict[str, Any]], task: str) -> float:
    """Dice, or the share of the classes that are right."""
    if task == "segmentation":
        return float(np.nanmean([row["dice"] for row in rows]))
    return float(np.mean([row["label"] == row["prediction"] for row in rows]))


def gradient_shares(model: SemiSupervisedModel, batches: Sequence[tuple], encoder: str) -> dict[str, dict[str, float]]:
    """Each term's share of the gradient at the last step, in the encoders and in all weights.

    Args:
        model: trained; its state moves.
        batches: inputs and targets.
        encoder: its name among the parts of the network.
    """
    encoders = {
        id(variable)
        for network in model.networks
        for layer in network.parts[encoder]
        for variable in layer.trainable_variables
    }
    norms: dict[str, list[tuple[float, float]]] = {name: [] for name in model.loss_weights}
    for inputs, targets in batches:
        model.step.assign(model.total_steps - 1)
        terms, weights = model.terms(*model.training_views(inputs, targets)).terms, model.loss_weights
        for name, term in terms.items():
            squares = [0.0, 0.0]
            model.zero_grad()
            value = weights[name] * term
            if getattr(value, "requires_grad", False):
                value.backward(retain_graph=True)
            for variable in model.trainable_variables:
                slope = variable.value.grad
                if slope is not None:
                    square = float(ops.sum(ops.square(ops.cast(slope, "float32"))))
                    squares[1] += square
                    squares[0] += square if id(variable) in encoders else 0.0
            norms[name].append((squares[0] ** 0.5, squares[1] ** 0.5))
    means = {name: np.mean(values, axis=0) for name, values in norms.items()}
    totals = np.sum(list(means.values()), axis=0)
    found = {name: mean / np.maximum(totals, 1e-30) for name, mean in means.items()}
    return {
        "encoder_share": {name: float(share[0]) for name, share in found.items()},
        "share": {name: float(share[1]) for name, share in found.items()},
    }


def line_of(method: str, options: argparse.Namespace) -> list[str]:
    """A row of the table: terms, shares, differences."""
    place = options.output / method
    rows = {
        arm: {
            int(each.parent.name): read_rows(each)
            for each in (place / arm).glob("*/images.csv")
            if int(each.parent.name) in options.seeds
        }
        for arm in ARMS
    }

    def gain(first: str, second: str) -> str:
        seeds = sorted(rows[first].keys() & rows[second].keys())
        if not seeds:
            return "-"
        pairs = [(rows[first][seed], rows[second][seed]) for seed in seeds]
        found = paired_scores(pairs)[SCORE[options.task]]
        return f"{100 * found[0]:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"

    details = [read_sealed(place / "method" / str(seed) / "details.json") for seed in rows["method"]]
    if not details:
        return []
    cells = []
    for name in details[0]["share"]:
        if not name.endswith("supervised"):
            values = [value for each in details for value in each["history"][name]]
            shares = [
                f"{100 * np.mean([each[key][name] for each in details]):.2g}" for key in ("encoder_share", "share")
            ]
            cells.append(f"{name} {min(values):.3g} to {max(values):.3g}, {shares[0]} / {shares[1]} %")
    score = np.mean([mean_score(each, options.task) for each in rows["method"].values()])
    seconds = np.mean([each["seconds"] for each in details]) / options.steps
    return [
        method,
        "; ".join(cells),
        f"{100 * score:.1f}",
        gain("method", "control"),
        gain("truth", "method"),
        f"{1000 * seconds:.0f}",
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Trains what is not there, seed by seed, then prints the table."""
    options = parsed(argv)
    if not options.table:
        for seed in options.seeds:
            bench = Bench(seed, options)
            for method in options.methods:
                for arm in ARMS if seed == 0 else ARMS[:2]:
                    if not (options.output / method / arm / str(seed) / "images.csv").exists():
                        bench.run(method, arm)
    lines = [line for method in options.methods if (line := line_of(method, options))]
    score = {"dice": "Dice"}.get(SCORE[options.task], SCORE[options.task])
    heads = ["method", "terms: range, share of the gradient", score, "- control", "truth -", "ms a step"]
    print_table(heads, lines)


if __name__ == "__main__":
    main()
