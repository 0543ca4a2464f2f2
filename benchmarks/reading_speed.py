"""How many image files a second are read into an image set, and what memory that takes.

Makes a folder of images with masks, PNG and JPEG in turn, of several sizes, and reads it with `read_folder`. Two
versions of the package are compared by reading the same folder with each, several times in turn; seconds of the
processor are disturbed less by other programs than those of the clock.

    python -m benchmarks.reading_speed --make runs/files
    python -m benchmarks.reading_speed runs/files
    PYTHONPATH=ANOTHER_CLONE python benchmarks/reading_speed.py runs/files
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((310, 470), (500, 560), (576, 720))


def make(folder: Path, count: int) -> None:
    """Writes `count` files: nine of ten are images with a mask and these masks, the others unlabelled images."""
    rng = np.random.default_rng(0)
    for place in ("labeled/images", "labeled/masks", "unlabeled"):
        (folder / place).mkdir(parents=True)
    coarse = [rng.integers(0, 256, (height // 8, width // 8, 3), dtype="uint8") for height, width in SIZES]
    for index in range(count - count * 9 // 20):
        height, width = SIZES[index % len(SIZES)]
        picture = Image.fromarray(np.roll(coarse[index % len(SIZES)], index, (0, 1))).resize((width, height))
        picture.putpixel((index % width, index // width), (255, 0, 0))  # no picture twice
        suffix = ("png", "jpg")[index % 2]
        if index >= count * 9 // 20:
            picture.save(folder / f"unlabeled/{index:05d}.{suffix}")
            continue
        picture.save(folder / f"labeled/images/{index:05d}.{suffix}")
        rows, columns = np.ogrid[:height, :width]
        radius = 20 + index % 100
        lesion = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < radius**2
        Image.fromarray(lesion.astype("uint8") * 255).save(folder / f"labeled/masks/{index:05d}.png")


def main() -> None:
    """Makes or reads a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--make", action="store_true", help="write the folder instead of reading it")
    parser.add_argument("--files", type=int, default=5000, help="how many to write (5000)")
    parser.add_argument("--image-size", type=int, default=224, help="side in pixels (224)")
    options = parser.parse_args()
    if options.make:
        make(options.folder, options.files)
        return
    from keras_semimed.data import read_folder

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    clock, processor = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        folder = read_folder(options.folder, options.image_size)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    count = len(folder.labeled) + len(folder.unlabeled)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{count} images: {count / clock:.0f} a second ({clock:.1f} s, processor {processor:.1f} s), "
        f"peak memory {peak:.0f} MiB, {before:.0f} before",
        file=sys.stdout,
    )


if __name__ == "__main__":
    main()
