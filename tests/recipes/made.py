"""Small made inputs for the recipes' tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from keras_semimed.data import ImageSet
from keras_semimed.experiments.runs.run_folder import RunRecord
from keras_semimed.files import write_json, write_table


def image_set(name: str, image_size: int, *_: Any) -> ImageSet:
    """Stands in for `load_image_set`: 40 noisy images with a bright rectangle each, at the size asked for.

    BUS-BRA has others than the rest.
    """
    generator = np.random.default_rng(int(name == "bus_bra"))
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


class Kept(RunRecord):
    """Also keeps the final state, optimizer included, beside the run's folder."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.save_weights(self.folder.path.with_suffix(".weights.h5"))
        super().on_epoch_end(epoch, logs)


def assert_same_run(folder: Path, expected: Path) -> None:
    """Bits of metrics, scores and of the state behind the last step, which `Kept` kept."""
    for name in ("metrics.csv", "images.csv", "split.txt"):
        assert (folder / name).read_text() == (expected / name).read_text(), name
    state, found = (all_weights(path.with_suffix(".weights.h5")) for path in (expected, folder))
    assert found.keys() == state.keys() and any(name.startswith("optimizer/") for name in found)
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def all_weights(path: Path) -> dict[str, np.ndarray]:
    """Every array of a weights file, optimizer included."""
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return arrays


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
