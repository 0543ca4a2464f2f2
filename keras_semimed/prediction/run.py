"""Predicts image files in batches and goes on after bad files; threads read ahead and write behind the network."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from PIL import Image

from keras_semimed.data.images import read_image
from keras_semimed.data.letterbox import Fitted, letterbox, stretch, unletterbox
from keras_semimed.data.progress import progress
from keras_semimed.prediction.output import COLOURS, OutputFolder, name_problem
from keras_semimed.prediction.scores import score_columns, score_prediction

OPACITY = 0.45


@dataclasses.dataclass(frozen=True)
class Options:
    """How files are predicted.

    Args:
        batch_size: Images a batch.
        flip: Average the predictions of each image and of its mirror image.
        keep_aspect: Pad instead of stretching to the model's square, for models that were trained so.
        overlays: Also write each image with its mask painted on.
        labels: Names of the image classes for the table, in the order of training; empty: 0, 1, ...
    """

    batch_size: int = 8
    flip: bool = False
    keep_aspect: bool = False
    overlays: bool = True
    labels: tuple[str, ...] = ()


class Report(NamedTuple):
    """What a run did."""

    predicted: int
    done_before: int
    problems: dict[str, str]
    """What is wrong with each file that could not be read."""


class _Read(NamedTuple):
    name: str
    image: np.ndarray | None
    fitted: Fitted | None
    problem: str | None
    digest: str = ""


def predict_files(
    model: keras.Model,
    images: Mapping[str, Path],
    output: str | Path,
    options: Options = Options(),
    overwrite: bool = False,
) -> Report:
    """Predicts image files; a run that was interrupted goes on where it stopped.

    Leaves in `output`: `masks/NAME.png` in the image's own size (a palette image whose values are the classes),
    `overlays/NAME.png`, `predictions.csv` with a row an image, and `predict.json`, what they were made with.

    Args:
        model: A model of this package, an exported one, or any Keras model from `(N, S, S, 3)` images in 0..255 to
            `{"mask": (N, S, S, K), "label": (N, C)}` probabilities, either of them or both.
        images: Path of each image by its name, see `find_images`.
        output: Folder; made where it is missing.
        options: How to predict.
        overwrite: Begin anew where there are predictions already.

    Returns:
        How many images were predicted, and what is wrong with those that were not.

    Raises:
        FileExistsError: If `output` holds something else, or predictions of other files under the same names.
        ValueError: If the model's input is no square of known size, or has another number of image classes than names.
    """
    size = _input_size(model)
    nothing = _run(model, np.zeros((options.batch_size, size, size, 3), "uint8"))
    classes, count = (nothing[head].shape[-1] if head in nothing else 0 for head in ("mask", "label"))
    if classes > len(COLOURS):
        raise ValueError(f"the model has {classes} mask classes, masks can be written with up to {len(COLOURS)}")
    options = dataclasses.replace(options, labels=_named(options.labels, count))
    settings = {**dataclasses.asdict(options), "labels": list(options.labels)}
    del settings["batch_size"]
    description = {"model": _digest(model), "image_size": size, **settings}
    folder = OutputFolder(
        Path(output), description, ["file", "sha256", *score_columns(classes, options.labels)], overwrite
    )
    _check_files(images, folder)
    waiting = {name: file for name, file in images.items() if name not in folder.done}
    problems: dict[str, str] = {}
    bar = iter(progress(range(len(waiting)), "predicting", len(waiting)))
    with ThreadPoolExecutor() as pool:
        writing: list[Future] = []
        for batch in _read_ahead(pool, waiting, size, options):
            problems |= {item.name: item.problem for item in batch if item.problem is not None}
            good = [item for item in batch if item.problem is None]
            outputs = _predict_batch(model, good, options, size) if good else []
            folder.add_rows([future.result() for future in writing])  # of the batch before, written meanwhile
            writing = [pool.submit(_write, *pair, folder, options) for pair in zip(good, outputs, strict=True)]
            for _ in batch:
                next(bar, None)
        folder.add_rows([future.result() for future in writing])
    next(bar, None)
    return Report(len(waiting) - len(problems), len(images) - len(waiting), problems)


def _named(labels: Sequence[str], count: int) -> tuple[str, ...]:
    """A name for each image class of the model."""
    if labels and (len(labels) != count or len(set(labels)) != count):
        raise ValueError(f"labels={list(labels)}: the model has {count} image classes; give as many different names")
    return tuple(labels or map(str, range(count)))


def _check_files(images: Mapping[str, Path], folder: OutputFolder) -> None:
    """Raises FileExistsError if a prediction that is there was made from another file of the same name."""
    for name, file in images.items():
        if name in folder.done and file.is_file() and folder.done[name].get("sha256") != _file_digest(file):
            raise FileExistsError(
                f"{folder.path} holds the prediction of another {name} than {file}; give another --output, or "
                "--overwrite"
            )


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


def _input_size(model: keras.Model) -> int:
    size = getattr(model, "image_size", None)
    if size is None:
        shape = getattr(model, "input_shape", None)
        size = shape[1] if isinstance(shape, tuple) and len(shape) == 4 and shape[1] == shape[2] else None
    if size is None:
        raise ValueError("the model does not take square images of a known size (N, S, S, 3)")
    return int(size)


def _digest(model: keras.Model) -> str:
    """Tells models apart by their weights."""
    digest = hashlib.sha256()
    for variable in getattr(model, "predictor", model).variables:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value)).tobytes())
    return digest.hexdigest()[:12]


def _run(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    outputs = model.predict_on_batch(images)
    if not isinstance(outputs, dict) or not outputs.keys() & {"mask", "label"}:
        raise ValueError("the model gives no dict with 'mask' or 'label' probabilities")
    return {head: np.asarray(outputs[head], "float32") for head in ("mask", "label") if head in outputs}


def _read_ahead(
    pool: ThreadPoolExecutor, files: Mapping[str, Path], size: int, options: Options
) -> Iterator[list[_Read]]:
    """Batches of read files; the next one is read while the present one is predicted."""
    names = list(files)
    batches = [names[start : start + options.batch_size] for start in range(0, len(names), options.batch_size)]
    fit = letterbox if options.keep_aspect else stretch

    def read(name: str) -> _Read:
        if (problem := name_problem(name)) is not None:
            return _Read(name, None, None, problem)
        try:
            image = read_image(files[name])
            return _Read(name, image, fit(image, None, size), None, _file_digest(files[name]))
        except (ValueError, OSError, ImportError, MemoryError) as error:
            reason = str(error).removeprefix(f"{files[name]}: ")
            return _Read(name, None, None, reason or type(error).__name__)

    ahead: list[list[Future]] = []
    for batch in batches:
        ahead.append([pool.submit(read, name) for name in batch])
        if len(ahead) == 2:
            yield [future.result() for future in ahead.pop(0)]
    for futures in ahead:
        yield [future.result() for future in futures]


def _predict_batch(model: keras.Model, batch: list[_Read], options: Options, size: int) -> list[dict[str, np.ndarray]]:
    """Outputs of each image of a batch."""
    images = np.zeros((options.batch_size, size, size, 3), "uint8")  # always full: one shape, compiled once
    for row, item in enumerate(batch):
        assert item.fitted is not None
        images[row] = item.fitted.image
    outputs = _run(model, images)
    if options.flip:
        mirrored = _run(model, images[:, :, ::-1])
        if "mask" in mirrored:
            mirrored["mask"] = mirrored["mask"][:, :, ::-1]
        outputs = {head: (value + mirrored[head]) / 2 for head, value in outputs.items()}
    return [{head: value[row] for head, value in outputs.items()} for row in range(len(batch))]


def _write(item: _Read, outputs: dict[str, np.ndarray], folder: OutputFolder, options: Options) -> dict[str, Any]:
    """Writes the pictures of an image and returns its row."""
    assert item.image is not None and item.fitted is not None
    small = mask = overlay = None
    if "mask" in outputs:
        small = unletterbox(outputs["mask"], item.fitted.area)
        mask = _enlarged(small, item.image.shape[:2]).argmax(-1).astype("uint8")
        overlay = _painted(item.image, mask, small.shape[-1]) if options.overlays else None
    folder.save_pictures(item.name, mask, overlay)
    return {
        "file": item.name,
        "sha256": item.digest,
        **score_prediction(small, mask, outputs.get("label"), options.labels),
    }


def _enlarged(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resizing of each class' map to `(height, width)`."""
    maps = [Image.fromarray(np.ascontiguousarray(values)) for values in np.moveaxis(probabilities, -1, 0)]
    return np.stack([np.asarray(map_.resize(size[::-1], Image.Resampling.BILINEAR)) for map_ in maps], axis=-1)


def _painted(image: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    """The image with the classes painted on; two classes in green, as in this package's other pictures."""
    colours = np.array(COLOURS if classes > 2 else ((0, 0, 0), (0, 255, 0)), "float32")
    painted, lesion = image.copy(), mask > 0
    painted[lesion] = np.rint((1 - OPACITY) * image[lesion].astype("float32") + OPACITY * colours[mask[lesion]])
    return painted
