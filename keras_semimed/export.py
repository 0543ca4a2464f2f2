"""Makes a trained model into one for prediction alone: a plain Keras file, SavedModel, LiteRT or ONNX."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_semimed import __version__
from keras_semimed.backend import describe_runtime, onnx_converters, run_exported
from keras_semimed.data.images.rules import READING
from keras_semimed.files import whole_file
from keras_semimed.models import SemiSupervisedModel
from keras_semimed.networks import JointNetwork
from keras_semimed.provenance import PROVENANCE
from keras_semimed.saved import add_facts

FORMATS = {"keras": ".keras", "tf_saved_model": "", "litert": ".tflite", "onnx": ".onnx"}
TOLERANCE = 1e-5
OTHER_RUNTIMES = 1e-4  # they round otherwise
# The model and the exported one are two graphs, which an accelerator may round otherwise; processors: to 1e-5.
OTHER_GRAPH = 1e-3
NEEDS = {
    "tf_saved_model": ("tensorflow",),
    "litert": ("tensorflow",),
    "onnx": ("onnx", "onnxruntime", *onnx_converters()),
}

CARD = """# {name}

Exported by keras_semimed {version} from a `{kind}` model, format {format}.

- Input: RGB images `(N, {size}, {size}, 3)`, values 0 to 255, resized to the square as in training.
  Normalisation is inside.
- Trained on files read so: {reading}.
- Image classes: {classes}.
- Mask classes: {mask_classes}.
- Trained on: {trained}.
- Scores: {scores}.
- Output: {outputs}.
- Parameters: {parameters:,}.
- {saliency}
- Largest difference to the model it was made from, on {checked} random images: {difference:.1e}.

{how}

Research software, not a medical device: its output must not guide the care of a patient. Who it
may be used for, its images do not say: that is for whoever exports it.
"""


def inference_model(model: SemiSupervisedModel, saliency: bool = True) -> keras.Model:
    """Returns a functional Keras model that gives what `model.predict` gives, without what only training needs.

    Args:
        model: A trained model; the teacher's weights are taken where it predicts with the teacher.
        saliency: False puts zeros in the place of Hermes' saliency map, which is a gradient.

    Returns:
        From images `(N, S, S, 3)` in 0..255 to `{"mask": (N, S, S, K), "label": (N, C)}` probabilities.
    """
    images = keras.Input((model.image_size, model.image_size, 3), name="image")
    network = model.inference_network(saliency)
    found = network(images)
    logits = found if isinstance(found, dict) else dict.fromkeys(network.logits, found)
    outputs = {
        head: keras.layers.Softmax(dtype="float32", name=head)(logits[f"{head}_logits"])
        for head in ("mask", "label")
        if f"{head}_logits" in logits
    }
    return keras.Model(images, outputs, name=type(model).__name__.lower())


def export(
    model: SemiSupervisedModel, path: str | Path, format: str | None = None, saliency: bool = True
) -> keras.Model:
    """Writes a model for prediction alone, and a model card `PATH.md` beside it.

    A `.keras` file is a functional Keras model; where it is loaded, `import keras_semimed.models` goes before. The
    other formats run without Keras. All are tried on random images before anything is written at `path`.

    Args:
        model: A trained model of this package.
        path: The file (SavedModel: the folder) to write; it must not be there yet.
        format: `"keras"`, `"tf_saved_model"`, `"litert"` or `"onnx"`; None goes by the suffix of `path`.
        saliency: False puts zeros in the place of Hermes' saliency map. The map is a gradient, which ONNX and LiteRT
            have no operation for; without it predictions change a little: the card says by how much.

    Returns:
        The exported Keras model.

    Raises:
        TypeError: If the model is not of this package, or is an exported one already.
        FileExistsError: If there is something at `path`.
        ValueError: If the format is unknown or does not fit the suffix, needs another backend or what it cannot
            express, or if what was written gives other outputs than the model; the message says how to go on.
            Nothing is kept then.
        ImportError: If a library is missing.
    """
    path = Path(path)
    if not isinstance(model, SemiSupervisedModel):
        raise TypeError(
            f"`model` must be one of this package's models in training, such as Hermes, found {type(model).__name__}"
        )
    format = _format(path) if format is None else format
    if format not in FORMATS:
        raise ValueError(f"format={format!r}; choose among {', '.join(FORMATS)}")
    if path.suffix != FORMATS[format]:
        raise ValueError(
            f"{path}: a file of format={format!r} ends in {FORMATS[format] or 'no suffix, it is a folder'}"
        )
    if path.exists():
        raise FileExistsError(f"{path} is there already; give another path, or remove it")
    for library in NEEDS.get(format, ()):
        if importlib.util.find_spec(library) is None:
            raise ImportError(f"format={format!r} needs {library}; pip install {library}")
    exported = inference_model(model, saliency)
    images = np.random.default_rng(0).uniform(0, 255, (4, model.image_size, model.image_size, 3)).astype("float32")
    expected = exported.predict_on_batch(images)  # first: the ONNX converter wants a model that was called
    original = model.predict_on_batch(images)
    complete = saliency or not _lacks_saliency(exported)
    between = _difference(original, expected)
    if complete and not between <= OTHER_GRAPH:
        raise ValueError(f"the exported model gives other outputs than the model, by {between:.1e}; nothing kept")
    with tempfile.TemporaryDirectory(dir=path.parent if path.parent.is_dir() else None) as folder:
        written = Path(folder, path.name)
        found = _write_and_run(exported, written, format, images)
        if format in ("keras", "onnx"):
            known = {READING: model.reading, PROVENANCE: model.provenance}
            add_facts(written, {name: fact.get_config() for name, fact in known.items() if fact is not None})
        difference = _difference(expected, found)
        if not difference <= (TOLERANCE if format == "keras" else OTHER_RUNTIMES):
            raise ValueError(f"format={format!r} gives other outputs than the model, by {difference:.1e}; nothing kept")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(written, path)
    _write_card(model, exported, path, format, _difference(original, found), len(images))
    return exported


def _format(path: Path) -> str:
    suffixes = {suffix: name for name, suffix in FORMATS.items()}
    if path.suffix not in suffixes:
        raise ValueError(f"{path}: the suffix says no format; use .keras, .tflite, .onnx, or none for a SavedModel")
    return suffixes[path.suffix]


def _write_and_run(model: keras.Model, path: Path, format: str, images: np.ndarray) -> Any:
    """Writes a format and returns the outputs of what was written."""
    if format == "keras":
        model.save(path)
        return keras.saving.load_model(path, compile=False).predict_on_batch(images)
    try:
        model.export(path, format=format, verbose=False)
        return run_exported(path, format, images)
    except Exception as error:  # whatever a converter or a runtime raises
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        advice = ""
        if _takes_saliency(model):
            advice = " The saliency map is a gradient, which this format may lack: try saliency=False."
        raise ValueError(
            f"format={format!r} cannot be made on the {describe_runtime()['backend']} backend: {first}.{advice}"
        ) from error


def _takes_saliency(model: keras.Model) -> bool:
    """Whether a saliency map is computed inside."""
    return any(network.has_saliency and not network.zero_saliency for network in _joint_networks(model))


def _lacks_saliency(model: keras.Model) -> bool:
    """Whether zeros stand in the place of the saliency map."""
    return any(network.has_saliency and network.zero_saliency for network in _joint_networks(model))


def _joint_networks(model: keras.Model) -> list[JointNetwork]:
    return [layer for layer in model.layers if isinstance(layer, JointNetwork)]


def _difference(first: Any, second: Any) -> float:
    """Largest difference between the outputs of two models, whatever order and names the second has them in."""
    ours = [np.asarray(ops.convert_to_numpy(value)) for value in first.values()]
    theirs = [np.asarray(value) for value in (second.values() if isinstance(second, dict) else second)]
    by_rank = {value.ndim: value for value in theirs}
    return max(float(np.abs(value - by_rank[value.ndim]).max()) for value in ours)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"{index} {name}" for index, name in enumerate(names)) or "not named"


def _write_card(
    model: SemiSupervisedModel,
    exported: keras.Model,
    path: Path,
    format: str,
    difference: float,
    checked: int,
) -> None:
    heads = {
        "mask": "probabilities of the mask classes `(N, {0}, {0}, {1})`",
        "label": "probabilities of the image classes `(N, {1})`",
    }
    outputs = [
        f"`{head}`, {heads[head].format(model.image_size, value.shape[-1])}" for head, value in exported.output.items()
    ]
    if _takes_saliency(exported):
        said = "The saliency map, a gradient through the classifier, is computed inside."
    elif _lacks_saliency(exported):
        said = "Zeros stand in the place of the saliency map that it was trained with."
    else:
        said = "The model has no saliency map."
    how = (
        "Run it with TensorFlow, LiteRT or ONNX Runtime."
        if format != "keras"
        else (
            "```python\nimport keras\nimport keras_semimed.models  # what the file is made of\n\n"
            f'model = keras.saving.load_model("{path.name}")\nmodel.predict(images)\n```'
        )
    )
    card = CARD.format(
        name=path.name,
        version=__version__,
        kind=type(model).__name__,
        format=format,
        size=model.image_size,
        reading="not known" if model.reading is None else model.reading,
        classes=_listed(() if model.reading is None else model.reading.class_names),
        mask_classes=_listed(() if model.reading is None else model.reading.mask_class_names),
        trained="not known" if model.provenance is None else model.provenance,
        scores="none noted" if model.provenance is None else model.provenance.scores_in_words,
        outputs="; ".join(outputs),
        parameters=exported.count_params(),
        saliency=said,
        checked=checked,
        difference=difference,
        how=how,
    )
    with whole_file(path.with_name(f"{path.name}.md")) as temporary:
        temporary.write_text(card, encoding="utf-8")
