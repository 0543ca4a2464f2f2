"""TFDS builder of the synthetic colonoscopy phantoms. Nothing is downloaded: the pictures are computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from keras_semimed.data.phantoms.endoscopy import endoscopy_phantom

COUNT = 300
SIZE = 128
SEED = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """300 phantoms of 128 x 128 pixels with no, one or two polyps of two kinds."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
                    "mask": tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png"),
                    "file_name": tfds.features.Text(),
                    "group": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "mask"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for index in range(COUNT):
            image, mask = endoscopy_phantom(index, SIZE, SEED)
            name = f"phantom_{index:04d}"
            # No two phantoms show the same place: each is a group of its own.
            yield name, {"image": image, "mask": mask[..., None], "file_name": name, "group": name}
