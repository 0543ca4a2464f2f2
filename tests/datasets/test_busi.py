"""The TFDS builder of BUSI."""

import zipfile
from pathlib import Path

import pytest

try:
    import tensorflow  # noqa: F401
    import tensorflow_datasets as tfds
except ImportError:
    pytest.skip("needs tensorflow and tensorflow-datasets, which cannot be imported here", allow_module_level=True)

import numpy as np

from keras_semimed.data.builders.busi import busi_dataset_builder


class BusiTest(tfds.testing.DatasetBuilderTestCase):
    """Checks registration, metadata, features, preparing and reading, on the dummy data."""

    DATASET_CLASS = busi_dataset_builder.Builder
    SPLITS = {"train": 5}


def test_prepared_examples_are_those_of_the_files(tmp_path):
    builder = busi_dataset_builder.Builder(data_dir=tmp_path)
    folder = busi_dataset_builder.Builder.code_path.parent / "dummy_data"
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(folder)))
    rows = {row["file_name"].decode(): row for row in tfds.as_numpy(builder.as_dataset(split="train"))}
    assert sorted(rows) == sorted(
        f"{n}.png" for n in ("benign (1)", "benign (2)", "benign (10)", "malignant (1)", "normal (1)")
    )
    two_masks = rows["benign (2).png"]
    assert two_masks["image"].shape == (20, 28, 3) and two_masks["mask"].shape == (20, 28, 1)
    assert two_masks["mask"].sum() == 6 * 8 + 6 * 8 - 2 * 2 and set(np.unique(two_masks["mask"])) == {0, 1}
    np.testing.assert_array_equal(rows["benign (1).png"]["image"][2, 2], (255, 200, 0))
    assert builder.info.features["label"].int2str(rows["malignant (1).png"]["label"]) == "malignant"
    assert rows["normal (1).png"]["mask"].max() == 0
    assert rows["normal (1).png"]["group"] == b"normal (1)"


def test_a_missing_or_empty_manual_dir_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        builder = busi_dataset_builder.Builder(data_dir=tmp_path / "prepared")
        config = tfds.download.DownloadConfig(manual_dir=str(tmp_path / name))
        with pytest.raises(AssertionError, match=f"{name} does not exist or is empty"):
            builder.download_and_prepare(download_config=config)
    assert not [file for file in (tmp_path / "prepared").rglob("*") if file.is_file()]


def test_errors_about_an_archive_name_it_and_leave_nothing(tmp_path):
    from keras_semimed.data.tfds import prepared_builder

    archive = tmp_path / "download.zip"
    archive.write_bytes(b"not a zip")
    with pytest.raises(ValueError, match=f"{archive}: not a readable zip"):
        prepared_builder("busi", archive, tmp_path / "prepared")
    folder = Path(busi_dataset_builder.__file__).parent / "dummy_data" / "Dataset_BUSI_with_GT"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.png"):
            damaged = path.name == "benign (2).png"
            file.writestr(path.relative_to(folder).as_posix(), b"damaged" if damaged else path.read_bytes())
    with pytest.raises(ValueError, match=rf"{archive}/benign/benign \(2\).png: cannot be decoded"):
        prepared_builder("busi", archive, tmp_path / "prepared")
    assert not [file for file in (tmp_path / "prepared").rglob("*") if file.is_file()]


def test_a_set_that_another_process_prepares_meanwhile_is_taken(tmp_path, monkeypatch):
    from keras_semimed.data.tfds import prepared_builder

    folder = Path(busi_dataset_builder.__file__).parent / "dummy_data" / "Dataset_BUSI_with_GT"
    generate, others = busi_dataset_builder.Builder._split_generators, []

    def slower(self, *args, **kwargs):
        if not others:
            others.append(None)
            prepared_builder("busi", folder, tmp_path)
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(busi_dataset_builder.Builder, "_split_generators", slower)
    builder = prepared_builder("busi", folder, tmp_path)
    assert others and builder.info.splits["train"].num_examples > 0 and builder.is_prepared()
    assert [path.name for path in (tmp_path / "busi").iterdir()] == ["1.0.0"]
