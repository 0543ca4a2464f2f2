"""Loading saved models of this package."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_semimed.data.images.rules import READING, ReadingRules
from keras_semimed.provenance import PROVENANCE, Provenance


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


def add_facts(path: Path, facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds what is known of a model to its exported `.keras` or `.onnx` file, by the name of the entry."""
    contents = {name: json.dumps(content) for name, content in facts.items()}
    if path.suffix == ".onnx":
        import onnx

        model = onnx.load(path)
        onnx.helper.set_model_props(model, contents)
        onnx.save(model, path)
        return
    with zipfile.ZipFile(path, "a") as archive:
        for name, content in contents.items():
            archive.writestr(f"{name}.json", content)


def reading_of(path: str | Path) -> ReadingRules | None:
    """Returns how files are to be read for an exported `.keras` file; None where it does not say.

    Raises:
        ValueError: If what it says is damaged.
    """
    return _fact(path, READING, ReadingRules)


def provenance_of(path: str | Path) -> Provenance | None:
    """Returns what an exported `.keras` file was trained and scored on; None where it does not say.

    Raises:
        ValueError: If what it says is damaged.
    """
    return _fact(path, PROVENANCE, Provenance)


def _fact(path: str | Path, name: str, kind: Any) -> Any:
    with zipfile.ZipFile(path) as archive:
        if f"{name}.json" not in archive.namelist():
            return None
        try:
            return kind.from_config(json.loads(archive.read(f"{name}.json")))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: {name}.json in it is damaged ({error}); export it anew") from error
