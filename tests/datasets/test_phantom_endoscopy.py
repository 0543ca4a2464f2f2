"""The TFDS builder of the endoscopy phantoms."""

from unittest import mock

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TFDS builders need TensorFlow")
tfds = pytest.importorskip("tensorflow_datasets", reason="TFDS builders need tensorflow-datasets")

from keras_semimed.data.builders.phantom_endoscopy import phantom_endoscopy_dataset_builder as module  # noqa: E402
from keras_semimed.data.phantoms.endoscopy import endoscopy_phantom  # noqa: E402
from keras_semimed.data.readers import examples  # noqa: E402


class PhantomEndoscopyTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = module.Builder
    SPLITS = {"train": 4}
    SKIP_CHECKSUMS = True  # nothing is downloaded
    EXAMPLE_DIR = str(module.Builder.code_path.parent)

    def setUp(self):
        super().setUp()
        patcher = mock.patch.object(module, "COUNT", 4)
        patcher.start()
        self.patchers.append(patcher)


def test_examples_are_the_phantoms(tmp_path):
    with mock.patch.object(module, "COUNT", 2):
        builder = module.Builder(data_dir=str(tmp_path))
        builder.download_and_prepare()
    rows = {row["file_name"].decode(): row for row in tfds.as_numpy(builder.as_dataset(split="train"))}
    assert sorted(rows) == ["phantom_0000", "phantom_0001"]
    image, mask = endoscopy_phantom(1)
    np.testing.assert_array_equal(rows["phantom_0001"]["image"], image)
    np.testing.assert_array_equal(rows["phantom_0001"]["mask"][..., 0], mask)
    assert rows["phantom_0001"]["group"] == b"phantom_0001"


def test_published_size_of_the_set():
    assert (module.COUNT, module.SIZE, module.SEED) == (300, 128, 0)
    assert (examples.ENDOSCOPY_PHANTOMS, examples.PHANTOM_SIZE) == (module.COUNT, module.SIZE)
