"""BUSI: breast ultrasound images with lesion masks and a class each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from keras_semimed.data.busi import CLASSES, HOW_TO_GET, BusiSource
from keras_semimed.data.examples import busi_examples
from keras_semimed.data.images import encode_png


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for BUSI; `manual_dir` holds the extracted folder or its zip."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "All 780 images; the union of an image's masks; near-duplicate groups at 0.93."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = HOW_TO_GET

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                    "file_name": tfds.features.Text(),
                    "group": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://doi.org/10.1016/j.dib.2019.104863",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        source = BusiSource(dl_manager.manual_dir)
        self.info.metadata["files"] = source.fingerprint()
        return {"train": self._generate_examples(source)}

    def _generate_examples(self, source: BusiSource) -> Iterator[tuple[str, dict[str, Any]]]:
        for example in busi_examples(source.path):
            yield (
                example.name,
                {
                    "image": encode_png(example.image),
                    "mask": encode_png(example.mask[..., None]),
                    "label": example.label,
                    "file_name": f"{example.name}.png",
                    "group": example.group,
                },
            )
