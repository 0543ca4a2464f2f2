"""How many cached images a second the host hands to `fit`, and whether its memory stays flat over the epochs.

Made images are kept in memory and on disk; batches are read as `fit` reads them: one after another (`numpy`), as a
tf.data pipeline, and with a strong view of keras-cv made on the host (`policy`).

    python -m benchmarks.pipeline --image-size 256 --epochs 20
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable

import numpy as np

from keras_semimed.data import ImageSet, SemiSupervisedBatches, as_tf_data, rand_augment
from keras_semimed.data.cache import Stack, memory_limit


def resident_mib() -> float:
    """Memory of this process that belongs to it alone: mapped files, which the system drops at will, are left out."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def made_batches(arguments: argparse.Namespace, cache: str) -> SemiSupervisedBatches:
    """Random images, a tenth of them labelled."""
    rng = np.random.default_rng(0)
    size, count = arguments.image_size, arguments.images
    stack = Stack(memory_limit(cache))
    for _ in range(count):
        stack.append(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
    images = stack.rows(range(count))
    names = [f"image {index}" for index in range(count)]
    labels = (np.arange(count) % 2).astype("int32")
    masks = rng.integers(0, 2, (count, size, size), dtype=np.uint8)
    images_and_targets = ImageSet(names, images, masks, labels)
    first = count // 10
    return SemiSupervisedBatches(
        images_and_targets.select(names[:first]), images_and_targets.select(names[first:]), arguments.batch_size
    )


def measure(
    name: str, epoch: Callable[[], Iterable], arguments: argparse.Namespace, batches: SemiSupervisedBatches
) -> None:
    """Reads the epochs and prints a line."""
    memory, count, start = [], 0, time.perf_counter()
    for index in range(arguments.epochs):
        batches.epoch = index
        for inputs, _ in epoch():
            count += sum(len(inputs[part]) for part in ("labeled", "unlabeled"))
        memory.append(resident_mib())
    rate = count / (time.perf_counter() - start)
    print(
        f"{name:16s}{rate:10.0f} images/s   memory after epoch 1, {arguments.epochs // 2}, {arguments.epochs}: "
        f"{memory[0]:.0f}, {memory[len(memory) // 2 - 1]:.0f}, {memory[-1]:.0f} MiB",
        flush=True,
    )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="number of images (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=256, help="their side in pixels (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="labelled, and as many unlabelled (default: 8)")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the unlabelled images (default: 20)")
    arguments = parser.parse_args()
    policy = rand_augment()
    for cache in ("memory", "disk"):
        batches = made_batches(arguments, cache)
        measure(f"{cache}, numpy", lambda data=batches: map(data.__getitem__, range(len(data))), arguments, batches)
        for name, dataset in (("tf.data", as_tf_data(batches)), ("policy", as_tf_data(batches, policy))):
            measure(f"{cache}, {name}", dataset.as_numpy_iterator, arguments, batches)


if __name__ == "__main__":
    main()
