"""The TFDS builder of UDIAT."""

import pytest

try:
    import tensorflow  # noqa: F401
    import tensorflow_datasets as tfds
except ImportError:
    pytest.skip("needs tensorflow and tensorflow-datasets, which cannot be imported here", allow_module_level=True)

import numpy as np

from keras_semimed.data.builders.udiat import udiat_dataset_builder
from keras_semimed.data.readers.udiat import UdiatSource


class UdiatTest(tfds.testing.DatasetBuilderTestCase):
    """Checks registration, metadata, features, preparing and reading, on the dummy data."""

    DATASET_CLASS = udiat_dataset_builder.Builder
    SPLITS = {"train": 4}


def test_prepared_examples_are_those_of_the_files(tmp_path):
    builder = udiat_dataset_builder.Builder(data_dir=tmp_path)
    folder = udiat_dataset_builder.Builder.code_path.parent / "dummy_data"
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(folder)))
    rows = {row["file_name"].decode(): row for row in tfds.as_numpy(builder.as_dataset(split="train"))}
    source = UdiatSource(folder)
    assert builder.info.metadata["files"] == source.fingerprint()
    assert len(rows) == len(source) == 4
    for pair in source:
        row = rows[f"{pair.name}.png"]
        np.testing.assert_array_equal(row["image"], pair.image)
        np.testing.assert_array_equal(row["mask"][..., 0], pair.mask)
        assert row["label"] == source.label(pair.name) and row["group"].decode() == source.group(pair.name)


def test_how_to_ask_for_the_images_is_in_the_error(tmp_path):
    from keras_semimed.data.tfds import prepared_builder

    with pytest.raises(FileNotFoundError, match="udiat was not prepared .*sign the licence agreement.*M.Yap@mmu.ac.uk"):
        prepared_builder("udiat", data_dir=tmp_path)
