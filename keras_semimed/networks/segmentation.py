"""Segmentation networks by name, each with an encoder of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_semimed.configuration import check_choice
from keras_semimed.networks.deeplab import DeepLabV3Plus
from keras_semimed.networks.encoders import own_encoder
from keras_semimed.networks.unet import UNet

NETWORKS = ("unet", "deeplab")
UNET_FILTERS = (256, 128, 64, 32, 16)
DEEPLAB_FILTERS = 256


def segmentation_network(
    network: str,
    num_classes: int,
    encoder: str | dict[str, Any] | keras.Model,
    weights: str | None = None,
    decoder_filters: int | Sequence[int] | None = None,
    output_stride: int = 16,
    extra_channels: Mapping[str, int] | None = None,
    dtype: Any = None,
) -> UNet | DeepLabV3Plus:
    """Makes a U-Net or a DeepLabV3+.

    Args:
        network: `"unet"` or `"deeplab"`.
        num_classes: classes, background included.
        encoder: name, or a Keras model with named feature levels; a given model is copied.
        weights: start weights of the encoder: preset name, local file or None.
        decoder_filters: channels of the U-Net's blocks, deepest first, or the one width of a DeepLab's decoder; None:
            256, 128, 64, 32, 16, and 256.
        output_stride: stride of a DeepLab's last encoder features: 8, 16 or 32.
        extra_channels: of further maps in the U-Net's decoder, by level.
        dtype: dtype policy.

    Raises:
        ValueError: for an unknown network, or decoder filters or further maps that it cannot take.
    """
    check_choice("network", network, NETWORKS)
    if network == "unet":
        filters = UNET_FILTERS if decoder_filters is None else decoder_filters
        if isinstance(filters, int):
            raise ValueError(
                f"`decoder_filters` of a U-Net are its blocks' widths, such as {UNET_FILTERS}, found {filters}."
            )
        unreachable = [level for level in extra_channels or {} if int(level[1:]) >= len(tuple(filters))]
        if unreachable:
            raise ValueError(
                f"`saliency_level` {unreachable[0]!r} is no level of a decoder with {len(tuple(filters))} blocks; give "
                "more `decoder_filters`, or a finer level."
            )
        own = separate_encoder("segmentation", encoder, weights, dtype=dtype)
        return UNet(
            own,
            num_classes,
            decoder_filters=tuple(filters),
            extra_channels=extra_channels,
            dtype=dtype,
            name="segmentation",
        )
    filters = DEEPLAB_FILTERS if decoder_filters is None else decoder_filters
    if not isinstance(filters, int):
        raise ValueError(f"`decoder_filters` of a DeepLab are one number, such as 256, found {filters!r}.")
    if extra_channels:
        raise ValueError(
            "a saliency map enters the decoder of a U-Net: take the `network` 'unet', or the `exchange` "
            "'seg_to_cls' or 'none'."
        )
    if output_stride not in (8, 16, 32):
        raise ValueError(f"`output_stride` must be 8, 16 or 32, found {output_stride!r}.")
    own = separate_encoder(
        "segmentation", encoder, weights, output_stride if isinstance(encoder, str) else 32, dtype=dtype
    )
    rates = tuple(rate * 16 // output_stride for rate in (6, 12, 18))
    return DeepLabV3Plus(own, num_classes, decoder_filters=filters, rates=rates, dtype=dtype, name="segmentation")


def separate_encoder(
    branch: str,
    encoder: str | dict[str, Any] | keras.Model,
    weights: str | None,
    output_stride: int = 32,
    dtype: Any = None,
) -> keras.Model:
    """An encoder of its own; its variables' paths name branch and encoder, for optimizers to tell them apart."""
    with keras.name_scope(branch), keras.name_scope("encoder"):
        return own_encoder(encoder, weights, output_stride, dtype)
