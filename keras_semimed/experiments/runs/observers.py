"""Callbacks that watch a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_semimed.callbacks import (
    AttentionMonitor,
    PredictionPanels,
    PseudoLabelMonitor,
    TensorBoardTracker,
    ThresholdMonitor,
    track,
)
from keras_semimed.data import ImageSet
from keras_semimed.evaluation.report import ATTENTION, PSEUDO_LABELS
from keras_semimed.experiments.command_line.settings import Settings
from keras_semimed.experiments.console import RecipeError

PANELS = 4
LOOKED_AT = 8
WATCHED = 32


def observers(
    settings: Settings, unlabeled: ImageSet, folder: Path, configuration: Mapping[str, Any]
) -> list[keras.callbacks.Callback]:
    """The callbacks that the flags ask for; they look at training images only.

    Args:
        settings: The flags.
        unlabeled: Unlabelled training images; their truth, where it is known, is shown and not used.
        folder: The run's.
        configuration: What the run is, for trackers.

    Raises:
        RecipeError: If a tracker is asked for that is not installed.
    """
    try:
        found: list[keras.callbacks.Callback] = [*track(settings.trackers, folder, configuration)]
    except ImportError as error:
        raise RecipeError(f"--track: {error}") from error
    log_dir = folder / TensorBoardTracker.NAME if TensorBoardTracker.NAME in settings.trackers else None
    if settings.threshold_figure:
        found.append(ThresholdMonitor(folder / "thresholds.png", every_epoch=True))
    if settings.panels is not None:
        images, masks, _ = _first(unlabeled, PANELS)
        found.append(PredictionPanels(images, masks, folder / "panels", settings.panels, log_dir))
    return found + monitors(unlabeled, folder, settings.arguments["tasks"] == "both", settings.pseudo_labels)


def monitors(
    unlabeled: ImageSet, folder: Path, both_tasks: bool, pseudo_labels: int = WATCHED
) -> list[keras.callbacks.Callback]:
    """What the report shows of a training, as it does of every run unless it is told not to.

    Args:
        unlabeled: As in `observers`.
        folder: The run's.
        both_tasks: Whether masks and classes are learnt, which may pay attention to each other.
        pseudo_labels: Images whose pseudo-labels are compared with the truth; 0: none.
    """
    found: list[keras.callbacks.Callback] = []
    if both_tasks:
        found.append(AttentionMonitor(_first(unlabeled, LOOKED_AT)[0], folder / ATTENTION))
    if pseudo_labels:
        found.append(PseudoLabelMonitor(*_first(unlabeled, pseudo_labels), folder / PSEUDO_LABELS))
    return found


def _first(images: ImageSet, count: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """The first images with the targets they have."""
    return (
        np.asarray(images.images[:count]),
        None if images.masks is None else np.asarray(images.masks[:count]),
        None if images.labels is None else np.asarray(images.labels[:count]),
    )
