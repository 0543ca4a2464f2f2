"""Watches how good the pseudo-labels are, where the truth of some unlabelled images is known."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_semimed.evaluation.batches import filled
from keras_semimed.evaluation.pseudo_masks import PseudoMasks
from keras_semimed.evaluation.threshold_figure import share_names
from keras_semimed.files import read_sealed, write_sealed
from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.models import SemiSupervisedModel, View
from keras_semimed.thresholds import entropy

BINS = 25
PICTURES = 3
UNKNOWN = 255


class PseudoLabelMonitor(keras.callbacks.Callback):
    """Compares pseudo-labels of some unlabelled images with the truth; keeps how sure they were after the first epoch.

    After each epoch it asks the model what it would learn from these images now (`label`), and notes the accuracy of
    all pseudo-labels and of those that are kept (Hermes' Fig. 1), weighted as the method weights them. After the first
    epoch it counts confidence and entropy, too, which tells whether thresholds are in a sensible range (its Fig. 10 and
    11). Of a few images it keeps the pseudo-masks of the first and of the last epoch under each way to select them that
    the model names (`label_variants`, its Fig. 6).

    The images are looked at as they are, as `predict` takes them, in the place of a weak view; methods that look at two
    views also get a strong one, the same in every epoch. It changes nothing, and does nothing where the logs name no
    share of pseudo-labels, as those of a model that uses none.

    Args:
        images: 0..255, as `predict` takes them; a few dozen. Shape: `(N, H, W, C)`.
        masks: True masks, 255 = ignored; None: unknown. Shape: `(N, H, W)`.
        labels: True classes; None: unknown. Shape: `(N,)`.
        path: JSON file to keep the history in, with the pseudo-masks in an .npz file of the same name beside it; a
            training that goes on takes both up. None: in memory only.
        batch_size: Images a call of the model.

    Attributes:
        history: a list of one dict an epoch: `epoch`, counted from 1, and, of each head whose truth is known,
            `mask_accuracy`, `mask_selected_accuracy` (absent where nothing is kept), `label_accuracy`, ...
        first_epoch: by head, `confidence` of the pseudo-labels and, of a method that tells them, `entropy` of the
            probabilities that they were made from, each with `edges` and `counts` of bins; those of the confidence go
            from chance to 1, those of the entropy from 0 to that of chance, in nats.
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
            raise ValueError(f"`images` must each have a target of every kind, found {len(self.images)} and {lengths}")
        self.path = None if path is None else Path(path)
        self.batch_size = min(batch_size, len(self.images))
        self.history: list[dict[str, float]] = []
        self.first_epoch: dict[str, dict[str, dict[str, list[float]]]] = {}
        self.pseudo_masks: PseudoMasks | None = None
        self._labeler: Labeler | None = None
        self._strong: np.ndarray | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes up what an interrupted training left."""
        del logs
        self._labeler = self._strong = None
        if self.path is None or not self.path.exists():
            return
        try:
            content = read_sealed(self.path)
            history, first_epoch = content["history"], content["first_epoch"]
            masks = PseudoMasks.load(self._masks_path()) if self._masks_path().exists() else None
        except (OSError, ValueError, KeyError) as error:
            warnings.warn(f"{error}; pseudo-labels are watched anew from here on", stacklevel=2)
        else:
            self.history, self.first_epoch, self.pseudo_masks = history, first_epoch, masks

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Asks and counts."""
        if not isinstance(self.model, SemiSupervisedModel) or not share_names(logs or {}):
            return
        found, variants = self._labels()
        row: dict[str, float] = {"epoch": epoch + 1}
        for head, labels in found.items():
            if epoch == 0:
                self.first_epoch[head] = self._histograms(head, labels)
            if head in self.truths:
                row |= _accuracies(head, labels, self.truths[head])
        if variants:
            self._keep_masks(epoch + 1, variants)
        self.history = [earlier for earlier in self.history if earlier["epoch"] <= epoch] + [row]
        if self.path is not None:
            content = {"images": len(self.images), "history": self.history, "first_epoch": self.first_epoch}
            write_sealed(self.path, content)
            if self.pseudo_masks is not None:
                self.pseudo_masks.save(self._masks_path())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Lets go of the model."""
        del logs
        self._labeler = self._strong = None

    def _masks_path(self) -> Path:
        assert self.path is not None
        return self.path.with_suffix(".npz")

    def _keep_masks(self, epoch: int, variants: Mapping[str, PseudoLabels]) -> None:
        """Takes the pseudo-masks of this epoch beside those of the first."""
        before = {} if self.pseudo_masks is None else self.pseudo_masks.kept
        kept = {key: values for key, values in before.items() if key[0] == 1}
        for name, found in variants.items():
            chosen = (found.kept > 0) & (found.labels != UNKNOWN)
            kept[epoch, name] = np.where(chosen, found.labels, 0).astype("uint8")[:PICTURES]
        truths = self.truths["mask"][:PICTURES].reshape(next(iter(kept.values())).shape)
        images = np.clip(self.images[:PICTURES], 0, 255).astype("uint8")
        self.pseudo_masks = PseudoMasks(images, truths.astype("uint8"), kept)

    def _labels(self) -> tuple[dict[str, PseudoLabels], dict[str, PseudoLabels]]:
        """Pseudo-labels of all images by head, and their masks by what selects them, in NumPy."""
        if self._labeler is None or self._strong is None:
            self._labeler = Labeler(self.model, variants="mask" in self.truths)
            self._strong = self._strong_views()
        parts = []
        for start in range(0, len(self.images), self.batch_size):
            some = slice(start, start + self.batch_size)
            count = len(self.images[some])
            views = {"weak": self.images[some], "strong": self._strong[some]}
            views = {name: filled(images, self.batch_size) for name, images in views.items()}
            found = self._labeler.predict_on_batch(views)
            parts.append(keras.tree.map_structure(lambda x, n=count: ops.convert_to_numpy(x)[:n], found))
        whole = keras.tree.map_structure(lambda *values: np.concatenate(values), *parts)
        labels, variants = ({name: PseudoLabels(**fields) for name, fields in group.items()} for group in whole)
        return labels, variants

    def _strong_views(self) -> np.ndarray:
        """Strong views of the images in the colours that the model's random streams begin with; no stream moves."""
        streams = [variable for variable in self.model.variables if variable.name == "random_state"]
        # Seed and number of draws so far.
        beginnings = [(stream, ops.convert_to_numpy(stream.value) * np.array([1, 0])) for stream in streams]
        found = []
        with keras.StatelessScope(state_mapping=beginnings):
            for start in range(0, len(self.images), self.batch_size):
                view = _view(ops.convert_to_tensor(self.images[start : start + self.batch_size]))
                found.append(ops.convert_to_numpy(self.model.strong(view).images))
        return np.concatenate(found)

    def _histograms(self, head: str, labels: PseudoLabels) -> dict[str, dict[str, list[float]]]:
        classes = self.model.num_classes if head == "mask" else self.model.num_labels
        measured = {"confidence": (labels.confidence, (1 / classes, 1.0))}
        if labels.probabilities is not None:
            entropies = ops.convert_to_numpy(entropy(labels.probabilities))
            measured["entropy"] = (entropies, (0.0, float(np.log(classes))))
        found = {}
        for name, (values, limits) in measured.items():
            counts, edges = np.histogram(np.clip(values, *limits), bins=BINS, range=limits)
            found[name] = {"edges": edges.tolist(), "counts": counts.tolist()}
        return found


class Labeler(keras.Model):
    """Compiles what a model would label images with, whatever the backend.

    Args:
        model: The model.
        variants: Also ask for the masks under each way to select them.
    """

    def __init__(self, model: SemiSupervisedModel, variants: bool) -> None:
        super().__init__(dtype="float32")  # what is asked decides on its own precision
        self.asked = model
        self.variants = variants
        self.built = True

    def call(self, views: Mapping[str, Any]) -> list[dict[str, dict[str, Any]]]:
        """The fields of `label` by head, and of `label_variants` by name; one that is None is left out."""
        weak, strong = (_view(views[name]) for name in ("weak", "strong"))
        groups = [self.asked.label(weak, strong), self.asked.label_variants(weak, strong) if self.variants else {}]
        return [
            {
                name: {field: value for field, value in labels._asdict().items() if value is not None}
                for name, labels in group.items()
            }
            for group in groups
        ]


def _view(images: Any) -> View:
    """Images as they are, all of them inside."""
    images = ops.cast(images, "float32")
    return View(images, ops.ones_like(images[..., 0]))


def _accuracies(head: str, labels: PseudoLabels, truth: np.ndarray) -> dict[str, float]:
    truth = truth.reshape(labels.labels.shape)
    known = ((truth != UNKNOWN) & (labels.labels != UNKNOWN)).astype("float64")
    found = {}
    for name, weight in ((f"{head}_accuracy", known), (f"{head}_selected_accuracy", known * labels.kept)):
        if weight.sum() > 0:
            found[name] = float((weight * (labels.labels == truth)).sum() / weight.sum())
    return found
