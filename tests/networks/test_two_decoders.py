"""The U-Net with a second decoder: transposed convolutions, what is computed when, and what is left for inference."""

from __future__ import annotations

import json
from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.networks import Extended, TwoDecoders, UNet, UNetDecoder, encoder
from tests.losses.helpers import assert_config_round_trip
from tests.models.common import tiny_encoder
from tests.networks.test_unet import FILTERS, conv_norm_relu, images, random_features, randomize

SECOND = {"decoded_2", "D1_2", "D2_2", "D3_2", "D4_2"}


def transposed(x, kernel, bias):
    """Each value is spread over a square of two by two."""
    found = np.zeros((x.shape[0], 2 * x.shape[1], 2 * x.shape[2], kernel.shape[2]))
    for n, i, j in np.ndindex(*x.shape[:3]):
        for a, b in np.ndindex(2, 2):
            found[n, 2 * i + a, 2 * j + b] = kernel[a, b].astype("float64") @ x[n, i, j] + bias
    return found


def levels_by_hand(decoder, features):
    x, found = features["P5"].astype("float64"), {}
    for level, enlarge, block in zip(("P4", "P3", "P2", "P1", "P0"), decoder.transposed, decoder.blocks, strict=True):
        x = transposed(x, *enlarge.get_weights())
        x = np.concatenate([x, features[level]], axis=-1) if level in features else x
        for convolution, normalization in zip(block.convolutions, block.normalizations, strict=True):
            x = conv_norm_relu(x, *convolution.get_weights(), *normalization.get_weights())
        found[level] = x
    return found


def two_decoders(**changes):
    return TwoDecoders(**{"num_classes": 3, "encoder": tiny_encoder(), "decoder_filters": FILTERS, **changes})


def numpy(values):
    return {name: ops.convert_to_numpy(value) for name, value in values.items()}


def test_a_decoder_with_transposed_convolutions():
    features = random_features(2)
    decoder = UNetDecoder(FILTERS, "transpose")
    decoder.build({level: values.shape for level, values in features.items()})
    randomize(decoder)
    found = numpy(decoder.decode_levels(features, training=False))
    expected = levels_by_hand(decoder, features)
    assert list(found) == list(expected)
    for level, values in expected.items():
        np.testing.assert_allclose(found[level], values, rtol=1e-4, atol=1e-4 * np.abs(values).max(), err_msg=level)
    assert_config_round_trip(decoder)
    assert not UNetDecoder(FILTERS).transposed


def test_a_dilated_encoder_does_not_fit_transposed_convolutions():
    dilated = encoder("resnet_tiny", output_stride=16)(np.zeros((1, 64, 64, 3), "float32"))
    with pytest.raises(ValueError, match="`features` must halve in size .* found P4 as small as .* not dilated"):
        UNetDecoder(FILTERS, "transpose")(dilated)
    with pytest.raises(ValueError, match="`upsampling` must be one of 'bilinear', 'transpose', found 'nearest'"):
        UNetDecoder(FILTERS, "nearest")


def test_each_decoder_decodes_the_same_features_with_a_head_of_its_own():
    network = two_decoders()
    randomize(network.second_decoder, 1)
    network.second_head.bias.assign([0.1, 0.2, 0.3])
    x = images().astype("float32")
    features = network.encode(x, training=False)
    found = numpy(network.represent(features, training=False, second=True))
    expected = levels_by_hand(network.second_decoder, numpy(features))
    for level, values in expected.items():
        name = "decoded_2" if level == "P0" else f"D{level[1]}_2"
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4 * np.abs(values).max(), err_msg=name)
    logits = numpy(network(x, training=False, second=True))
    kernel, bias = network.second_head.get_weights()
    by_hand = expected["P0"] @ kernel[0, 0] + bias
    np.testing.assert_allclose(logits["mask_logits_2"], by_hand, rtol=1e-3, atol=1e-3 * np.abs(by_hand).max())
    np.testing.assert_array_equal(logits["mask_logits"], ops.convert_to_numpy(network.segmentation(x, training=False)))


def test_the_second_decoder_runs_in_training_and_on_request():
    network = Extended(two_decoders(), {})
    x, runs = images().astype("float32"), []
    decode = UNetDecoder.decode_levels

    def watched(self, *args, **arguments):
        runs.append(self is network.network.second_decoder)
        return decode(self, *args, **arguments)

    with mock.patch.object(UNetDecoder, "decode_levels", watched):
        for training, request, second in ((True, {}, True), (False, {}, False), (False, {"second": True}, True)):
            outputs = network.decode(network.encode(x, training=training), (64, 64), training=training, **request)
            assert runs == ([False, True] if second else [False])
            assert ({*SECOND, "mask_logits_2"} <= set(outputs)) == second and "mask_logits" in outputs
            runs.clear()
        outputs = network(x, training=True, rows={"mask_logits_2": [(0, 1)]})
    assert (outputs["mask_logits"].shape[0], outputs["mask_logits_2"].shape[0]) == (2, 1)


def test_for_inference_it_is_a_unet_with_the_first_decoder():
    network = two_decoders()
    randomize(network.segmentation)
    alone = network.for_inference()
    assert type(alone) is UNet
    x = images(1)
    expected = ops.convert_to_numpy(network(x)["mask_logits"])
    np.testing.assert_array_equal(ops.convert_to_numpy(alone(x)), expected)
    parts = network.parts
    assert set(parts) == {*alone.parts, "second_decoder", "second_mask_head"}
    second = [v for name in ("second_decoder", "second_mask_head") for layer in parts[name] for v in layer.variables]
    assert len(network.variables) == len(alone.variables) + len(second)
    assert network.widths == alone.widths and set(network.encoders) == set(parts["segmentation_encoder"])


def test_configuration_and_policy():
    network = two_decoders(dtype="mixed_bfloat16", name="n")
    copy = TwoDecoders.from_config(json.loads(json.dumps(network.get_config())))
    assert [(v.shape, v.dtype) for v in copy.variables] == [(v.shape, v.dtype) for v in network.variables]
    assert copy.get_config() == network.get_config()
    outputs = copy(images(), second=True)
    assert {keras.backend.standardize_dtype(each.dtype) for each in outputs.values()} == {"float32"}
    assert two_decoders(decoder_filters=None).decoder_filters == (256, 128, 64, 32, 16)


def test_errors():
    with pytest.raises(ValueError, match="`image_size` must be a positive multiple of 32"):
        two_decoders()(images()[:, :, :40])
    with pytest.raises(ValueError, match="`decoder_filters` of a U-Net are its blocks' widths, .* found 8"):
        two_decoders(decoder_filters=8)
