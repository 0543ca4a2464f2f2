"""From image files to masks, overlays and a table; `semimed predict` is its command."""

from keras_semimed.prediction.files import Found, find_files, find_images
from keras_semimed.prediction.predictors import KerasPredictor, OnnxPredictor
from keras_semimed.prediction.run import Options, predict_files

__all__ = ["Found", "KerasPredictor", "OnnxPredictor", "Options", "find_files", "find_images", "predict_files"]
