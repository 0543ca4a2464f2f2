"""TFDS builder of the synthetic ultrasound phantoms. Nothing is downloaded: the pictures are computed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from keras_semimed.data.phantoms.ultrasound import CLASS_NAMES, ultrasound_phantom

COUNT = 400
SIZE = 128
SEED = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """400 phantoms of 128 x 128 pixels, one lesion each, about a third malignant."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
                    "mask": tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(CLASS_NAMES)),
                    "file_name": tfds.features.Text(),
                    "group": tfds.features.Text(),
                }
            ),
            supervised_keys=None,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict]]:
        for index in range(COUNT):
            image, mask, label = ultrasound_phantom(index, SIZE, SEED)
            name = f"phantom_{index:04d}"
            yield (
                name,
                {
                    "image": np.repeat(image[..., None], 3, axis=-1),  # (H, W, 3)
                    "mask": mask[..., None],  # (H, W, 1)
                    "label": label,
                    "file_name": name,
                    "group": name,  # no two phantoms show the same lesion
                },
            )
