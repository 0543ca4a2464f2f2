"""Short runs of every method on real images: whether each of them trains, and what that costs. Nothing is tuned.

    export KERAS_BACKEND=torch
    python -m benchmarks.real_input segmentation --busi BUSI --kvasir Kvasir-SEG --weights resnet18.npz
    python -m benchmarks.real_input classification --busi BUSI --weights resnet18.npz
    python -m benchmarks.real_input classification --table

segmentation: BUSI with 72 labels and Kvasir-SEG with 10 %, 96 pixels, 100 steps, seed 0. classification: BUSI with two
and with three classes, 72 labels, 64 pixels, 400 steps from a supervised run of 300, seeds 0 to 2. Each run is a
`python -m recipes.train` of its own, in one folder a data set, method and seed; the same command goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.experiments.console import print_table
from keras_semimed.files import read_sealed, read_table
from keras_semimed.models import METHODS

COMMON = "--encoder resnet18 --network unet --preset small --pseudo-labels 32 --epoch-steps 50"
SEGMENTATION = {
    "busi": "busi --labeled 72 --tasks segmentation",
    "kvasir": "kvasir_seg --labeled 0.1 --split random",
}
CLASSIFICATION = {
    "two classes": "busi --labeled 72 --tasks classification",
    "three classes": "busi --labeled 72 --tasks classification --classes benign,malignant,normal",
}
SIZES = {"segmentation": "--image-size 96 --batch-size 4", "classification": "--image-size 64 --batch-size 8"}
FIRST, STEPS = 300, {"segmentation": 100, "classification": 400}
SCORES = {
    "segmentation": {"dice": "Dice", "nsd_at_2": "NSD"},
    "classification": {"accuracy": "accuracy", "balanced_accuracy": "balanced", "auroc": "AUROC"},
}


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=tuple(STEPS))
    parser.add_argument("--data", nargs="+", choices=(*SEGMENTATION, *CLASSIFICATION), help="(all of the task)")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), help="(all that can do the task)")
    parser.add_argument("--seeds", nargs="+", type=int, help="(0; classification: 0 1 2)")
    parser.add_argument("--busi", type=Path, help="BUSI's folder")
    parser.add_argument("--kvasir", type=Path, help="Kvasir-SEG's folder")
    parser.add_argument("--weights", help="start weights of the encoder, a ResNet-18")
    parser.add_argument("--output", type=Path, default=Path("runs/real_input"), help="folder of the runs")
    parser.add_argument("--table", action="store_true", help="train nothing, print what there is")
    options = parser.parse_args(argv)
    able = [name for name, method in METHODS.items() if options.task in method.supports]
    if options.task == "classification":  # those that learn masks as well are in the other table
        able = [name for name in able if name in ("supervised", "fixmatch") or len(METHODS[name].supports) == 1]
    options.methods = options.methods or able
    sets = SEGMENTATION if options.task == "segmentation" else CLASSIFICATION
    if unknown := set(options.data or ()) - set(sets):
        parser.error(f"--data: {options.task} has {', '.join(sets)}, found {', '.join(sorted(unknown))}")
    options.data = {data: flags for data, flags in sets.items() if not options.data or data in options.data}
    options.seeds = options.seeds or ([0] if options.task == "segmentation" else [0, 1, 2])
    return options


def folder_of(options: argparse.Namespace, data: str, method: str, seed: int) -> Path:
    """Where a run is."""
    return options.output / options.task / data.replace(" ", "_") / method / str(seed)


def train(options: argparse.Namespace, data: str, flags: str, method: str, seed: int, first: bool = False) -> None:
    """One run, in a process of its own, so that its peak memory is its own.

    Args:
        options: The command line.
        data: Name of the data set in the table.
        flags: Its flags.
        method: Name of the method.
        seed: Of the run.
        first: Whether it is the supervised run that the others start from.
    """
    folder = folder_of(options, data, "first" if first else method, seed)
    if (folder / "report.html").exists():
        return
    steps, place = FIRST if first else STEPS[options.task], options.kvasir if data == "kvasir" else options.busi
    words = [*flags.split(), *COMMON.split(), *SIZES[options.task].split(), "--method", method, "--seed", str(seed)]
    words += ["--steps", str(steps), "--manual-dir", str(place), "--output", str(folder), "--resume"]
    if options.task == "classification" and not first:
        words += ["--start-from", str(folder_of(options, data, "first", seed)), "--learning-rate", "5e-4"]
    words += ["--weights", str(options.weights)]
    print(" ".join(words), flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".log"), "w", encoding="utf-8") as log:
        code = subprocess.call([sys.executable, "-m", "recipes.train", *words], stdout=log, stderr=subprocess.STDOUT)
    if code:
        sys.exit(f"ended with {code}; see {folder.with_suffix('.log')}")


def cells(options: argparse.Namespace, data: str, method: str) -> dict[str, Any] | None:
    """What the runs of a method on some data found: means over the seeds."""
    found: list[dict[str, float]] = []
    for seed in options.seeds:
        folder = folder_of(options, data, method, seed)
        if not (folder / "report.html").exists():
            continue
        config = read_sealed(folder / "config.json", sealed=False)
        values = dict(config["result"]["last"])
        values["seconds"] = config["cost"]["training_seconds"]
        values["memory"] = config["cost"]["peak_memory_mib"] or np.nan
        watched, head = folder / "pseudo_labels.json", "mask" if options.task == "segmentation" else "label"
        history = read_sealed(watched, sealed=False)["history"] if watched.exists() else []
        values["right"] = history[-1].get(f"{head}_selected_accuracy", np.nan) if history else np.nan
        values["kept"] = float(read_table(folder / "metrics.csv")[-1].get(f"{head}_selected", "nan"))
        found.append(values)
    if not found:
        return None
    keys = [*SCORES[options.task], "seconds", "memory", "kept", "right"]
    return {key: np.nanmean([each.get(key, np.nan) for each in found]) for key in keys} | {"runs": len(found)}


def main(argv: Sequence[str] | None = None) -> None:
    """Trains what is not there, then prints a table a data set."""
    options = parsed(argv)
    if not options.table:
        for seed in options.seeds:
            for data, flags in options.data.items():
                if options.task == "classification":
                    train(options, data, flags, "supervised", seed, first=True)
                for method in options.methods:
                    train(options, data, flags, method, seed)
    for data in options.data:
        lines, base = [], cells(options, data, "supervised")
        for method in options.methods:
            row = cells(options, data, method)
            if row is None:
                continue
            relative = ["-", "-"]
            if base is not None:
                relative = [f"{row[key] / base[key]:.2f}" for key in ("seconds", "memory")]
            scores = [f"{100 * row[key]:.1f}" for key in SCORES[options.task]]
            kept = [f"{row[key]:.2f}" if np.isfinite(row[key]) else "-" for key in ("kept", "right")]
            lines.append([method, *scores, *kept, *relative, str(row["runs"])])
        print(f"\n{data}")
        heads = ["method", *SCORES[options.task].values(), "kept", "right of them", "time", "memory", "runs"]
        print_table(heads, lines)


if __name__ == "__main__":
    main()
