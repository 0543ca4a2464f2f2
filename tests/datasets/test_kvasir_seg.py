"""The TFDS builder of Kvasir-SEG."""

import pytest

try:
    import tensorflow  # noqa: F401
    import tensorflow_datasets as tfds
except ImportError:
    pytest.skip("needs tensorflow and tensorflow-datasets, which cannot be imported here", allow_module_level=True)

import numpy as np

from keras_semimed.data.builders.kvasir_seg import kvasir_seg_dataset_builder
from keras_semimed.data.readers.kvasir_seg import KvasirSegSource


class KvasirSegTest(tfds.testing.DatasetBuilderTestCase):
    """Checks registration, metadata, features, preparing and reading, on the dummy data."""

    DATASET_CLASS = kvasir_seg_dataset_builder.Builder
    SPLITS = {"train": 3}


def test_prepared_examples_are_those_of_the_files(tmp_path):
    builder = kvasir_seg_dataset_builder.Builder(data_dir=tmp_path)
    folder = kvasir_seg_dataset_builder.Builder.code_path.parent / "dummy_data"
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(folder)))
    rows = {row["file_name"].decode(): row for row in tfds.as_numpy(builder.as_dataset(split="train"))}
    source = KvasirSegSource(folder)
    assert builder.info.metadata["files"] == source.fingerprint()
    assert len(rows) == len(source) == 3
    for pair in source:
        row = rows[f"{pair.name}.jpg"]
        np.testing.assert_array_equal(row["image"], pair.image)
        np.testing.assert_array_equal(row["mask"][..., 0], pair.mask)
        assert row["group"].decode() == pair.name and "label" not in row
