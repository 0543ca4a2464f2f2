"""From image files to masks, overlays and a table; `python -m keras_semimed.predict` is its command."""

from keras_semimed.prediction.files import find_images
from keras_semimed.prediction.run import Options, predict_files

__all__ = ["Options", "find_images", "predict_files"]
