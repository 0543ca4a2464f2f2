"""Networks without training logic: encoders, decoders, normalisation."""

from keras_semimed.networks.deeplab import DeepLabV3Plus, DeepLabV3PlusDecoder
from keras_semimed.networks.encoders import check_image_size, encoder, encoder_config, pyramid, stages
from keras_semimed.networks.heads import ImageNormalization
from keras_semimed.networks.unet import UNet, UNetDecoder
from keras_semimed.networks.weights import load_torchvision_weights

__all__ = [
    "DeepLabV3Plus",
    "DeepLabV3PlusDecoder",
    "ImageNormalization",
    "UNet",
    "UNetDecoder",
    "check_image_size",
    "encoder",
    "encoder_config",
    "load_torchvision_weights",
    "pyramid",
    "stages",
]
