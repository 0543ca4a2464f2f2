"""The size at which masks are compared: the network's, or that of the images' files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

Size = Literal["network", "own"]
TABLES: Mapping[Size, str] = {"network": "images.csv", "own": "images_own_size.csv"}
"""Files of a run that hold the rows of `evaluate_sizes`."""
RESULTS: Mapping[Size, str] = {"network": "result", "own": "result_own_size"}
"""Entries of a run's config.json that hold what `summarize` makes of them."""
OWN_SIZE = (
    "At the files' own size predictions are resized to each file and compared with its mask as annotated; px are "
    "pixels of the file."
)


def size_in_words(size: Size, image_sizes: Iterable[int | None] = ()) -> str:
    """At which size masks were compared, as captions say it.

    Args:
        size: As in `evaluate_images`.
        image_sizes: Of the networks, in pixels; None where one is not known.
    """
    if size == "own":
        return "at the files' own size"
    known = sorted({side for side in image_sizes if side is not None})
    return "at the network's size" + (f", {' and '.join(f'{side} x {side}' for side in known)} pixels" if known else "")


def measured_in_mm(scores: Mapping[str, float]) -> str:
    """How many of the images of a summary stand behind its scores in mm; empty where it has none."""
    if "images_in_mm" not in scores:
        return ""
    return f"In mm: the {scores['images_in_mm']:.0f} of {scores['images']:.0f} images whose pixels' size is known."
