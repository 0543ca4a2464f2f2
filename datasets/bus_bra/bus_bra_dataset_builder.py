"""BUS-BRA: breast ultrasound images with a lesion mask, a class, a BI-RADS category and published folds."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from keras_semimed.data.readers.builder import SourceBuilder
from keras_semimed.data.readers.bus_bra import BIRADS, HOW_TO_GET, BusBraSource


class Builder(SourceBuilder):
    """DatasetBuilder for BUS-BRA; `manual_dir` holds the extracted folder or its zip."""

    RELEASE_NOTES = {"1.0.0": "All images; lesion where a mask is above 127; patients as groups; published folds."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = HOW_TO_GET
    SOURCE = BusBraSource
    HOMEPAGE = "https://doi.org/10.1002/mp.16812"

    def further_features(self) -> dict[str, Any]:
        """What the tables say of an image."""
        return {
            "birads": tfds.features.ClassLabel(names=BIRADS),
            "histology": tfds.features.Text(),
            "device": tfds.features.Text(),
            "side": tfds.features.ClassLabel(names=("left", "right", "single")),
            "fold_5": np.int32,
            "fold_10": np.int32,
        }

    def further_values(self, source: BusBraSource, name: str) -> dict[str, Any]:
        """Their values of one image."""
        record = source.records[name]
        return {feature: getattr(record, feature) for feature in self.further_features()}
