"""Networks without training logic: encoders, decoders, classifiers, heads, normalisation."""

from keras_semimed.networks.building import build_network
from keras_semimed.networks.classifier import Classifier
from keras_semimed.networks.contract import Extended, Head, Network
from keras_semimed.networks.correlation import CorrelationHead
from keras_semimed.networks.deeplab import DeepLabV3Plus, DeepLabV3PlusDecoder, RepresentationHead
from keras_semimed.networks.encoders import check_image_size, encoder, encoder_config, pyramid, stages
from keras_semimed.networks.frozen_statistics import frozen_statistics
from keras_semimed.networks.heads import ImageNormalization
from keras_semimed.networks.joint import JointNetwork
from keras_semimed.networks.rectifier import LabelRectifier
from keras_semimed.networks.rectifier_block import RectifierBlock
from keras_semimed.networks.segmentation import segmentation_network
from keras_semimed.networks.two_decoders import TwoDecoders
from keras_semimed.networks.unet import UNet, UNetDecoder
from keras_semimed.networks.weights import load_torchvision_weights

__all__ = [
    "Classifier",
    "CorrelationHead",
    "DeepLabV3Plus",
    "DeepLabV3PlusDecoder",
    "Extended",
    "Head",
    "ImageNormalization",
    "JointNetwork",
    "LabelRectifier",
    "Network",
    "RectifierBlock",
    "RepresentationHead",
    "TwoDecoders",
    "UNet",
    "UNetDecoder",
    "build_network",
    "check_image_size",
    "encoder",
    "encoder_config",
    "frozen_statistics",
    "load_torchvision_weights",
    "pyramid",
    "segmentation_network",
    "stages",
]
