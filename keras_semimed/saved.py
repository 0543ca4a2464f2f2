"""Loading saved models of this package."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras

from keras_semimed.data.images.rules import READING, ReadingRules

MEMBER = f"{READING}.json"
"""Of an exported `.keras` file."""


def load_model(path: str | Path) -> keras.Model:
    """Loads a `.keras` file that a recipe saved or `export` made, without its optimizer.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a folder or another format, no Keras model, or a damaged one.
    """
    import keras_semimed.models  # noqa: F401  registers what a saved model is made of

    path = Path(path)
    if path.is_dir() or path.suffix in (".onnx", ".tflite"):
        raise ValueError(f"{path}: only .keras files are loaded; give the model.keras of a run, or export to one")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the .keras file of a saved model")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no Keras model, or was cut off; give a whole .keras file")
    try:
        return keras.saving.load_model(path, compile=False)
    except (TypeError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be loaded as a Keras model: {error}") from error


def add_reading(path: Path, rules: ReadingRules) -> None:
    """Adds to an exported `.keras` or `.onnx` file how the files were read that its model was trained on."""
    content = json.dumps(rules.get_config())
    if path.suffix == ".onnx":
        import onnx

        model = onnx.load(path)
        onnx.helper.set_model_props(model, {READING: content})
        onnx.save(model, path)
        return
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MEMBER, content)


def reading_of(path: str | Path) -> ReadingRules | None:
    """Returns how files are to be read for an exported `.keras` file; None where it does not say.

    Raises:
        ValueError: If what it says is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        if MEMBER not in archive.namelist():
            return None
        try:
            return ReadingRules.from_config(json.loads(archive.read(MEMBER)))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: {MEMBER} in it is damaged ({error}); export it anew") from error
