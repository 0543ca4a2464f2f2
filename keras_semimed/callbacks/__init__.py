"""Callbacks that observe a training; what changes state is part of the compiled step."""

from keras_semimed.callbacks.attention_monitor import AttentionMonitor
from keras_semimed.callbacks.prediction_panels import PredictionPanels
from keras_semimed.callbacks.pseudo_label_monitor import PseudoLabelMonitor
from keras_semimed.callbacks.threshold_monitor import ThresholdMonitor
from keras_semimed.callbacks.trackers import MlflowTracker, TensorBoardTracker, Tracker, WandbTracker, track
from keras_semimed.models.progress_line import ProgressLine

__all__ = [
    "AttentionMonitor",
    "MlflowTracker",
    "PredictionPanels",
    "ProgressLine",
    "PseudoLabelMonitor",
    "TensorBoardTracker",
    "ThresholdMonitor",
    "Tracker",
    "WandbTracker",
    "track",
]
