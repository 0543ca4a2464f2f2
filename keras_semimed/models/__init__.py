"""Methods: Keras models that train on labelled and unlabelled images with plain `fit`."""

from keras_semimed.models.hermes import Hermes
from keras_semimed.models.loco import LoCo
from keras_semimed.models.semi_supervised import SemiSupervisedModel
from keras_semimed.models.supervised import Supervised

__all__ = ["Hermes", "LoCo", "SemiSupervisedModel", "Supervised"]
