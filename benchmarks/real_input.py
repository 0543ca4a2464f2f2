"""Short runs of every method on real images: whether each of them trains, and what that costs. Nothing is tuned.

    export KERAS_BACKEND=torch
    python -m benchmarks.real_input segmentation --busi BUSI --kvasir Kvasir-SEG --weights resnet18.npz
    python -m benchmarks.real_input classification --busi BUSI --weights resnet18.npz
    python -m benchmarks.real_input classification --table

segmentation: BUSI with 72 labels and Kvasir-SEG with 10 %, 96 pixels, 100 steps, seed 0. classification: BUSI with two
and with three classes, 72 labels, 64 pixels, 400 steps from a supervised run of 300, seeds 0 to 2. Each run is a
`python -m recipes.train` of its own, in one folder a data set, method and seed; the same command goes on where it was
stopped. What each run found is kept in one file (docs/measurements/real_input.json), and not trained again; of a run
that was stopped its folder is needed.
"""

from __future__ import annotations

import argparse
import json
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
# What the presets were when these runs were made: since then DCNet's and DiffRect's depart from the papers, and
# Hermes' has its pixel contrast. In 100 steps no setting has its time.
AS_RUN = {"hermes": "--alpha 0", "dcnet": "--lambda-feature 1000", "diffrect": "--margin 0.8 --rectification-start 3"}
SIZES = {"segmentation": "--image-size 96 --batch-size 4", "classification": "--image-size 64 --batch-size 8"}
KEPT = Path(__file__).parents[1] / "docs" / "measurements" / "real_input.json"
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
    parser.add_argument("--kept", type=Path, default=KEPT, help="file of what the runs found (that of the repository)")
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
    words += [*AS_RUN.get(method, "").split(), "--weights", str(options.weights)]
    print(" ".join(words), flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".log"), "w", encoding="utf-8") as log:
        code = subprocess.call([sys.executable, "-m", "recipes.train", *words], stdout=log, stderr=subprocess.STDOUT)
    if code:
        sys.exit(f"ended with {code}; see {folder.with_suffix('.log')}")


def key_of(options: argparse.Namespace, data: str, method: str, seed: int) -> str:
    """What a run is called in the file."""
    return f"{options.task}, {data}, {method}, seed {seed}"


def keep(options: argparse.Namespace, data: str, method: str, seed: int) -> None:
    """Adds what a run found to the file."""
    folder = folder_of(options, data, method, seed)
    config = read_sealed(folder / "config.json", sealed=False)
    values = {key: config["result"]["last"][key] for key in SCORES[options.task]}
    values |= {"seconds": config["cost"]["training_seconds"], "memory": config["cost"]["peak_memory_mib"]}
    watched, head = folder / "pseudo_labels.json", "mask" if options.task == "segmentation" else "label"
    history = read_sealed(watched, sealed=False)["history"] if watched.exists() else []
    values["right"] = history[-1].get(f"{head}_selected_accuracy") if history else None
    kept = float(read_table(folder / "metrics.csv")[-1].get(f"{head}_selected", "nan"))
    values["kept"] = kept if np.isfinite(kept) else None
    values["backend"] = config["runtime"]["backend"]
    found = {**known(options), key_of(options, data, method, seed): values}
    options.kept.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", encoding="utf-8")


def known(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What the file holds."""
    return json.loads(options.kept.read_text(encoding="utf-8")) if options.kept.exists() else {}


def cells(options: argparse.Namespace, data: str, method: str) -> dict[str, Any] | None:
    """What the runs of a method on some data found: means over the seeds."""
    runs = known(options)
    keys = [key_of(options, data, method, seed) for seed in options.seeds]
    found = [runs[key] for key in keys if key in runs]
    if not found:
        return None
    names = [*SCORES[options.task], "seconds", "memory", "kept", "right"]
    values = {name: [np.nan if each[name] is None else each[name] for each in found] for name in names}
    return {name: np.nanmean(each) for name, each in values.items()} | {"runs": len(found)}


def main(argv: Sequence[str] | None = None) -> None:
    """Trains what is not there, then prints a table a data set."""
    options = parsed(argv)
    if not options.table:
        for seed in options.seeds:
            for data, flags in options.data.items():
                found = known(options)
                methods = [method for method in options.methods if key_of(options, data, method, seed) not in found]
                if methods and options.task == "classification":
                    train(options, data, flags, "supervised", seed, first=True)
                for method in methods:
                    train(options, data, flags, method, seed)
                    keep(options, data, method, seed)
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
