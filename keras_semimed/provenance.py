"""What a model was trained and scored on: part of the saved and the exported model."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from keras_semimed.data import ImageSet

PROVENANCE = "keras_semimed.provenance"
"""Entry of an exported file's metadata that holds it."""


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What a model was trained and scored on.

    `fit` notes the images, a run of the recipes the rest; in a notebook it is
    `model.provenance = dataclasses.replace(model.provenance, split=parts.hash, scores=summary)`.

    Args:
        labeled: Number of labelled images.
        unlabeled: Number of unlabelled images.
        data: Digest of the images with their names and targets, as they were trained on; see `data_digest`.
        data_set: Name of the data set or folder.
        split: Hash of the split, see `Split.hash`.
        scored: What the scores are of, such as `"test"`.
        scores: Name and value of each score, see `summarize`.
    """

    labeled: int
    unlabeled: int
    data: str
    data_set: str = ""
    split: str = ""
    scored: str = ""
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        name = f" of {self.data_set}" if self.data_set else ""
        words = f"{self.labeled} labelled and {self.unlabeled} unlabelled images{name} (digest {self.data}"
        return f"{words}, split {self.split})" if self.split else f"{words})"

    @property
    def scores_in_words(self) -> str:
        """The scores as a line of text."""
        found = ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
        return f"{self.scored or 'images that are not named'}: {found}" if found else "none noted"

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` takes, as JSON keeps it."""
        return {**dataclasses.asdict(self), "scores": {name: float(value) for name, value in self.scores.items()}}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Makes one from what `get_config` returned."""
        known = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: config[name] for name in known if name in config})


def data_digest(labeled: ImageSet, unlabeled: ImageSet) -> str:
    """Tells training images from others: 12 hexadecimal digits over names, pixels, masks and labels.

    What is known of the unlabelled images is not trained on, and does not count.
    """
    return hashlib.sha256(f"{labeled.digest} {unlabeled.images_digest}".encode()).hexdigest()[:12]
