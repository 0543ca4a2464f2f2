"""One row of scores for each image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_semimed.configuration import check_choice
from keras_semimed.data.images.letterbox import unletterbox
from keras_semimed.data.images.resizing import class_mask
from keras_semimed.evaluation.batches import filled
from keras_semimed.evaluation.groups import GROUP, PART
from keras_semimed.evaluation.masks import score_mask
from keras_semimed.evaluation.sizes import Size
from keras_semimed.files import read_table
from keras_semimed.models import SemiSupervisedModel

Row = dict[str, Any]


def evaluate_images(
    model: keras.Model,
    dataset: Iterable,
    names: Sequence[str] | None = None,
    ignore_value: int = 255,
    surface_tolerance: float | None = 2.0,
    spacing: tuple[float, float] = (1.0, 1.0),
    size: Size = "network",
    tolerance_mm: float | None = 1.0,
) -> list[Row]:
    """Scores every image on its own.

    Dice and IoU are those of the most probable mask, per image, averaged over the foreground classes 1..K-1 that occur
    in its truth or prediction. An image without foreground in both counts 1 ("both empty = 1"), which rewards a model
    that leaves a normal image alone; one whose pixels are all ignored has NaN and leaves the means.

    So do the normalised surface distance, whose key names its tolerance, and the 95 % Hausdorff distance: per image,
    averaged over the same classes; both empty: 1 and 0; one of the two empty: 0 and the image's diagonal. They take
    some milliseconds an image.

    A lesion is missed if an image has foreground and no predicted foreground pixel, of whatever class, lies on it. A
    lesion that vanished when its mask was resized (`ImageSet.present`) is missed, with a Dice of 0.

    Args:
        model: A model whose `predict_on_batch` gives `{"mask": (N, H, W, K), "label": (N, C)}` probabilities, or one
            of the two.
        dataset: Batches `(images (N, H, W, C), {"mask": (N, H, W), "label": (N,)})`, e.g. `EvaluationBatches`; any
            iterable of them. Targets may lack one of the two.
        names: One name an image. None takes the names of `dataset.image_set`, or the images' positions.
        ignore_value: Mask value of the pixels to leave out.
        surface_tolerance: Tolerance of the normalised surface distance, in units of `spacing`; None leaves the surface
            metrics in these units out.
        spacing: Height and width of a pixel; by default distances are in pixels.
        size: At which masks are compared: `"network"`, that of the batches, or `"own"`: probabilities are resized to
            each file's size, the padding cut off, and compared with the mask as it was annotated
            (`ImageSet.own_masks`). Pixels, and so distances, are then those of the file.
        tolerance_mm: Tolerance of the normalised surface distance in mm, at the images' own size and where the size of
            their pixels is known (`ImageSet.spacing`). None leaves the surface metrics in mm out. What is near enough
            depends on the organ: take what two annotators differ by.

    Returns:
        One dict an image, in order: `name`. Where there are masks: `dice`, `iou`, `intersection_0`, `union_0`, ...
        (pixels of each class, for pooling), `lesion_size` (area of the true foreground in squared units of `spacing`),
        `missed` (1 or 0, only where there is a lesion), `nsd_at_2` and `hd95`; of images whose spacing is known, at
        their own size, `nsd_at_1_mm` and `hd95_mm`.
        Where there are classes: `label`, `prediction` (class indices) and `probability_0`, `probability_1`, ...

    Raises:
        ValueError: If the dataset is empty, a mask has another size than its prediction or a class that it cannot have,
            a label is no class of the model, predictions are not finite, or `names` has another length; if the images
            were read from files otherwise than those that the model was trained on.
    """
    check_choice("size", size, ("network", "own"))
    if size == "own" and not _has_own_masks(dataset):
        raise ValueError("`size` can be 'own' only for images that were read from files with masks, found others")
    score = functools.partial(
        score_mask,
        ignore_value=ignore_value,
        surface_tolerance=surface_tolerance,
        spacing=spacing,
        tolerance_mm=tolerance_mm,
    )
    return _evaluate(model, dataset, names, (size,), score)[size]


def evaluate_sizes(
    model: keras.Model,
    dataset: Iterable,
    names: Sequence[str] | None = None,
    surface_tolerance: float | None = 2.0,
    tolerance_mm: float | None = 1.0,
) -> dict[Size, list[Row]]:
    """Scores every image at both sizes at which masks can be compared, from one prediction.

    Arguments and errors are those of `evaluate_images`.

    Returns:
        `{"network": rows, "own": rows}`. Only `"network"` where the images were not read from files with masks, or the
        model predicts none.
    """
    sizes: tuple[Size, ...] = ("network", "own") if _has_own_masks(dataset) else ("network",)
    score = functools.partial(score_mask, surface_tolerance=surface_tolerance, tolerance_mm=tolerance_mm)
    found = _evaluate(model, dataset, names, sizes, score)
    return found if any("dice" in row for row in found["network"]) else {"network": found["network"]}


def _has_own_masks(dataset: Iterable) -> bool:
    return getattr(getattr(dataset, "image_set", None), "own_masks", None) is not None


def _evaluate(
    model: keras.Model,
    dataset: Iterable,
    names: Sequence[str] | None,
    sizes: Sequence[Size],
    score: Callable[..., Row],
) -> dict[Size, list[Row]]:
    """Rows by the size at which masks are compared; `score` is `score_mask` with its settings."""
    images: Any = getattr(dataset, "image_set", None)
    if isinstance(model, SemiSupervisedModel) and model.reading is not None:
        model.reading.check_images(images)
    if names is None and images is not None:
        names = images.names
    rows: dict[Size, list[Row]] = {size: [] for size in sizes}
    for predictions, targets in _predictions(model, dataset):
        labels: list[Row] = [{} for _ in range(len(next(iter(predictions.values()))))]
        if "label" in predictions:
            _add_labels(labels, predictions["label"], targets.get("label"))
        masks = None
        if "mask" in predictions and "mask" in targets:
            masks = _masks(targets["mask"], predictions["mask"])
        for size, found in rows.items():
            first = len(found)
            for index, label in enumerate(labels):
                row: Row = {}
                if masks is not None:
                    row = _scored(size, masks[index], predictions["mask"][index], images, first + index, score)
                found.append(row | label)
    count = len(rows[sizes[0]])
    if not count:
        raise ValueError("dataset has no batches; give at least one image")
    if names is not None and len(names) != count:
        raise ValueError(f"names has {len(names)} entries for {count} images; give one each")
    return {
        size: [{"name": str(index if names is None else names[index]), **row} for index, row in enumerate(found)]
        for size, found in rows.items()
    }


def _scored(
    size: Size, truth: np.ndarray, probabilities: np.ndarray, images: Any, place: int, score: Callable[..., Row]
) -> Row:
    """Scores of the image at a place of its set: its mask `(H, W)` and the probabilities `(H, W, K)` of the network."""
    classes = probabilities.shape[-1]
    held = None if images is None or images.present is None else images.present[place]
    if size == "network":
        return score(truth, probabilities.argmax(-1), classes, present=held)
    truth = images.own_masks[place].unpacked()
    inside = probabilities if images.areas is None else unletterbox(probabilities, images.areas[place])
    found = class_mask(inside.astype("float32"), truth.shape)
    spacing = None if images.spacing is None else images.spacing[place].tolist()
    known = spacing is not None and not np.isnan(spacing).any()
    return score(truth, found, classes, present=held, spacing_mm=spacing if known else None)


def read_rows(path: str | Path) -> list[Row]:
    """Reads rows that were written as a table, such as a run's `images.csv`: numbers are numbers again, groups texts.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is no such table; it names the file.
    """
    table = read_table(path)
    try:
        return rows_of(table)
    except ValueError as error:
        raise ValueError(f"{path} holds what is no number ({error})") from error


def rows_of(table: Iterable[Mapping[str, str]]) -> list[Row]:
    """The same of a table that has been read."""
    return [{key: _value(key, text) for key, text in line.items() if text != ""} for line in table]


def _value(key: str, text: str) -> str | int | float:
    if key in ("name", "weights", GROUP) or key.startswith(PART):
        return text
    return int(text) if text.isdigit() else float(text)


def _predictions(
    model: keras.Model, dataset: Iterable
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Probabilities and targets, batch by batch.

    A smaller last batch is filled up with copies of its first image, so that the compiled function sees one shape.
    """
    size = None
    for images, targets in _batches(dataset):
        images = np.asarray(images)
        count = len(images)
        size = count if size is None else size
        predictions = model.predict_on_batch(filled(images, size))
        if not isinstance(predictions, dict) or not isinstance(targets, dict):
            raise ValueError(
                "`batches` must be (images, {'mask': ..., 'label': ...}) and the model must predict such a dict; one "
                "of the two keys is enough"
            )
        predictions = {name: np.asarray(value)[:count] for name, value in predictions.items()}
        for name, value in predictions.items():
            if not np.isfinite(value).all():
                raise ValueError(f"{name!r} probabilities of the model are not finite; its training may have diverged")
        yield predictions, {name: np.asarray(value) for name, value in targets.items()}


def _batches(dataset: Iterable) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A `PyDataset` is indexed: its own iteration never ends."""
    if isinstance(dataset, keras.utils.PyDataset):
        for index in range(len(dataset)):
            yield dataset[index]
    else:
        yield from dataset


def _masks(masks: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Masks `(N, H, W)`, as large as their predictions."""
    if masks.ndim == 4:
        masks = masks[..., 0]
    if masks.shape != probabilities.shape[:3]:
        raise ValueError(
            f"masks are {masks.shape} and predictions {probabilities.shape[:3]} (images, height, width); "
            "bring the masks to the size of the images"
        )
    return masks


def _add_labels(rows: list[Row], probabilities: np.ndarray, labels: np.ndarray | None) -> None:
    if labels is not None:
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        classes = probabilities.shape[1]
        if labels.shape != probabilities.shape[:1] or not np.isin(labels, [*range(classes), 255]).all():
            raise ValueError(
                f"`labels` must be {len(probabilities)} class indices from 0 to {classes - 1}, or 255 where unknown, "
                f"one an image, found shape {labels.shape} and values {np.unique(labels)[:5].tolist()}"
            )
    for index, (row, values) in enumerate(zip(rows, probabilities, strict=True)):
        if labels is not None and labels[index] != 255:
            row["label"] = int(labels[index])
        row["prediction"] = int(values.argmax())
        row |= {f"probability_{column}": float(value) for column, value in enumerate(values)}
