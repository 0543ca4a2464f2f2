"""One row of scores for each image, and their summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

Row = dict[str, Any]


def evaluate_images(
    model: keras.Model,
    dataset: Iterable,
    names: Sequence[str] | None = None,
    ignore_value: int = 255,
) -> list[Row]:
    """Scores every image on its own.

    Dice and IoU are those of the most probable mask, per image, averaged over the foreground classes 1..K-1 that occur
    in its truth or prediction. An image without foreground in both counts 1 ("both empty = 1"), which rewards a model
    that leaves a normal image alone; one whose pixels are all ignored has NaN and leaves the means.

    Args:
        model: A model whose `predict_on_batch` gives `{"mask": (N, H, W, K), "label": (N, C)}` probabilities, or one
            of the two.
        dataset: Batches `(images (N, H, W, C), {"mask": (N, H, W), "label": (N,)})`, e.g. `EvaluationBatches`; any
            iterable of them. Targets may lack one of the two.
        names: One name an image. None takes the names of `dataset.image_set`, or the images' positions.
        ignore_value: Mask value of the pixels to leave out.

    Returns:
        One dict an image, in order: `name`; `dice` and `iou` where there are masks; `label`, `prediction` (class
        indices) and `probability_0`, `probability_1`, ... where there are classes.

    Raises:
        ValueError: If the dataset is empty, a mask has another size than its prediction, or `names` has another length.
    """
    if names is None and hasattr(dataset, "image_set"):
        names = dataset.image_set.names
    rows: list[Row] = []
    for predictions, targets in _predictions(model, dataset):
        count = len(next(iter(predictions.values())))
        batch: list[Row] = [{} for _ in range(count)]
        if "mask" in predictions and "mask" in targets:
            _add_overlaps(batch, predictions["mask"], targets["mask"], ignore_value)
        if "label" in predictions:
            _add_labels(batch, predictions["label"], targets.get("label"))
        rows += batch
    if not rows:
        raise ValueError("dataset has no batches; give at least one image")
    if names is not None and len(names) != len(rows):
        raise ValueError(f"names has {len(names)} entries for {len(rows)} images; give one each")
    return [{"name": str(index if names is None else names[index]), **row} for index, row in enumerate(rows)]


def summarize(rows: Sequence[Row]) -> dict[str, float]:
    """Means over images.

    Args:
        rows: What `evaluate_images` returned.

    Returns:
        `images` (their number); `dice`, `dice_std`, `iou`, `iou_std` where the rows have them (standard deviation over
        images, with n - 1); `accuracy` and `balanced_accuracy` (mean recall of the classes present) likewise.
    """
    summary: dict[str, float] = {"images": len(rows)}
    for key in ("dice", "iou"):
        values = np.array([row[key] for row in rows if key in row and not np.isnan(row[key])], "float64")
        if len(values):
            summary[key] = float(values.mean())
            summary[f"{key}_std"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    labels = np.array([row["label"] for row in rows if "label" in row])
    if len(labels):
        correct = np.array([row["prediction"] == row["label"] for row in rows if "label" in row], "float64")
        summary["accuracy"] = float(correct.mean())
        summary["balanced_accuracy"] = float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))
    return summary


def foreground_overlap(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore_value: int = 255
) -> tuple[float, float]:
    """Dice and IoU of one image, averaged over the foreground classes in truth or prediction; see `evaluate_images`.

    Args:
        truth: Class indices. Shape: `(H, W)`.
        prediction: Class indices. Shape: `(H, W)`.
        num_classes: K, background included.
        ignore_value: Value of `truth` where pixels are left out.
    """
    valid = truth != ignore_value
    if not valid.any():
        return float("nan"), float("nan")
    scores = []
    for index in range(1, num_classes):
        true, predicted = valid & (truth == index), valid & (prediction == index)
        total = int(true.sum()) + int(predicted.sum())
        if total:
            common = int((true & predicted).sum())
            scores.append((2 * common / total, common / (total - common)))
    if not scores:
        return 1.0, 1.0
    dice, iou = np.mean(scores, axis=0)
    return float(dice), float(iou)


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
        if count < size:
            images = np.concatenate([images, np.repeat(images[:1], size - count, axis=0)])
        predictions = model.predict_on_batch(images)
        yield (
            {name: np.asarray(value)[:count] for name, value in predictions.items()},
            {name: np.asarray(value) for name, value in targets.items()},
        )


def _batches(dataset: Iterable) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A `PyDataset` is indexed: its own iteration never ends."""
    if isinstance(dataset, keras.utils.PyDataset):
        for index in range(len(dataset)):
            yield dataset[index]
    else:
        yield from dataset


def _add_overlaps(rows: list[Row], probabilities: np.ndarray, masks: np.ndarray, ignore_value: int) -> None:
    if masks.ndim == 4:
        masks = masks[..., 0]
    if masks.shape != probabilities.shape[:3]:
        raise ValueError(
            f"masks are {masks.shape} and predictions {probabilities.shape[:3]} (images, height, width); "
            "bring the masks to the size of the images"
        )
    for row, truth, prediction in zip(rows, masks, probabilities.argmax(-1), strict=True):
        row["dice"], row["iou"] = foreground_overlap(truth, prediction, probabilities.shape[-1], ignore_value)


def _add_labels(rows: list[Row], probabilities: np.ndarray, labels: np.ndarray | None) -> None:
    for index, (row, values) in enumerate(zip(rows, probabilities, strict=True)):
        if labels is not None:
            row["label"] = int(labels[index])
        row["prediction"] = int(values.argmax())
        row |= {f"probability_{column}": float(value) for column, value in enumerate(values)}
