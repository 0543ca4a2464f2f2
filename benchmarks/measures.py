"""How far 95 % Hausdorff distances of three definitions are apart, on pairs of random blobs.

    pip install monai medpy
    python -m benchmarks.measures

The package's is that of outlines, as in DeepMind's `surface-distance`: the larger of two quantiles over elements of the
outline, each weighing its length. MONAI and MedPy measure between the centres of the masks' outer pixels, each weighing
the same, and interpolate the percentile: MONAI takes the larger one of the two directions, MedPy that of both together.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from keras_semimed.metrics import hausdorff_distance_95


def blobs(count: int, size: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of blobs that overlap in part: of smooth noise above a level, and of the same with other noise added."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    while count:
        fields = random.normal(size=(2, size, size))
        fields[1] += random.uniform(1, 8) * fields[0]
        fields = gaussian_filter(fields, (0, size / 10, size / 10))
        level = np.quantile(fields, random.uniform(0.6, 0.95), axis=(1, 2), keepdims=True)
        truth, prediction = (largest_part(mask) for mask in fields > level)
        if (truth & prediction).any():
            count -= 1
            yield truth, prediction


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The connected part with the most pixels."""
    from scipy.ndimage import label

    parts, _ = label(mask)
    return parts == 1 + np.bincount(parts[mask])[1:].argmax()


def monai(truth: np.ndarray, prediction: np.ndarray) -> float:
    """HD95 of MONAI."""
    import torch
    from monai.metrics import compute_hausdorff_distance

    masks = (torch.from_numpy(mask[None, None]) for mask in (prediction, truth))
    return float(compute_hausdorff_distance(*masks, include_background=True, percentile=95))


def medpy(truth: np.ndarray, prediction: np.ndarray) -> float:
    """HD95 of MedPy."""
    from medpy.metric.binary import hd95

    return float(hd95(prediction, truth))


def main() -> None:
    """Prints a line for each of the other definitions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="pairs of blobs (200)")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels (64)")
    parser.add_argument("--seed", type=int, default=0, help="of the blobs (0)")
    arguments = parser.parse_args()
    pairs = list(blobs(arguments.pairs, arguments.size, arguments.seed))
    ours = np.array([hausdorff_distance_95(*pair) for pair in pairs])
    print(f"{len(pairs)} pairs of blobs, {arguments.size} pixels; HD95 of outlines {ours.mean():.2f} on average")
    for name, measure in (("MONAI", monai), ("MedPy", medpy)):
        difference = np.array([measure(*pair) for pair in pairs]) - ours
        apart = np.abs(difference)
        print(
            f"{name}: {difference.mean():+.2f} on average; apart {apart.mean():.2f} on average, {apart.max():.2f} at "
            f"most; equal to 0.01 on {(apart < 0.01).sum()}"
        )


if __name__ == "__main__":
    main()
