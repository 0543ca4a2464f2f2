"""The cases that a report shows: images with truth, prediction and what the model looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_semimed.evaluation.batches import filled
from keras_semimed.evaluation.images import Row
from keras_semimed.files import read_arrays, whole_file
from keras_semimed.models import SemiSupervisedModel

GROUPS = ("worst", "median", "best")


@dataclasses.dataclass(frozen=True)
class Cases:
    """Some images of a test set.

    Attributes:
        groups: `"worst"`, `"median"` or `"best"` for each.
        names: as in the rows of `evaluate_images`.
        images: 0..255, uint8. Shape: `(N, H, W, C)`.
        truths: class indices, uint8; None without masks. Shape: `(N, H, W)`.
        predictions: likewise.
        maps: what `model.explain` returned for them, one picture a map, from 0 to 1, by title: `(N, h, w)` float32.
        class_names: names of the image classes.
    """

    groups: Sequence[str]
    names: Sequence[str]
    images: np.ndarray
    truths: np.ndarray | None
    predictions: np.ndarray | None
    maps: Mapping[str, np.ndarray]
    class_names: Sequence[str]

    def save(self, path: str | Path) -> None:
        """Writes an .npz file."""
        arrays: dict[str, Any] = {"groups": np.array(self.groups), "names": np.array(self.names), "images": self.images}
        arrays["class_names"] = np.array(self.class_names, "str")
        for name, masks in (("truths", self.truths), ("predictions", self.predictions)):
            if masks is not None:
                arrays[name] = masks
        arrays |= {f"map {title}": values for title, values in self.maps.items()}
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Cases:
        """Reads what `save` wrote."""
        arrays = read_arrays(path, ("groups", "names", "class_names", "images"))
        maps = {key.removeprefix("map "): value for key, value in arrays.items() if key.startswith("map ")}
        names = {key: arrays[key].tolist() for key in ("groups", "names", "class_names")}
        return cls(
            **names,
            images=arrays["images"],
            truths=arrays.get("truths"),
            predictions=arrays.get("predictions"),
            maps=maps,
        )


def choose_cases(rows: Sequence[Row], each: int = 2) -> dict[int, str]:
    """Positions of the worst, median and best images, each with its group; by Dice, or else by the true class' score.

    Args:
        rows: What `evaluate_images` returned.
        each: Images a group; fewer where there are not enough.
    """
    scores = [_score(row) for row in rows]
    order = [int(index) for index in np.argsort(scores, kind="stable") if not np.isnan(scores[index])]
    middle = max((len(order) - each) // 2, 0)
    chosen: dict[int, str] = {}
    for group, part in zip(GROUPS, (order[:each], order[middle : middle + each], order[-each:]), strict=True):
        for index in part:
            chosen.setdefault(index, group)
    return chosen


def _score(row: Row) -> float:
    if "dice" in row:
        return float(row["dice"])
    return float(row.get(f"probability_{row['label']}", np.nan)) if "label" in row else float("nan")


def collect_cases(
    model: Any,
    images: Any,
    truths: Any,
    rows: Sequence[Row],
    class_names: Sequence[str] = (),
    batch_size: int = 16,
) -> Cases | None:
    """Takes the worst, median and best cases out of a test set.

    Args:
        model: The model that was scored.
        images: 0..255, in the order of `rows`. Shape: `(N, H, W, C)`.
        truths: Class indices, or None. Shape: `(N, H, W)`.
        rows: What `evaluate_images` returned.
        class_names: Names of the image classes.
        batch_size: Images a call of the model, as in the evaluation, so that nothing is compiled again.

    Returns:
        The cases; None without scores to choose them by.
    """
    chosen = choose_cases(rows)
    if not chosen:
        return None
    positions = list(chosen)
    some = np.asarray(images[positions])
    predictions = None
    if truths is not None and "dice" in rows[0]:
        size = min(batch_size, len(rows))
        parts = _parts(some, size)
        masks = [np.asarray(model.predict_on_batch(filled(part, size))["mask"])[: len(part)] for part in parts]
        predictions = np.concatenate(masks).argmax(axis=-1).astype("uint8")
    return Cases(
        groups=list(chosen.values()),
        names=[rows[index]["name"] for index in positions],
        images=some,
        truths=None if truths is None else np.asarray(truths[positions]),
        predictions=predictions,
        maps=explanation_maps(model, some, batch_size),
        class_names=list(class_names),
    )


def explanation_maps(model: Any, images: np.ndarray, batch_size: int = 16) -> dict[str, np.ndarray]:
    """Saliency and spatial attention of some images, by title; empty for a model that has none."""
    if not isinstance(model, SemiSupervisedModel):
        return {}
    size = min(batch_size, len(images))

    def explained(part: np.ndarray) -> Any:
        return keras.tree.map_structure(lambda values: values[: len(part)], model.explain(filled(part, size)))

    found = [explained(part) for part in _parts(images, size)]
    found = keras.tree.map_structure(lambda *values: np.concatenate(values), *found)
    maps = {"saliency": found["saliency"]} if "saliency" in found else {}
    for level, values in enumerate(found.get("spatial_attention", ()), start=1):
        maps[f"attention, 1/{2**level}"] = values
    return {title: np.asarray(values, "float32")[..., 0] for title, values in maps.items()}


def _parts(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (images[start : start + size] for start in range(0, len(images), size))
