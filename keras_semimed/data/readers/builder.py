"""The TFDS builder of a published data set whose files are got by hand; needs TensorFlow Datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from keras_semimed.data.images import encode_png
from keras_semimed.data.readers.examples import source_examples
from keras_semimed.data.readers.source import Source


class SourceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images, masks, groups and, where the set has them, classes; `manual_dir` holds the folder or its zip.

    A subclass names the reader and the page of the set, and may add further features.
    """

    VERSION = tfds.core.Version("1.0.0")
    SOURCE: ClassVar[type[Source]]
    HOMEPAGE: ClassVar[str]

    def further_features(self) -> dict[str, Any]:
        """Features beside those of every set."""
        return {}

    def further_values(self, source: Any, name: str) -> dict[str, Any]:
        """Their values of one image."""
        del source, name
        return {}

    def _info(self) -> tfds.core.DatasetInfo:
        classes = self.SOURCE.CLASSES
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            **({"label": tfds.features.ClassLabel(names=classes)} if classes else {}),
            **self.further_features(),
            "file_name": tfds.features.Text(),
            "group": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label" if classes else "mask"),
            homepage=self.HOMEPAGE,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        source = self.SOURCE(dl_manager.manual_dir)  # type: ignore[call-arg]  # each takes its place
        self.info.metadata["files"] = source.fingerprint()
        return {"train": self._generate_examples(source)}

    def _generate_examples(self, source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
        for files, example in zip(source.files, source_examples(source), strict=True):
            label = {} if example.label is None else {"label": example.label}
            yield (
                example.name,
                {
                    "image": encode_png(example.image),
                    "mask": encode_png(example.mask[..., None]),
                    **label,
                    **self.further_values(source, example.name),
                    "file_name": PurePosixPath(files.image).name,
                    "group": example.group,
                },
            )
