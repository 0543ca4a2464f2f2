"""What near-duplicates on both sides of a split do to BUSI's scores.

    python -m recipes.leakage --manual-dir Dataset_BUSI_with_GT --weights resnet18.npz

Trains supervised classification and segmentation on several draws of the paper-like and of the leak-safe split, with
one budget, and prints two tables: the scores of both splits, and, on the paper-like draws, those of the test images
with and without a near-duplicate among the labelled or other training images. Runs that are finished are not repeated.
Flags that are not listed here go to `recipes.hermes_busi`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.data import Split, load_image_set
from keras_semimed.evaluation.compare import paired_difference
from keras_semimed.evaluation.intervals import few_behind
from keras_semimed.experiments.comparison.sweep import run_rows
from keras_semimed.experiments.console import GO_ON, print_table, run_main
from keras_semimed.files import read_table

SPLITS = {split: ("--method", "supervised", "--split", split) for split in ("paper", "leak_safe")}


def scored_images(path: Path, groups: dict[str, str]) -> list[dict[str, Any]]:
    """A row a test image: Dice, whether the class is right, and where its near-duplicates are."""
    split = Split.load(path / "split.txt")
    labeled = {groups[name] for name in split.labeled}
    training = labeled | {groups[name] for name in split.train_unlabeled()}
    rows = []
    for line in read_table(path / "images.csv"):
        if line["weights"] != "last":
            continue
        group = groups[line["name"]]
        twin = "labelled" if group in labeled else "unlabelled" if group in training else "none"
        right = float(line["label"] == line["prediction"])
        rows.append({"name": line["name"], "dice": float(line["dice"]), "right": right, "twin": twin})
    return rows


def mean_and_interval(rows: Sequence[dict[str, Any]], key: str) -> str:
    """Mean in per cent with a 95 % interval; the rows of one image stay together."""
    if not rows:
        return "-"
    scores = [100 * row[key] for row in rows]
    found = paired_difference(scores, [0.0] * len(rows), clusters=[row["name"] for row in rows])
    low, high = np.clip((found.low, found.high), 0, 100)
    return f"{found.mean:.1f}" + ("" if np.isnan(low) else f" [{low:.1f}, {high:.1f}]")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5, help="draws of each split (default: 5)")
    parser.add_argument("--output", type=Path, default=Path("runs/leakage"), help="folder (default: runs/leakage)")
    parser.add_argument("--manual-dir", type=Path, required=True, help="BUSI's folder or zip")
    parser.add_argument("--data-dir", type=Path, default=None, help="where TFDS keeps prepared data")
    options, flags = parser.parse_known_args(arguments)
    if options.draws < 2:
        parser.error(f"--draws must be at least 2 to see how they vary, found {options.draws}")
    if own := [flag for flag in flags if flag.partition("=")[0] in ("--seed", "--resume", "--split")]:
        parser.error(f"{own[0]} is set by this recipe: the seeds are 0 to --draws - 1, the splits both")
    places = ["--manual-dir", str(options.manual_dir)]
    places += [] if options.data_dir is None else ["--data-dir", str(options.data_dir)]
    return run_main(lambda: _run(options, (*places, *flags)), GO_ON)


def _run(options: argparse.Namespace, flags: tuple[str, ...]) -> None:
    run_rows("hermes_busi", SPLITS, range(options.draws), options.output, flags)
    images = load_image_set("busi", 32, options.manual_dir, options.data_dir, ("benign", "malignant"))
    groups = dict(zip(images.names, images.groups or images.names, strict=True))
    scores = {
        split: [scored_images(options.output / split / str(seed), groups) for seed in range(options.draws)]
        for split in SPLITS
    }
    by_split = []
    for split, draws in scores.items():
        means = {key: [100 * np.mean([row[key] for row in rows]) for rows in draws] for key in ("dice", "right")}
        spread = [f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" for values in means.values()]
        single = [" ".join(f"{value:.1f}" for value in values) for values in means.values()]
        by_split.append((split, *spread, *single))
    print_table(("split", "Dice", "accuracy", "Dice of each draw", "accuracy of each draw"), by_split)
    rows = [row for draw in scores["paper"] for row in draw]
    by_twin = [("paper", "all", rows)]
    for twin in ("labelled", "unlabelled", "none"):
        by_twin.append(("paper", twin, [row for row in rows if row["twin"] == twin]))
    by_twin.append(("leak_safe", "all (none has one)", [row for draw in scores["leak_safe"] for row in draw]))
    print()
    print_table(
        ("split", "near-duplicate in training", "test images", "Dice", "accuracy"),
        [
            (split, twin, str(len(part)), mean_and_interval(part, "dice"), mean_and_interval(part, "right"))
            for split, twin, part in by_twin
        ],
    )
    few = few_behind(min(len({row["name"] for row in part}) for _, _, part in by_twin if part))
    if few:
        print(f"\n{few}")


if __name__ == "__main__":
    sys.exit(main())
