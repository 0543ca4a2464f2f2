"""Small made inputs for the recipes' tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.data import ImageSet
from keras_semimed.files import write_json, write_table


def image_set(name: str, image_size: int, *_: Any) -> ImageSet:
    """Stands in for `load_image_set`: 40 noisy images with a bright rectangle each, at the size asked for."""
    del name
    generator = np.random.default_rng(0)
    count = 40
    masks = np.zeros((count, image_size, image_size), "uint8")
    masks[:, 8:20, 10:24] = 1
    noise = generator.integers(0, 80, (count, image_size, image_size, 3))
    return ImageSet(
        names=[f"image {index}" for index in range(count)],
        images=(noise + 150 * masks[..., None]).astype("uint8"),
        masks=masks,
        labels=(np.arange(count) % 2).astype("int32"),
        groups=[f"patient {index // 2}" for index in range(count)],
        class_names=("benign", "malignant"),
    )


def run_folder(
    path: Path,
    dice: dict[str, float],
    correct: dict[str, bool],
    seed: int = 0,
    split_hash: str = "abc",
    finished: bool = True,
    weights: str = "last",
    **flags: Any,
) -> Path:
    """Writes what a finished run leaves for `recipes.compare`; images alternate between two classes."""
    path.mkdir(parents=True)
    content = {"configuration": {"seed": seed, **flags}, "split": {"hash": split_hash, "scored": "test"}}
    write_json(path / "config.json", {**content, "result": {}} if finished else content)
    rows = []
    for index, name in enumerate(dice):
        label = index % 2
        prediction = label if correct[name] else 1 - label
        rows.append({"name": name, "weights": weights, "dice": dice[name], "label": label, "prediction": prediction})
    write_table(path / "images.csv", rows)
    return path
