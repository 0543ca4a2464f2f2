"""CVC-ClinicDB: colonoscopy frames with polyp masks and the sequence each comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import tensorflow_datasets as tfds

from keras_semimed.data.cvc_clinicdb import HOW_TO_GET, CvcClinicDbSource
from keras_semimed.data.examples import pair_examples
from keras_semimed.data.images import encode_png


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for CVC-ClinicDB; `manual_dir` holds the extracted folder or its zip."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "All frames; polyp where a mask is above 127; sequences as groups."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = HOW_TO_GET

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                    "file_name": tfds.features.Text(),
                    "group": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "mask"),
            homepage="https://doi.org/10.1016/j.compmedimag.2015.02.007",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        source = CvcClinicDbSource(dl_manager.manual_dir)
        self.info.metadata["files"] = source.fingerprint()
        return {"train": self._generate_examples(source)}

    def _generate_examples(self, source: CvcClinicDbSource) -> Iterator[tuple[str, dict[str, Any]]]:
        for files, example in zip(source.files, pair_examples(source), strict=True):
            yield (
                example.name,
                {
                    "image": encode_png(example.image),
                    "mask": encode_png(example.mask[..., None]),
                    "file_name": PurePosixPath(files.image).name,
                    "group": example.group,
                },
            )
