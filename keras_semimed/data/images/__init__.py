"""From the bytes of an image or mask file to an array of the size that a network takes."""

from keras_semimed.data.images.letterbox import Fitted, letterbox, stretch, unletterbox
from keras_semimed.data.images.mask_values import MaskValues
from keras_semimed.data.images.pixels import Picture
from keras_semimed.data.images.reading import read_grey, read_image, read_pair, read_values
from keras_semimed.data.images.resizing import encode_png, resize_image, resize_mask, with_channels

__all__ = [
    "Fitted",
    "MaskValues",
    "Picture",
    "encode_png",
    "letterbox",
    "read_grey",
    "read_image",
    "read_pair",
    "read_values",
    "resize_image",
    "resize_mask",
    "stretch",
    "unletterbox",
    "with_channels",
]
