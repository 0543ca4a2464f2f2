"""Predicts image files in batches and goes on after bad files; threads read ahead and write behind the network."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_semimed.data.argument_checks import check_batch, check_class_names, check_count
from keras_semimed.data.images.letterbox import unletterbox
from keras_semimed.data.images.resizing import class_mask
from keras_semimed.data.images.rules import ReadingRules
from keras_semimed.data.progress import progress
from keras_semimed.prediction.output import OutputFolder, Unwritable, name_problems
from keras_semimed.prediction.pictures import COLOURS, painted
from keras_semimed.prediction.predictors import HEADS, KerasPredictor, OnnxPredictor, Predictor
from keras_semimed.prediction.reading import Read, file_digest, read_ahead, whole_image
from keras_semimed.prediction.scores import score_columns, score_prediction
from keras_semimed.text import one_line

# Of the images that are too large to be kept, one is written at a time.
_LARGE = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Options:
    """How files are predicted.

    Args:
        batch_size: Images a batch.
        flip: Average the predictions of each image and of its mirror image.
        keep_aspect: Pad instead of stretching to the model's square; None: as the model was trained.
        intensity_range: The values of black and white in images of more than 8 bits that do not say it themselves;
            None: as the model was trained.
        overlays: Also write each image with its mask painted on.
        labels: Names of the image classes for the table, in the order of training; empty: the model's, or 0, 1, ...
        as_labels: Write what `from_folder` reads: masks called like their images, without the image's suffix, and a
            `labels.csv`.
    """

    batch_size: int = 8
    flip: bool = False
    keep_aspect: bool | None = None
    intensity_range: tuple[float, float] | None = None
    overlays: bool = True
    labels: tuple[str, ...] = ()
    as_labels: bool = False


class Report(NamedTuple):
    """What a run did."""

    predicted: int
    done_before: int
    problems: dict[str, str]
    """What is wrong with each file that could not be predicted."""


def predict_files(
    model: Any,
    images: Mapping[str, Path],
    output: str | Path,
    options: Options = Options(),
    overwrite: bool = False,
    reading: ReadingRules | None = None,
) -> Report:
    """Predicts image files; a run that was interrupted goes on where it stopped.

    Leaves in `output`: `masks/NAME.png` in the image's own size (a palette image whose values are the classes; with
    `as_labels` NAME is without the image's suffix), `overlays/NAME.png`, `predictions.csv` with a row an image, and
    `predict.json`, what they were made with.

    Args:
        model: A model of this package, an exported one, or any Keras model from `(N, S, S, 3)` images in 0..255 to
            `{"mask": (N, S, S, K), "label": (N, C)}` probabilities, either of them or both; or an `OnnxPredictor`.
        images: Path of each image by its name, see `find_images`.
        output: Folder; made where it is missing.
        options: How to predict.
        overwrite: Begin anew where there are predictions already.
        reading: How the files were read that the model was trained on. None: what a model of this package knows of
            itself; for an exported one see `keras_semimed.saved.reading_of`.

    Returns:
        How many images were predicted, and what is wrong with those that were not.

    Raises:
        FileExistsError: If `output` holds something else, or predictions of other files under the same names.
        ValueError: If the model's input is no square of known size, its outputs are not of the shapes above with at
            least 2 classes, or it has another number of image classes than names; or if what `output` holds is damaged.
        OSError: If nothing can be written, as on a full disk. The same call goes on later.
    """
    if not isinstance(model, OnnxPredictor | KerasPredictor):
        model = KerasPredictor(model, reading)
    size = model.image_size
    check_count("batch_size", options.batch_size)
    check_batch("batch_size", options.batch_size, (size, size, 3))
    nothing = model.predict(np.zeros((options.batch_size, size, size, 3), "uint8"))
    _check_outputs(nothing, options.batch_size, size)
    classes, count = (nothing[head].shape[-1] if head in nothing else 0 for head in HEADS)
    if classes > len(COLOURS):
        raise ValueError(f"the model has {classes} mask classes, masks can be written with up to {len(COLOURS)}")
    rules = _rules(reading or model.reading or ReadingRules(size), options, size)
    named = check_class_names("labels", options.labels) or (
        rules.class_names if len(rules.class_names) == count else ()
    )
    options = dataclasses.replace(
        options, labels=_named(named, count), keep_aspect=rules.keep_aspect, intensity_range=rules.intensity_range
    )
    settings = {**dataclasses.asdict(options), "labels": list(options.labels)}
    del settings["batch_size"]
    if not options.as_labels:
        del settings["as_labels"]
    if rules.intensity_range is None:
        del settings["intensity_range"]
    else:
        settings["intensity_range"] = list(rules.intensity_range)
    description = {"model": model.digest, "image_size": size, **settings}
    folder = OutputFolder(
        Path(output), description, ["file", "sha256", *score_columns(classes, options.labels)], overwrite
    )
    _check_files(images, folder)
    waiting = {name: file for name, file in images.items() if name not in folder.done}
    problems = {
        name: why for name, why in name_problems(images, classes > 0, options.as_labels).items() if name in waiting
    }
    files = {name: file for name, file in waiting.items() if name not in problems}
    _predict(model, files, folder, options, rules, problems)
    if options.as_labels:
        folder.write_labels(rules.mask_class_names if len(rules.mask_class_names) == classes else ())
    problems = {name: problems[name] for name in images if name in problems}
    return Report(len(waiting) - len(problems), len(images) - len(waiting), problems)


def _predict(
    model: Predictor,
    files: Mapping[str, Path],
    folder: OutputFolder,
    options: Options,
    rules: ReadingRules,
    problems: dict[str, str],
) -> None:
    """Predicts files, adds their rows to the table and what is wrong with others to the problems."""
    bar = iter(progress(range(len(files)), "predicting", len(files)))
    with ThreadPoolExecutor() as pool:
        writing: dict[str, Future] = {}
        try:
            for batch in read_ahead(pool, files, rules, options.batch_size):
                problems |= {item.name: item.problem for item in batch if item.problem is not None}
                good = [item for item in batch if item.problem is None]
                outputs = _predict_batch(model, good, options) if good else []
                before, writing = writing, {}
                _finish(before, folder, problems)  # written while the network was at work
                for item, values in zip(good, outputs, strict=True):
                    if all(np.isfinite(value).all() for value in values.values()):
                        writing[item.name] = pool.submit(_write, item, values, folder, options, rules)
                    else:
                        problems[item.name] = "the model gives values that are not finite"
                for _ in batch:
                    next(bar, None)
        finally:
            _finish(writing, folder, problems)
    next(bar, None)


def _finish(writing: Mapping[str, Future], folder: OutputFolder, problems: dict[str, str]) -> None:
    """Waits for the pictures of a batch and adds their rows."""
    rows: list[dict[str, Any]] = []
    try:
        for name, future in writing.items():
            try:
                rows.append(future.result())
            except Unwritable as error:
                problems[name] = str(error)
    finally:
        folder.add_rows(rows)


def _check_outputs(outputs: Mapping[str, np.ndarray], batch_size: int, size: int) -> None:
    for head, values in outputs.items():
        expected = (batch_size, size, size) if head == "mask" else (batch_size,)
        if values.shape[:-1] != expected or values.shape[-1] < 2:
            raise ValueError(
                f"the model's {head!r} output is {values.shape}; expected {HEADS[head]} softmax probabilities of at "
                f"least 2 classes (a single sigmoid channel p as [1 - p, p]), with S = {size}"
            )


def _rules(reading: ReadingRules, options: Options, size: int) -> ReadingRules:
    """How the files are read: as in training, but for what the options say; networks take three channels."""
    keep_aspect = reading.keep_aspect if options.keep_aspect is None else options.keep_aspect
    limits = reading.intensity_range if options.intensity_range is None else options.intensity_range
    return dataclasses.replace(reading, image_size=size, keep_aspect=keep_aspect, intensity_range=limits)


def _named(labels: Sequence[str], count: int) -> tuple[str, ...]:
    """A name for each image class of the model."""
    if labels and (len(labels) != count or len(set(labels)) != count):
        raise ValueError(f"labels={list(labels)}: the model has {count} image classes; give as many different names")
    return tuple(labels or map(str, range(count)))


def _check_files(images: Mapping[str, Path], folder: OutputFolder) -> None:
    """Raises FileExistsError if a prediction that is there was made from another file of the same name."""
    done = [(name, file) for name, file in images.items() if name in folder.done and file.is_file()]
    for name, file in progress(done, "checking what is done"):
        if folder.done[name].get("sha256") != file_digest(file):
            raise FileExistsError(
                f"{folder.path} holds the prediction of another {name} than {file}; give another --output, or "
                "--overwrite"
            )


def _predict_batch(model: Predictor, batch: list[Read], options: Options) -> list[dict[str, np.ndarray]]:
    """Outputs of each image of a batch."""
    size = model.image_size
    images = np.zeros((options.batch_size, size, size, 3), "uint8")  # always full: one shape, compiled once
    for row, item in enumerate(batch):
        assert item.fitted is not None
        images[row] = item.fitted.image
    outputs = model.predict(images)
    if options.flip:
        mirrored = model.predict(images[:, :, ::-1])
        if "mask" in mirrored:
            mirrored["mask"] = mirrored["mask"][:, :, ::-1]
        outputs = {head: (value + mirrored[head]) / 2 for head, value in outputs.items()}
    return [{head: value[row] for head, value in outputs.items()} for row in range(len(batch))]


def _write(
    item: Read, outputs: dict[str, np.ndarray], folder: OutputFolder, options: Options, rules: ReadingRules
) -> dict[str, Any]:
    """Writes the pictures of an image and returns its row."""
    assert item.fitted is not None
    small = mask = overlay = None
    with contextlib.nullcontext() if item.image is not None else _LARGE:
        if "mask" in outputs:
            small = unletterbox(outputs["mask"], item.fitted.area)
            try:
                mask = class_mask(small, item.shape)
                overlay = painted(_image(item, rules), mask, small.shape[-1]) if options.overlays else None
            except MemoryError as error:
                raise Unwritable("there is not enough memory for a mask of its size") from error
        folder.save_pictures(item.name, mask, overlay)
        scores = score_prediction(small, mask, outputs.get("label"), options.labels)
    return {"file": item.name, "sha256": item.digest, **scores}


def _image(item: Read, rules: ReadingRules) -> np.ndarray:
    """The image of a file, read again where it was too large to be kept."""
    if item.image is not None:
        return item.image
    try:
        image = whole_image(item.file, rules)
    except (ValueError, OSError) as error:
        raise Unwritable(str(error).removeprefix(f"{one_line(item.file)}: ")) from error
    if image.shape[:2] != item.shape:
        raise Unwritable("it changed while it was predicted")
    return image
