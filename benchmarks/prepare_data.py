"""Prepares the real data sets of a folder through the TFDS builders and checks every image.

Checked of each image: its name, class, patient or sequence against the manifests; its size and every pixel of its mask
against the mask files, read once more without the package (the union of all files of an image, above 127); and for BUSI
the lesion fraction of the manifest.

Each set is prepared in a process of its own, in a new folder that is deleted afterwards. Time is that of preparing and
reading back; peak memory is that of the process, TensorFlow included (its import alone takes most of it).

    python -m benchmarks.prepare_data --shared ../shared/data

The folder holds `Dataset_BUSI_with_GT`, `BUSBRA`, `CVC-ClinicDB`, `Kvasir-SEG` and `Kvasir-SEG-256x256`, the parts of
them that the lists in its `manifests` name. Exit status 1: something does not fit, or a set is missing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

SETS = {
    "Dataset_BUSI_with_GT": "busi",
    "BUSBRA": "bus_bra",
    "CVC-ClinicDB": "cvc_clinicdb",
    "Kvasir-SEG": "kvasir_seg",
    "Kvasir-SEG-256x256": "kvasir_seg",
}
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


class Expected(NamedTuple):
    """What is known of an image without the package."""

    masks: list[Path]
    label: str | None
    """Name of its class; None where the set has none."""
    group: str | None
    """Its sequence or patient; None where near-duplicates decide."""
    fraction: float | None
    """Part of the image that is lesion, from a manifest, to five digits."""


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def expected(shared: Path, folder: str) -> dict[str, Expected]:
    """What the manifests say about the images of a set."""
    place, manifests = shared / folder, shared / "manifests"
    if folder == "Dataset_BUSI_with_GT":
        return {
            row["name"]: Expected(
                [place / row["class"] / name for name in row["mask_files"].split(";")],
                row["class"],
                None,
                float(row["lesion_fraction"] or 0),
            )
            for row in rows_of(manifests / "BUSI_full_780.csv")
        }
    if folder == "BUSBRA":
        table = {row["ID"]: row for row in rows_of(place / "bus_data.csv")}
        ids = (manifests / "BUSBRA_present_ids.txt").read_text(encoding="utf-8").split()
        return {
            name: Expected(
                [place / "Masks" / f"{name.replace('bus', 'mask')}.png"],
                table[name]["Pathology"],
                f"case_{int(table[name]['Case']):04d}",
                None,
            )
            for name in ids
        }
    if folder == "CVC-ClinicDB":
        rows = [row for row in rows_of(manifests / "CVC-ClinicDB_sequences.csv") if row["in_subset"] == "1"]
        return {
            row["frame"]: Expected(
                [place / "Ground Truth" / f"{row['frame']}.tif"], None, f"sequence_{int(row['sequence']):02d}", None
            )
            for row in rows
        }
    column = "original_in_subset" if folder == "Kvasir-SEG" else "resized_in_subset"
    rows = [row for row in rows_of(manifests / "Kvasir-SEG_original_sha256.csv") if row[column] == "1"]
    names = [Path(row["path"]).stem for row in rows if row["path"].startswith("images/")]
    return {name: Expected([place / "masks" / f"{name}.jpg"], None, name, None) for name in names}


def problems(example: Any, known: Expected, class_names: tuple[str, ...]) -> Iterator[str]:
    """What does not fit about one image."""
    lesion = np.logical_or.reduce([np.asarray(Image.open(mask).convert("L")) > 127 for mask in known.masks])
    if example.image.shape != (*lesion.shape, 3):
        yield f"image of {example.image.shape}, mask file of {lesion.shape}"
    elif not np.array_equal(example.mask, lesion):
        yield f"{int(example.mask.sum())} pixels of lesion, {int(lesion.sum())} in the files"
    if known.fraction is not None and abs(example.mask.mean() - known.fraction) > 6e-6:
        yield f"lesion fraction {example.mask.mean():.5f}, {known.fraction:.5f} in the manifest"
    if known.label != (None if example.label is None else class_names[example.label]):
        yield f"class {example.label}, {known.label} in the manifest"
    if known.group not in (None, example.group):
        yield f"group {example.group}, {known.group} in the manifest"


def check(shared: Path, folder: str) -> dict[str, Any]:
    """Prepares one set and returns its row of the table."""
    import tensorflow_datasets as tfds

    from keras_semimed.data.cards import card
    from keras_semimed.data.tfds import tfds_examples

    tfds.disable_progress_bar()
    facts, known = card(SETS[folder]), expected(shared, folder)
    found: list[str] = []
    counts: Counter[str] = Counter()
    pixels = 0
    groups = set()
    with tempfile.TemporaryDirectory() as data_dir:
        start = time.perf_counter()
        seconds = 0.0
        names = []
        for example in tfds_examples(SETS[folder], shared / folder, data_dir):
            seconds += time.perf_counter() - start  # without the time that the check takes
            names.append(example.name)
            groups.add(example.group)
            if example.label is not None:
                counts[facts.class_names[example.label]] += 1
            pixels += int(example.mask.sum())
            if example.name in known:
                found += [
                    f"{example.name}: {text}" for text in problems(example, known[example.name], facts.class_names)
                ]
            start = time.perf_counter()
    missing, unknown = sorted(known.keys() - set(names)), sorted(set(names) - known.keys())
    found += [f"{name}: in the manifest, not prepared" for name in missing]
    found += [f"{name}: prepared, not in the manifest" for name in unknown]
    return {
        "folder": folder,
        "images": len(names),
        "expected": len(known),
        "classes": ", ".join(f"{counts[name]} {name}" for name in facts.class_names) or "-",
        "groups": len(groups),
        "masks": sum(len(known[name].masks) for name in names if name in known),
        "pixels": pixels,
        "problems": found,
        "seconds": round(seconds, 1),
        "memory": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10),
    }


def main() -> int:
    """Checks every set in a process of its own and prints the table; 1 if something does not fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with the data sets and manifests")
    parser.add_argument("--only", choices=tuple(SETS), help="check one set and print its row as JSON")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(check(arguments.shared, arguments.only)))
        return 0
    print("| folder | builder | images | classes | groups | mask files | lesion pixels | wrong | time | peak memory |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    wrong = 0
    texts = []
    for folder, name in SETS.items():
        if not (arguments.shared / folder).is_dir():
            texts.append(f"{arguments.shared / folder} does not exist")
            continue
        command = [sys.executable, "-m", "benchmarks.prepare_data", "--shared", str(arguments.shared), "--only", folder]
        row = json.loads(
            subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=QUIET).stdout.splitlines()[-1]
        )
        wrong += len(row["problems"])
        texts += [f"{folder}: {text}" for text in row["problems"]]
        print(
            f"| {folder} | {name} | {row['images']} of {row['expected']} | {row['classes']} | {row['groups']} | "
            f"{row['masks']} | {row['pixels']:,} | {len(row['problems'])} | {row['seconds']} s | {row['memory']} MiB |",
            flush=True,
        )
    print("\n".join(texts) if texts else "every image fits")
    return int(bool(texts))


if __name__ == "__main__":
    sys.exit(main())
