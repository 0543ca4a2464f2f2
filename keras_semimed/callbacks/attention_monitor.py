"""Watches how far the attention gates range, and whether they depend on what they look at."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_semimed.evaluation.gates import gate_scores
from keras_semimed.files import read_sealed, write_sealed
from keras_semimed.models import SemiSupervisedModel


class AttentionMonitor(keras.callbacks.Callback):
    """Notes range and spread of the gates of inter-task attention (Hermes, Eq. 3 and 4) after each epoch.

    It asks the model for the gates of a few images (`explain`), in inference mode and of the network that predicts. A
    gate that is the same for every image and place is a factor, no attention; one that is 0 or 1 hardly learns any
    more. It changes nothing, and leaves nothing where the model has no such attention.

    Args:
        images: 0..255, as `predict` takes them; a few. Shape: `(N, H, W, C)`.
        path: JSON file to keep the history in; a training that goes on takes it up. None: in memory only.

    Attributes:
        history: a list of one dict an epoch: `epoch`, counted from 1, and the figures of `gate_scores`.

    Raises:
        ValueError: If there are no images.
    """

    def __init__(self, images: np.ndarray, path: str | Path | None = None) -> None:
        super().__init__()
        self.images = np.asarray(images)
        if not len(self.images):
            raise ValueError("`images` must hold at least one image, found none.")
        self.path = None if path is None else Path(path)
        self.history: list[dict[str, float]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes up what an interrupted training left."""
        del logs
        if self.path is None or not self.path.exists():
            return
        try:
            self.history = read_sealed(self.path)["history"]
        except (OSError, ValueError, KeyError) as error:
            warnings.warn(f"{error}; attention gates are watched anew from here on", stacklevel=2)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Asks and counts."""
        del logs
        maps = self.model.explain(self.images) if isinstance(self.model, SemiSupervisedModel) else {}
        if "channel_attention" not in maps:
            return
        row = {"epoch": epoch + 1, **gate_scores(maps["channel_attention"], maps["spatial_attention"])}
        self.history = [earlier for earlier in self.history if earlier["epoch"] <= epoch] + [row]
        if self.path is not None:
            write_sealed(self.path, {"images": len(self.images), "history": self.history})
