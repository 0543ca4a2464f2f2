"""What predicts: a Keras model, or an exported ONNX file, which runs without Keras."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from keras_semimed.data.images.rules import READING, ReadingRules

HEADS = {"mask": "(N, S, S, K)", "label": "(N, C)"}


class Predictor(Protocol):
    """What `predict_files` needs of a model."""

    image_size: int
    """Side S of the squares that it takes."""
    reading: ReadingRules | None
    """How the files were read that it was trained on."""
    digest: str
    """Tells it from others."""

    def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities `{"mask": (N, S, S, K), "label": (N, C)}`, or one of them, of images `(N, S, S, 3)` uint8."""


class OnnxPredictor:
    """An ONNX file that `export` wrote, on ONNX Runtime's CPU provider; other files with such outputs do as well.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If ONNX Runtime is missing.
        ValueError: If it is no ONNX model of squares of a known size with a mask or a label.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; give the .onnx file of an exported model")
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(f"{path} needs ONNX Runtime: pip install onnxruntime") from error
        content = path.read_bytes()
        try:
            self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever the runtime raises on other bytes
            raise ValueError(f"{path} cannot be loaded as an ONNX model: {' '.join(str(error).split())}") from error
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4 or not isinstance(shape[1], int) or shape[1:] != [shape[1], shape[1], 3]:
            found = [each.shape for each in inputs]
            raise ValueError(f"{path} must take images (N, S, S, 3) of a known size S, found {found}")
        self._input, self.image_size = inputs[0].name, shape[1]
        self._kind = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}.get(inputs[0].type)
        if self._kind is None:
            raise ValueError(f"{path} must take float32 or uint8 images, found {inputs[0].type}")
        heads = {4: "mask", 2: "label"}
        ranks = [len(output.shape) for output in self._session.get_outputs()]
        if not ranks or len(set(ranks)) < len(ranks) or not set(ranks) <= set(heads):
            expected = " or ".join(f"a {head} {shape}" for head, shape in HEADS.items())
            raise ValueError(f"{path} must give {expected}, or both, found outputs of {ranks} dimensions")
        self._heads = [heads[rank] for rank in ranks]
        self.digest = hashlib.sha256(content).hexdigest()[:12]
        said = self._session.get_modelmeta().custom_metadata_map.get(READING)
        try:
            self.reading = None if said is None else ReadingRules.from_config(json.loads(said))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: {READING} in its metadata is damaged ({error}); export it anew") from error

    def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See `Predictor`."""
        found = self._session.run(None, {self._input: images.astype(self._kind)})
        return {head: np.asarray(values, "float32") for head, values in zip(self._heads, found, strict=True)}


class KerasPredictor:
    """A model of this package, an exported one, or any Keras model with such outputs.

    Args:
        model: The model.
        reading: How the files were read that it was trained on. None: what a model of this package knows of itself.

    Raises:
        ValueError: If it does not take squares of a known size.
    """

    def __init__(self, model: Any, reading: ReadingRules | None = None):
        from keras_semimed.models import SemiSupervisedModel

        self.model = model
        own = isinstance(model, SemiSupervisedModel)
        size = model.image_size if own else _side(model)
        if size is None:
            raise ValueError("the model does not take square images of a known size (N, S, S, 3)")
        self.image_size = int(size)
        self.reading = model.reading if own and reading is None else reading
        self.digest = _digest(model.predictor if own else model)

    def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See `Predictor`."""
        outputs = self.model.predict_on_batch(images)
        if not isinstance(outputs, dict) or not outputs.keys() & {"mask", "label"}:
            raise ValueError("the model gives no dict with 'mask' or 'label' probabilities")
        return {head: np.asarray(outputs[head], "float32") for head in HEADS if head in outputs}


def _side(model: Any) -> int | None:
    """Side of the squares that a model takes; None where it takes others, or does not tell."""
    try:
        shape = model.input_shape
    except AttributeError:
        return None
    return shape[1] if isinstance(shape, tuple) and len(shape) == 4 and shape[1] == shape[2] else None


def _digest(network: Any) -> str:
    """Tells networks apart by their weights."""
    import keras

    digest = hashlib.sha256()
    for variable in network.variables:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value)).tobytes())
    return digest.hexdigest()[:12]
