"""Near-duplicate images, so that a split can keep them on one side.

Two measures, both the correlation of 48x48 thumbnails:

- `"grey"`: of grey values, near-duplicates above 0.93. The groups of BUSI and UDIAT, and so the leak-safe splits, are
  made with it. It is quick to trust pictures that are bright above and dark below, and misses a repeated lesion after a
  change of gain or a cut corner.
- `"detail"`: of grey values after the brightness and the contrast around each pixel are divided out, near-duplicates
  above 0.55. On BUSI it finds more pairs of one lesion and fewer that are none (see docs/data.md).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

THRESHOLDS = {"grey": 0.93, "detail": 0.55}
"""Two images with a higher correlation are near-duplicates."""

_SIDE = 48
_AROUND = 5.0  # standard deviation, in pixels of the thumbnail, of what counts as around a pixel
_BLOCK = 512
_Item = TypeVar("_Item")


def thumbnail(image: np.ndarray, measure: str = "grey") -> np.ndarray:
    """Returns the 48x48 grey thumbnail, `(2304,)` float32, with mean 0 and norm 1 (all 0 for a constant image).

    The product of two thumbnails is their correlation.

    Args:
        image: `(H, W)`, `(H, W, 1)` or `(H, W, 3)` uint8 of any size.
        measure: `"grey"`, or `"detail"` for brightness and contrast that are divided out locally.

    Raises:
        ValueError: If there is no such measure.
    """
    check_measure(measure)
    grey = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).convert("L")
    pixels = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), "float64")
    if measure == "detail":
        pixels = _without_local_brightness(pixels)
    pixels = pixels.ravel() - pixels.mean()
    return (pixels / max(np.linalg.norm(pixels), 1e-12)).astype("float32")


def thumbnails(images: Iterable[np.ndarray | str | Path], measure: str = "grey") -> np.ndarray:
    """Returns `(N, 2304)` float32, the `thumbnail` of each image; all processors decode and shrink.

    Args:
        images: Images as `thumbnail` takes them, or paths of image files. Few of them are in memory at a time.
        measure: As in `thumbnail`.

    Raises:
        ValueError: If a file is damaged or no image, or there is no such measure.
    """

    def make(image: np.ndarray | str | Path) -> np.ndarray:
        if isinstance(image, str | Path):
            from keras_semimed.data.images import read_image

            image = read_image(image)
        return thumbnail(image, measure)

    check_measure(measure)
    rows = list(_in_threads(make, images))
    return np.stack(rows) if rows else np.zeros((0, _SIDE**2), "float32")


def near_duplicate_groups(
    images: Iterable[np.ndarray | str | Path], threshold: float | None = None, measure: str = "grey"
) -> np.ndarray:
    """Groups images by single linkage on the correlation of their thumbnails.

    Args:
        images: As `thumbnails` takes them.
        threshold: Two images with a higher correlation are in one group; None means the measure's of `THRESHOLDS`.
        measure: `"grey"` or `"detail"`.

    Returns:
        `(N,)` int: position of the first image of each image's group.

    Raises:
        ValueError: As `thumbnails`.
    """
    return group_thumbnails(thumbnails(images, measure), THRESHOLDS[measure] if threshold is None else threshold)


def group_thumbnails(vectors: Sequence[np.ndarray] | np.ndarray, threshold: float = THRESHOLDS["grey"]) -> np.ndarray:
    """`near_duplicate_groups` for thumbnails that were made while reading; `(N,)` int."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = np.arange(len(vectors))
    for rows, columns, _ in _blocks_of_pairs(np.asarray(vectors), threshold):
        # What the blocks before have joined stays joined: each image is linked with the first one of its group.
        edges = np.concatenate([rows, np.arange(len(first))]), np.concatenate([columns, first])
        graph = coo_array((np.ones(len(edges[0]), bool), edges), shape=(len(first), len(first)))
        _, component = connected_components(graph, directed=False)
        _, heads = np.unique(component, return_index=True)
        first = heads[component]
    return first


def near_duplicate_pairs(
    vectors: Sequence[np.ndarray] | np.ndarray, threshold: float = THRESHOLDS["grey"]
) -> list[tuple[int, int, float]]:
    """Returns the pairs `(a, b, correlation)`, a < b, above a threshold, the most alike first.

    Args:
        vectors: `(N, 2304)` thumbnails.
        threshold: Correlation above which two images are a pair.
    """
    pairs = [
        (int(a), int(b), float(value))
        for block in _blocks_of_pairs(np.asarray(vectors), threshold)
        for a, b, value in zip(*block, strict=True)
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair))


def check_measure(measure: str) -> None:
    """Raises ValueError if there is no such measure."""
    if measure not in THRESHOLDS:
        raise ValueError(f"`measure` must be {' or '.join(map(repr, THRESHOLDS))}, found {measure!r}")


def _blocks_of_pairs(vectors: np.ndarray, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Positions and correlations of the pairs above the threshold; memory grows with N, not with its square."""
    for start in range(0, len(vectors), _BLOCK):
        correlation = vectors[start : start + _BLOCK] @ vectors[start:].T
        rows, columns = np.nonzero(np.triu(correlation > threshold, 1))
        yield rows + start, columns + start, correlation[rows, columns]


def _without_local_brightness(pixels: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    detail = pixels - gaussian_filter(pixels, _AROUND)
    contrast = np.sqrt(gaussian_filter(detail**2, _AROUND))
    return detail / np.maximum(contrast, 1.0)  # a flat place stays flat: below one grey value there is noise alone


def _in_threads(function: Callable[[_Item], np.ndarray], items: Iterable[_Item]) -> Iterator[np.ndarray]:
    """`map` on all processors, a few items ahead at a time; Pillow works outside Python's lock."""
    workers = os.cpu_count() or 1
    iterator = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        while batch := list(itertools.islice(iterator, 8 * workers)):
            yield from pool.map(function, batch)
