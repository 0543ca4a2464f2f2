from unittest import mock

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TFDS builders need TensorFlow")
tfds = pytest.importorskip("tensorflow_datasets", reason="TFDS builders need tensorflow-datasets")

from keras_semimed.data.builders.phantom_ultrasound import phantom_ultrasound_dataset_builder as module  # noqa: E402
from keras_semimed.data.phantoms.ultrasound import ultrasound_phantom  # noqa: E402


class PhantomUltrasoundTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = module.Builder
    SPLITS = {"train": 6}
    SKIP_CHECKSUMS = True  # nothing is downloaded
    EXAMPLE_DIR = str(module.Builder.code_path.parent)

    def setUp(self):
        super().setUp()
        patcher = mock.patch.object(module, "COUNT", 6)
        patcher.start()
        self.patchers.append(patcher)


def test_examples_are_the_phantoms(tmp_path):
    with mock.patch.object(module, "COUNT", 3):
        builder = module.Builder(data_dir=str(tmp_path))
        builder.download_and_prepare()
    examples = {e["file_name"].decode(): e for e in tfds.as_numpy(builder.as_dataset(split="train"))}
    assert sorted(examples) == ["phantom_0000", "phantom_0001", "phantom_0002"]
    example = examples["phantom_0002"]
    image, mask, label = ultrasound_phantom(2)
    for channel in range(3):
        np.testing.assert_array_equal(example["image"][..., channel], image)
    np.testing.assert_array_equal(example["mask"][..., 0], mask)
    assert example["label"] == label
    assert example["group"] == b"phantom_0002"
    assert builder.info.features["label"].names == ["benign", "malignant"]


def test_published_size_of_the_set():
    assert (module.COUNT, module.SIZE, module.SEED) == (400, 128, 0)
