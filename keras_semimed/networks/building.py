"""The network that some tasks are learnt with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_semimed.configuration import check_whole
from keras_semimed.networks.classifier import Classifier
from keras_semimed.networks.contract import Network
from keras_semimed.networks.joint import JointNetwork
from keras_semimed.networks.segmentation import segmentation_network, separate_encoder


def build_network(
    network: str,
    tasks: str,
    num_classes: int,
    num_labels: int,
    encoder: str | dict[str, Any] | keras.Model,
    weights: str | None = None,
    decoder_filters: int | Sequence[int] | None = None,
    output_stride: int = 16,
    joint_options: Mapping[str, Any] | None = None,
    dtype: Any = None,
) -> Network:
    """Makes a `UNet` or `DeepLabV3Plus`, a `Classifier`, or a `JointNetwork` of both.

    Args:
        network: of the segmentation, `"unet"` or `"deeplab"`.
        tasks: `"both"`, `"segmentation"` or `"classification"`.
        num_classes: mask classes, background included.
        num_labels: image classes.
        encoder: name, or a Keras model with named feature levels, which is copied.
        weights: start weights of the encoders.
        decoder_filters: see `segmentation_network`.
        output_stride: of a DeepLab's encoder.
        joint_options: further arguments of a `JointNetwork`.
        dtype: dtype policy.

    Raises:
        ValueError: for a network that is unknown or does not fit the other arguments.
    """
    if tasks == "segmentation":
        return segmentation_network(network, num_classes, encoder, weights, decoder_filters, output_stride, dtype=dtype)
    if tasks == "classification":
        _check_widths(decoder_filters)
        own = separate_encoder("classification", encoder, weights, dtype=dtype)
        return Classifier(own, num_labels, dtype=dtype, name="classification")
    return JointNetwork(
        num_classes,
        num_labels,
        encoder,
        weights,
        decoder_filters,
        network=network,
        output_stride=output_stride,
        dtype=dtype,
        name="joint",
        **(joint_options or {}),
    )


def _check_widths(decoder_filters: int | Sequence[int] | None) -> None:
    """Refuses what no decoder could take, where there is none that would refuse it."""
    if decoder_filters is not None:
        for width in (decoder_filters,) if isinstance(decoder_filters, int) else decoder_filters:
            check_whole("decoder_filters", width, 1)
