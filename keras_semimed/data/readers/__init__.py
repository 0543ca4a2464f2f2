"""Readers of published data sets, from their folders or archives; work without TensorFlow."""

from keras_semimed.data.readers.bus_bra import BusBraSource
from keras_semimed.data.readers.busi import BusiSource
from keras_semimed.data.readers.cvc_clinicdb import CvcClinicDbSource
from keras_semimed.data.readers.examples import Example, read_examples
from keras_semimed.data.readers.kvasir_seg import KvasirSegSource
from keras_semimed.data.readers.udiat import UdiatSource

__all__ = [
    "BusBraSource",
    "BusiSource",
    "CvcClinicDbSource",
    "Example",
    "KvasirSegSource",
    "UdiatSource",
    "read_examples",
]
