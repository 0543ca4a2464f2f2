"""How long near-duplicates take to find among many images, and how much memory.

Two stages, timed one after the other in one process:

read     image files are decoded and shrunk to thumbnails: made PNG files, grey with speckle, 560x470 pixels, a few
         hundred of them read again and again
compare  as many made thumbnails are compared, each with each, and grouped; every fifth one is a noisy copy of another,
         and exactly these have to be found

The processors and OMP_NUM_THREADS decide how many threads read and compare.

    python -m benchmarks.near_duplicates --images 10000
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from keras_semimed.data.splits.duplicates import THRESHOLDS, group_thumbnails, thumbnails

SIZE = (560, 470)
TWIN_EVERY = 5
NOISE = 0.15  # of a twin, as a part of its norm: a correlation of 0.99


def write_files(folder: Path, count: int) -> list[Path]:
    """Makes image files: smooth shapes under multiplied noise, as in ultrasound."""
    rng = np.random.default_rng(0)
    files = []
    for index in range(count):
        shapes = Image.fromarray(rng.integers(20, 200, (9, 11), "uint8")).resize(SIZE, Image.Resampling.BICUBIC)
        speckle = rng.gamma(8, 1 / 8, SIZE[::-1])
        files.append(folder / f"{index}.png")
        Image.fromarray(np.clip(np.asarray(shapes) * speckle, 0, 255).astype("uint8")).save(files[-1])
    return files


def made_thumbnails(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Thumbnails and the position of the first image of each one's group."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, 48 * 48), "float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first = np.arange(count)
    twins = np.arange(TWIN_EVERY - 1, count, TWIN_EVERY)
    first[twins] = twins - TWIN_EVERY + 1
    noise = rng.standard_normal((len(twins), vectors.shape[1]), "float32")
    noise *= NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
    vectors[twins] = vectors[first[twins]] + noise
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), first


def peak_mib() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    """Runs both stages and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10000, help="number of images (10000)")
    parser.add_argument("--files", type=int, default=300, help="different files among them (300)")
    parser.add_argument("--measure", choices=tuple(THRESHOLDS), default="grey", help="measure of likeness (grey)")
    arguments = parser.parse_args()
    print(f"{arguments.images} images, measure {arguments.measure}, {os.cpu_count()} processors")
    print(f"at the start: peak memory {peak_mib():.0f} MiB")
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), arguments.files)
        start = time.perf_counter()
        found = thumbnails(itertools.islice(itertools.cycle(files), arguments.images), arguments.measure)
        read = time.perf_counter() - start
    print(f"read     {read:6.1f} s, {1000 * read / len(found):.2f} ms an image, peak memory {peak_mib():.0f} MiB")
    del found
    vectors, expected = made_thumbnails(arguments.images)
    start = time.perf_counter()
    first = group_thumbnails(vectors, THRESHOLDS[arguments.measure])
    compare = time.perf_counter() - start
    print(f"compare  {compare:6.1f} s, peak memory {peak_mib():.0f} MiB")
    print(f"both     {read + compare:6.1f} s; groups {'as made' if (first == expected).all() else 'WRONG'}")


if __name__ == "__main__":
    main()
