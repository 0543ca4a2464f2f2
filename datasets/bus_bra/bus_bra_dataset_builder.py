"""BUS-BRA: breast ultrasound images with a lesion mask, a class, a BI-RADS category and published folds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from keras_semimed.data.bus_bra import BIRADS, CLASSES, HOW_TO_GET, BusBraSource
from keras_semimed.data.examples import pair_examples
from keras_semimed.data.images import encode_png


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for BUS-BRA; `manual_dir` holds the extracted folder or its zip."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "All images; lesion where a mask is above 127; patients as groups; published folds."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = HOW_TO_GET

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                    "birads": tfds.features.ClassLabel(names=BIRADS),
                    "histology": tfds.features.Text(),
                    "device": tfds.features.Text(),
                    "side": tfds.features.ClassLabel(names=("left", "right", "single")),
                    "fold_5": np.int32,
                    "fold_10": np.int32,
                    "file_name": tfds.features.Text(),
                    "group": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://doi.org/10.1002/mp.16812",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        source = BusBraSource(dl_manager.manual_dir)
        self.info.metadata["files"] = source.fingerprint()
        return {"train": self._generate_examples(source)}

    def _generate_examples(self, source: BusBraSource) -> Iterator[tuple[str, dict[str, Any]]]:
        for files, example in zip(source.files, pair_examples(source), strict=True):
            record = source.records[example.name]
            yield (
                example.name,
                {
                    "image": encode_png(example.image),
                    "mask": encode_png(example.mask[..., None]),
                    "label": example.label,
                    "birads": record.birads,
                    "histology": record.histology,
                    "device": record.device,
                    "side": record.side,
                    "fold_5": record.fold_5,
                    "fold_10": record.fold_10,
                    "file_name": PurePosixPath(files.image).name,
                    "group": example.group,
                },
            )
