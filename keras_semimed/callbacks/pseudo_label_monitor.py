"""Watches how good the pseudo-labels are, where the truth of some unlabelled images is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_semimed.evaluation.batches import filled
from keras_semimed.evaluation.files import write_json
from keras_semimed.evaluation.pseudo_masks import SELECTIONS, PseudoMasks
from keras_semimed.evaluation.threshold_figure import share_names

BINS = 25
PICTURES = 3


class PseudoLabelMonitor(keras.callbacks.Callback):
    """Compares predictions on some unlabelled images with the truth; keeps how sure they were after the first epoch.

    After each epoch it predicts the images as they are, with the weights that `predict` uses, and notes the accuracy of
    all pseudo-labels and of those that the epoch's thresholds let through (Hermes' Fig. 1). After the first epoch it
    counts confidence and entropy, too, which tells whether thresholds are in a sensible range (its Fig. 10 and 11). Of
    a few images it keeps the pseudo-masks of the first and of the last epoch under each way to select them (its
    Fig. 6). It changes nothing, and does nothing for a model that selects no pseudo-labels.

    Args:
        images: 0..255, as `predict` takes them; a few dozen. Shape: `(N, H, W, C)`.
        masks: True masks, 255 = ignored; None: unknown. Shape: `(N, H, W)`.
        labels: True classes; None: unknown. Shape: `(N,)`.
        path: JSON file to keep the history in, with the pseudo-masks in an .npz file of the same name beside it; a
            training that goes on takes both up. None: in memory only.
        batch_size: Images a prediction.

    Attributes:
        history: a list of one dict an epoch: `epoch`, counted from 1, and, of each head whose truth is known,
            `mask_accuracy`, `mask_selected_accuracy` (absent where nothing is selected), `label_accuracy`, ...
        first_epoch: by head, `confidence` and `entropy`, each with `edges` and `counts` of bins; those of the
            confidence go from chance to 1, those of the entropy from 0 to that of chance, in nats.
        pseudo_masks: `PseudoMasks` of the first images; None without true masks or before the first epoch.

    Raises:
        ValueError: If there are no images, or targets of another length.
    """

    def __init__(
        self,
        images: np.ndarray,
        masks: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        path: str | Path | None = None,
        batch_size: int = 16,
    ) -> None:
        super().__init__()
        self.images = np.asarray(images)
        self.truths = {
            name: np.asarray(values) for name, values in (("mask", masks), ("label", labels)) if values is not None
        }
        if not len(self.images) or any(len(values) != len(self.images) for values in self.truths.values()):
            lengths = {name: len(values) for name, values in self.truths.items()}
            raise ValueError(f"there must be images, and targets for all of them; got {len(self.images)} and {lengths}")
        self.path = None if path is None else Path(path)
        self.batch_size = min(batch_size, len(self.images))
        self.history: list[dict[str, float]] = []
        self.first_epoch: dict[str, dict[str, dict[str, list[float]]]] = {}
        self.pseudo_masks: PseudoMasks | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes up what an interrupted training left."""
        del logs
        if self.path is not None and self.path.exists():
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self.history, self.first_epoch = content["history"], content["first_epoch"]
            if self._masks_path().exists():
                self.pseudo_masks = PseudoMasks.load(self._masks_path())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Predicts and counts."""
        logs = logs or {}
        if not share_names(logs):
            return
        row: dict[str, float] = {"epoch": epoch + 1}
        for head, probabilities in self._predictions().items():
            if epoch == 0:
                self.first_epoch[head] = _histograms(probabilities)
            combine = getattr(self.model, "mask_combine", "all") if head == "mask" else "all"
            if head in self.truths:
                selection = getattr(self.model, "selection", "dual")
                chosen = passes(head, probabilities, logs, selection, combine)
                row |= _accuracies(head, probabilities, self.truths[head], chosen)
            if head == "mask" and head in self.truths:
                self._keep_masks(epoch + 1, probabilities[:PICTURES], logs, combine)
        self.history = [earlier for earlier in self.history if earlier["epoch"] <= epoch] + [row]
        if self.path is not None:
            content = {"images": len(self.images), "history": self.history, "first_epoch": self.first_epoch}
            write_json(self.path, content)
            if self.pseudo_masks is not None:
                self.pseudo_masks.save(self._masks_path())

    def _masks_path(self) -> Path:
        assert self.path is not None
        return self.path.with_suffix(".npz")

    def _keep_masks(self, epoch: int, probabilities: np.ndarray, logs: Mapping[str, Any], combine: str) -> None:
        """Takes the pseudo-masks of this epoch beside those of the first."""
        before = {} if self.pseudo_masks is None else self.pseudo_masks.kept
        kept = {key: values for key, values in before.items() if key[0] == 1}
        for name in SELECTIONS if "kappa" in logs else ("none", "confidence"):
            chosen = passes("mask", probabilities, logs, name, combine)
            kept[epoch, name] = np.where(chosen, probabilities.argmax(axis=-1), 0).astype("uint8")
        truths = self.truths["mask"][:PICTURES].reshape(probabilities.shape[:-1])
        images = np.clip(self.images[:PICTURES], 0, 255).astype("uint8")
        self.pseudo_masks = PseudoMasks(images, truths.astype("uint8"), kept)

    def _predictions(self) -> dict[str, np.ndarray]:
        """Probabilities of each head for all images, in batches of one size."""
        size = self.batch_size
        found: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(self.images), size):
            batch = self.images[start : start + size]
            for head, values in self.model.predict_on_batch(filled(batch, size)).items():
                found.setdefault(head, []).append(keras.ops.convert_to_numpy(values)[: len(batch)])
        return {head: np.concatenate(values) for head, values in found.items()}


def passes(
    head: str, probabilities: np.ndarray, logs: Mapping[str, Any], selection: str = "dual", combine: str = "all"
) -> np.ndarray:
    """Which pseudo-labels the thresholds in the logs let through, by head and method.

    Args:
        head: `"mask"` or `"label"`.
        probabilities: Shape: `(..., K)`.
        logs: Those of an epoch; their names decide: `tau`, `mask_tau`, `kappa` of Hermes, `threshold_class_0` of LoCo.
        selection: As Hermes has it: `"none"`, `"confidence"`, `"uncertainty"` or `"dual"`.
        combine: For `"dual"`: `"all"` or `"any"` of the tests must pass.

    Returns:
        Booleans `(...)`.
    """
    tests = []
    if selection in ("confidence", "dual"):
        common = logs.get(f"{head}_tau", logs.get("tau", 0.0))
        thresholds = [float(logs.get(f"threshold_class_{c}", common)) for c in range(probabilities.shape[-1])]
        tests.append(probabilities.max(axis=-1) >= np.array(thresholds)[probabilities.argmax(axis=-1)])
    if selection in ("uncertainty", "dual") and "kappa" in logs:
        tests.append(_entropy(probabilities) <= float(logs["kappa"]))
    if not tests:
        return np.ones(probabilities.shape[:-1], bool)
    return (np.logical_and if combine == "all" else np.logical_or).reduce(tests)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=-1)


def _accuracies(head: str, probabilities: np.ndarray, truth: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    truth = truth.reshape(probabilities.shape[:-1])
    known = truth != 255
    correct = probabilities.argmax(axis=-1) == truth
    found = {}
    for name, members in ((f"{head}_accuracy", known), (f"{head}_selected_accuracy", known & chosen)):
        if members.any():
            found[name] = float(correct[members].mean())
    return found


def _histograms(probabilities: np.ndarray) -> dict[str, dict[str, list[float]]]:
    classes = probabilities.shape[-1]
    found = {}
    for name, values, limits in (
        ("confidence", probabilities.max(axis=-1), (1 / classes, 1.0)),
        ("entropy", _entropy(probabilities), (0.0, float(np.log(classes)))),
    ):
        counts, edges = np.histogram(np.clip(values, *limits), bins=BINS, range=limits)
        found[name] = {"edges": edges.tolist(), "counts": counts.tolist()}
    return found
