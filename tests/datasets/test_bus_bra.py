"""The TFDS builder of BUS-BRA."""

import pytest

try:
    import tensorflow  # noqa: F401
    import tensorflow_datasets as tfds
except ImportError:
    pytest.skip("needs tensorflow and tensorflow-datasets, which cannot be imported here", allow_module_level=True)

import numpy as np

from keras_semimed.data.builders.bus_bra import bus_bra_dataset_builder
from keras_semimed.data.readers.bus_bra import BusBraSource


class BusBraTest(tfds.testing.DatasetBuilderTestCase):
    """Checks registration, metadata, features, preparing and reading, on the dummy data."""

    DATASET_CLASS = bus_bra_dataset_builder.Builder
    SPLITS = {"train": 5}


def test_prepared_examples_are_those_of_the_files(tmp_path):
    builder = bus_bra_dataset_builder.Builder(data_dir=tmp_path)
    folder = bus_bra_dataset_builder.Builder.code_path.parent / "dummy_data"
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(folder)))
    rows = {row["file_name"].decode(): row for row in tfds.as_numpy(builder.as_dataset(split="train"))}
    source = BusBraSource(folder)
    assert builder.info.metadata["files"] == source.fingerprint()
    assert len(rows) == len(source) == 5
    for pair in source:
        row = rows[f"{pair.name}.png"]
        np.testing.assert_array_equal(row["image"], pair.image)
        np.testing.assert_array_equal(row["mask"][..., 0], pair.mask)
        assert row["label"] == source.label(pair.name) and row["group"].decode() == source.group(pair.name)
        record = source.records[pair.name]
        for feature in ("histology", "device"):
            assert row[feature].decode() == getattr(record, feature)
        for feature in ("birads", "side"):
            assert builder.info.features[feature].int2str(row[feature]) == getattr(record, feature)
        assert (row["fold_5"], row["fold_10"]) == (record.fold_5, record.fold_10)
