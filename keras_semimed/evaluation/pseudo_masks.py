"""Pseudo-masks of a few unlabelled images under each way to select pseudo-labels (Hermes' Fig. 6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.files import read_arrays, whole_file

SELECTIONS = {
    "none": "no threshold",
    "confidence": "confidence",
    "uncertainty": "uncertainty",
    "dual": "dual threshold",
    "kept": "kept by the method",
}
"""Titles of the ways to select, by the names that `SemiSupervisedModel.label_variants` gives them."""


@dataclasses.dataclass(frozen=True)
class PseudoMasks:
    """What is left of the pseudo-masks of some images.

    Attributes:
        images: 0..255, uint8. Shape: `(N, H, W, C)`.
        truths: class indices, 255 = ignored. Shape: `(N, H, W)`.
        kept: by epoch, counted from 1, and name of the selection, a key of `SELECTIONS`: class indices, 0 also where a
            pseudo-label was dropped. Shape: `(N, H, W)`, uint8.
    """

    images: np.ndarray
    truths: np.ndarray
    kept: Mapping[tuple[int, str], np.ndarray]

    def epochs(self) -> dict[int, dict[str, np.ndarray]]:
        """The masks by selection, by epoch, in order."""
        numbers = sorted({epoch for epoch, _ in self.kept})
        return {
            number: {name: self.kept[number, name] for name in SELECTIONS if (number, name) in self.kept}
            for number in numbers
        }

    def save(self, path: str | Path) -> None:
        """Writes an .npz file."""
        arrays: dict[str, Any] = {"images": self.images, "truths": self.truths}
        arrays |= {f"{epoch} {name}": values for (epoch, name), values in self.kept.items()}
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> PseudoMasks:
        """Reads what `save` wrote."""
        arrays = read_arrays(path, ("images", "truths"))
        images, truths = arrays.pop("images"), arrays.pop("truths")
        names = {key: key.split(" ") for key in arrays}
        return cls(images, truths, {(int(epoch), name): arrays[key] for key, (epoch, name) in names.items()})
