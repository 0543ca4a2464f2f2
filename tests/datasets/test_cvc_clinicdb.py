"""The TFDS builder of CVC-ClinicDB."""

import pytest

try:
    import tensorflow  # noqa: F401
    import tensorflow_datasets as tfds
except ImportError:
    pytest.skip("needs tensorflow and tensorflow-datasets, which cannot be imported here", allow_module_level=True)

import numpy as np

from keras_semimed.data.builders.cvc_clinicdb import cvc_clinicdb_dataset_builder
from keras_semimed.data.readers.cvc_clinicdb import CvcClinicDbSource


class CvcClinicDbTest(tfds.testing.DatasetBuilderTestCase):
    """Checks registration, metadata, features, preparing and reading, on the dummy data."""

    DATASET_CLASS = cvc_clinicdb_dataset_builder.Builder
    SPLITS = {"train": 4}


def test_prepared_examples_are_those_of_the_files(tmp_path):
    builder = cvc_clinicdb_dataset_builder.Builder(data_dir=tmp_path)
    folder = cvc_clinicdb_dataset_builder.Builder.code_path.parent / "dummy_data"
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(folder)))
    rows = {row["file_name"].decode(): row for row in tfds.as_numpy(builder.as_dataset(split="train"))}
    source = CvcClinicDbSource(folder)
    assert builder.info.metadata["files"] == source.fingerprint()
    assert len(rows) == len(source) == 4
    for pair in source:
        row = rows[f"{pair.name}.tif"]
        np.testing.assert_array_equal(row["image"], pair.image)
        np.testing.assert_array_equal(row["mask"][..., 0], pair.mask)
        assert row["group"].decode() == source.group(pair.name) and "label" not in row
