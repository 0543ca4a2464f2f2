"""Methods: Keras models that train on labelled and unlabelled images with plain `fit`."""

from keras_semimed.models.abd import ABD
from keras_semimed.models.ad_mt import ADMT
from keras_semimed.models.augseg import AugSeg
from keras_semimed.models.corrmatch import CorrMatch
from keras_semimed.models.cps import CPS
from keras_semimed.models.dcnet import DCNet
from keras_semimed.models.diffrect import DiffRect
from keras_semimed.models.fixmatch import FixMatch
from keras_semimed.models.hermes import Hermes
from keras_semimed.models.infomatch import InfoMatch
from keras_semimed.models.interlude import InterLUDE
from keras_semimed.models.loco import LoCo
from keras_semimed.models.mean_teacher import MeanTeacher
from keras_semimed.models.pefat import PEFAT
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.shrinkmatch import ShrinkMatch
from keras_semimed.models.ss_net import SSNet
from keras_semimed.models.statistics import recompute_statistics
from keras_semimed.models.supervised import Supervised
from keras_semimed.models.u2pl import U2PL
from keras_semimed.models.unimatch import UniMatch
from keras_semimed.models.view import View

METHODS: dict[str, type[SemiSupervisedModel]] = {
    "supervised": Supervised,
    "mean_teacher": MeanTeacher,
    "cps": CPS,
    "fixmatch": FixMatch,
    "unimatch": UniMatch,
    "augseg": AugSeg,
    "u2pl": U2PL,
    "corrmatch": CorrMatch,
    "ss_net": SSNet,
    "abd": ABD,
    "ad_mt": ADMT,
    "dcnet": DCNet,
    "diffrect": DiffRect,
    "pefat": PEFAT,
    "infomatch": InfoMatch,
    "interlude": InterLUDE,
    "shrinkmatch": ShrinkMatch,
    "hermes": Hermes,
    "loco": LoCo,
}
"""Every method by the name of its file, which is what commands call it."""

__all__ = [
    "ADMT",
    "ABD",
    "CPS",
    "METHODS",
    "PEFAT",
    "U2PL",
    "AugSeg",
    "CorrMatch",
    "DCNet",
    "DiffRect",
    "FixMatch",
    "Hermes",
    "InfoMatch",
    "InterLUDE",
    "LoCo",
    "Losses",
    "MeanTeacher",
    "SSNet",
    "SemiSupervisedModel",
    "ShrinkMatch",
    "Supervised",
    "UniMatch",
    "View",
    "recompute_statistics",
]
