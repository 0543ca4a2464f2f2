"""One import registers every builder, and says what is missing where it cannot."""

import subprocess
import sys
from pathlib import Path

import pytest

from keras_semimed.data.cards import CARDS


def test_one_import_is_enough_to_load_by_name(tmp_path):
    pytest.importorskip("tensorflow", reason="TFDS builders need TensorFlow")
    tfds = pytest.importorskip("tensorflow_datasets", reason="TFDS builders need tensorflow-datasets")
    import keras_semimed.data.builders as builders

    assert set(CARDS) <= set(tfds.list_builders(with_community_datasets=False))
    for name in CARDS:
        found = tfds.builder(name, data_dir=tmp_path)
        assert type(found).__module__ == f"keras_semimed.data.builders.{name}.{name}_dataset_builder"
    dummy = Path(builders.__file__).parent / "busi" / "dummy_data"
    preparing = {"download_config": tfds.download.DownloadConfig(manual_dir=str(dummy))}
    loaded = tfds.load("busi", split="train", data_dir=tmp_path, download_and_prepare_kwargs=preparing)
    assert len(loaded) == 5


@pytest.mark.parametrize("missing", ["tensorflow", "tensorflow_datasets"])
def test_without_them_one_sentence_says_what_to_install(missing):
    script = f"import sys; sys.modules[{missing!r}] = None; import keras_semimed.data.builders"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and last.startswith("ImportError: keras_semimed.data.builders needs TensorFlow and")
    assert "pip install tensorflow tensorflow-datasets" in last


def test_the_checkouts_second_name_registers_nothing():
    script = "import sys, datasets; assert not any('dataset_builder' in name for name in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root).returncode == 0
