"""Records what small trainings compute, and holds a later state of the package against it.

    python -m benchmarks.histories record FOLDER     # before a change
    python -m benchmarks.histories compare FOLDER    # after it; exit code 1 where a value differs by more than allowed

Each case trains a tiny network for a few steps from start weights that depend on nothing but the part of the network
that they belong to, so that networks may be put together in another way in between. Recorded are the history of every
step, the last weights of network and teacher, part by part, and a prediction. KERAS_BACKEND chooses the backend; a
record of one backend and machine says nothing about another.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_semimed.data.arrays import SemiSupervisedBatches
from keras_semimed.models import Hermes, LoCo, Supervised
from tests.models.common import SIZE, image_set, tiny_encoder

STEPS = 5
LEARNING_RATE = 1e-3
WIDTHS = (8, 8, 8, 4, 4)
# Names that parts had before the heads were taken out of the networks.
FORMER_PARTS = {
    "pixel_embeddings": "pixel_projector",
    "image_embeddings": "image_projector",
    "consistency_segmentation": "segmentation_projector",
    "consistency_classification": "classification_projector",
    "projection": "projector",
}
CASES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "supervised": (Supervised, {}),
    "supervised_segmentation": (Supervised, {"tasks": "segmentation", "teacher_momentum": 0.9}),
    "supervised_classification": (Supervised, {"tasks": "classification", "strong": True}),
    "supervised_exchange": (Supervised, {"exchange": "both", "saliency_level": "P3"}),
    "hermes": (Hermes, {}),
    "hermes_release": (Hermes, {"preset": "release", "contrast_delay": 0.2}),
    "hermes_teacher": (Hermes, {"teacher_momentum": 0.9, "unlabeled_mask_loss": "ce", "confidence": 0.5}),
    "hermes_own_statistics": (Hermes, {"teacher_momentum": 0.9, "teacher_statistics": "own", "bank_size": 0}),
    "hermes_mean": (Hermes, {"uncertainty_of": "mean", "unlabeled_start": 1, "unlabeled_ramp": 3}),
    "hermes_three": (
        Hermes,
        {"num_classes": 3, "num_labels": 4, "uncertainty_of": "disagreement", "exchange": "seg_to_cls"},
    ),
    "hermes_segmentation": (Hermes, {"tasks": "segmentation", "contrast_level": "P4", "selection": "none"}),
    "hermes_classification": (Hermes, {"tasks": "classification", "image_weighting": "anchor"}),
    "hermes_stopped": (Hermes, {"stop_gradient_between_tasks": True, "saliency_image": False}),
    "loco": (LoCo, {}),
    "loco_release": (LoCo, {"preset": "release", "num_classes": 3}),
    "loco_m1": (LoCo, {"use_unlabeled": False, "inter_class": False, "boundary": False, "dynamic_filter": False}),
    "loco_m2": (LoCo, {"inter_class": False, "boundary": False, "dynamic_filter": False, "fixed_threshold": 0.5}),
    "loco_own_statistics": (LoCo, {"teacher_statistics": "own", "teacher_momentum": 0.5, "threshold_start": 0.5}),
}


class Batches(SemiSupervisedBatches):
    """With a strong view that was made on the host."""

    def at(self, step: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The batch of a step."""
        inputs, targets = super().at(step)
        return {**inputs, "unlabeled_strong": 255 - inputs["unlabeled"]}, targets


def arguments(method: Callable[..., Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Of a model that trains in seconds."""
    given: dict[str, Any] = {"image_size": SIZE, "encoder": tiny_encoder(), "total_steps": STEPS + 1, "seed": 3}
    return {**given, "decoder_filters": 16 if method is LoCo else WIDTHS, **changes}


def named_variables(network: Any) -> dict[str, Any]:
    """The variables of a network by part and place in it."""
    return {
        f"{FORMER_PARTS.get(part, part)}/{index}": variable
        for part, layers in network.parts.items()
        for index, variable in enumerate(variable for layer in layers for variable in layer.variables)
    }


def start(network: Any) -> None:
    """Kernels from a generator of their own, everything else as it is made."""
    for name, variable in named_variables(network).items():
        if len(variable.shape) < 2:
            continue
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        scale = np.sqrt(2.0 / np.prod(variable.shape[:-1]))
        variable.assign(scale * np.random.default_rng(seed).standard_normal(tuple(variable.shape)))


def run_case(name: str) -> dict[str, np.ndarray]:
    """Trains one case; returns everything that it computed."""
    method, changes = CASES[name]
    keras.utils.set_random_seed(0)
    model = method(**arguments(method, changes))
    start(model.network)
    if model.teacher is not None:
        for ours, theirs in zip(model.teacher.variables, model.network.variables, strict=True):
            ours.assign(theirs.value * 1)
    model.compile(model.default_optimizer(learning_rate=LEARNING_RATE))
    shape = {"classes": changes.get("num_classes", 2), "labels": changes.get("num_labels", 2)}
    labeled, unlabeled = image_set(6, 0, **shape), image_set(8, 1, **shape)
    areas = np.tile(np.array([0, 3, SIZE, SIZE - 2], "int32"), (len(unlabeled), 1))
    data = (Batches if name.endswith("statistics") else SemiSupervisedBatches)(
        labeled,
        type(unlabeled)(unlabeled.names, unlabeled.images, areas=areas) if "three" in name else unlabeled,
        batch_size=3,
        unlabeled_batch_size=2,
        steps_per_epoch=1,
        seed=0,
    )
    found: dict[str, np.ndarray] = {}
    # Several calls, because in epochs of one step Keras' look at the first batch would count as an epoch.
    for step in range(STEPS):
        data.epoch = step
        for key, values in model.fit(data, epochs=step + 1, initial_epoch=step, verbose=0).history.items():
            found[f"history/{step}/{key}"] = np.array(values[0])
    for kind, network in (("network", model.network), ("teacher", model.teacher)):
        if network is not None:
            for key, variable in named_variables(network).items():
                found[f"{kind}/{key}"] = keras.ops.convert_to_numpy(variable.value)
    for head, values in model.predict(image_set(2, 3).images, verbose=0).items():
        found[f"prediction/{head}"] = values
    return found


def differences(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> tuple[list[str], dict[str, float]]:
    """Names that only one side has, and the largest difference of each kind, relative to the largest value."""
    odd = sorted(set(before) ^ set(after))
    worst: dict[str, float] = {}
    for key in set(before) & set(after):
        kind = "/".join(key.split("/")[:2]) if key.startswith("history") else key.split("/")[0]
        # A weight that is nothing but rounding, such as a bias that BatchNorm takes out again, counts by the step size.
        scale = max(float(np.abs(before[key]).max()), 1e-6 if key.startswith("history") else LEARNING_RATE)
        difference = float(np.abs(before[key].astype("float64") - after[key]).max()) / scale
        worst[kind] = max(worst.get(kind, 0.0), difference)
    return odd, dict(sorted(worst.items()))


def compare(name: str, before: dict[str, np.ndarray]) -> bool:
    """Runs a case again and says how far it is from the record; whether it is as near as it has to be."""
    odd, worst = differences(before, run_case(name))
    # What only trains away from the loss: a frozen projector that is not built any more.
    odd = [key for key in odd if not key.split("/")[1].endswith("projector")]
    largest = max(worst.values())
    good = not odd and worst["history/0"] <= 1e-6 and largest <= 1e-4
    detail = "equal to the bit" if largest == 0 else ", ".join(f"{kind} {value:.1e}" for kind, value in worst.items())
    print(
        f"{'ok   ' if good else 'WRONG'} {name}: {detail}{f'; only on one side: {odd[:6]}' if odd else ''}", flush=True
    )
    return good


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--plain-graph",
        action="store_true",
        help="TensorFlow without its graph optimizer, which orders the terms of sums by the names of operations",
    )
    options = parser.parse_args()
    if options.plain_graph:
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    folder = options.folder / keras.backend.backend()
    good = True
    for name in options.cases:
        path = folder / f"{name}.npz"
        if options.action == "compare":
            with np.load(path) as file:
                good &= compare(name, dict(file))
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **run_case(name))  # type: ignore[arg-type]
        print(f"recorded {path}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
