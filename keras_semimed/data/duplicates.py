"""Near-duplicate images, so that a split can keep them on one side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

_SIDE = 48


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Returns the 48x48 grey thumbnail, `(2304,)` float32, with mean 0 and norm 1 (all 0 for a constant image).

    The product of two thumbnails is their correlation.

    Args:
        image: `(H, W)`, `(H, W, 1)` or `(H, W, 3)` uint8 of any size.
    """
    grey = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).convert("L")
    pixels = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), "float64").ravel()
    pixels -= pixels.mean()
    return (pixels / max(np.linalg.norm(pixels), 1e-12)).astype("float32")


def near_duplicate_groups(images: Iterable[np.ndarray], threshold: float = 0.93) -> np.ndarray:
    """Groups images by single linkage on the correlation of their 48x48 grey thumbnails.

    On BUSI pairs above 0.93 are nearly always one lesion or one patient; at 0.85 the groups run together.

    Args:
        images: Images as `thumbnail` takes them, each of any size.
        threshold: Two images with a higher correlation are in one group.

    Returns:
        `(N,)` int: position of the first image of each image's group.
    """
    thumbnails = [thumbnail(image) for image in images]
    return group_thumbnails(thumbnails, threshold)


def group_thumbnails(thumbnails: Sequence[np.ndarray], threshold: float = 0.93) -> np.ndarray:
    """`near_duplicate_groups` for thumbnails that were made while reading; `(N,)` int."""
    first = np.arange(len(thumbnails))
    if len(thumbnails) == 0:
        return first
    vectors = np.stack(thumbnails)
    for a, b in np.argwhere(np.triu(vectors @ vectors.T > threshold, 1)):
        low, high = sorted((first[a], first[b]))
        first[first == high] = low
    return first
