"""DeepLabV3+ and its decoder: values, sizes, output strides, saving."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.networks import DeepLabV3Plus, DeepLabV3PlusDecoder, Extended, Head
from tests.networks.test_unet import randomize


def block(x, weights, dilation=1):
    """Convolution with zero padding, normalisation with moving statistics, ReLU."""
    kernel, gamma, beta, mean, variance = weights
    reach = kernel.shape[0] // 2 * dilation
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    height, width = x.shape[1:3]
    total = 0.0
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            top, left = i * dilation, j * dilation
            total = total + padded[:, top : top + height, left : left + width] @ kernel[i, j].astype("float64")
    return np.maximum((total - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)


def enlarge(x, size):
    """Bilinear with half-pixel centres, by interpolation along one axis after the other."""
    for axis, pixels in ((1, size[0]), (2, size[1])):
        places = (np.arange(pixels) + 0.5) * x.shape[axis] / pixels - 0.5
        places = np.clip(places, 0, x.shape[axis] - 1)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        share = (places - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


def test_decoder_is_pyramid_low_level_and_refinement():
    random = np.random.default_rng(0)
    features = {
        "P2": random.normal(size=(2, 11, 9, 5)).astype("float32"),
        "P5": random.normal(size=(2, 4, 3, 6)).astype("float32"),
    }
    decoder = DeepLabV3PlusDecoder(filters=4, rates=(1, 2), low_level_filters=3)
    decoder.build({name: value.shape for name, value in features.items()})
    randomize(decoder)

    def of(layer):
        return [*layer.convolution.get_weights(), *layer.normalization.get_weights()]

    deep, fine = features["P5"].astype("float64"), features["P2"].astype("float64")
    branches = [block(deep, of(branch), rate) for branch, rate in zip(decoder.branches, (1, 1, 2), strict=True)]
    pooled = block(deep.mean((1, 2), keepdims=True), of(decoder.pooling))
    branches.append(np.broadcast_to(pooled, branches[0].shape))
    x = enlarge(block(np.concatenate(branches, -1), of(decoder.joining)), (11, 9))
    x = np.concatenate([x, block(fine, of(decoder.low_level))], -1)
    for layer in decoder.refinement:
        x = block(x, of(layer))
    found = ops.convert_to_numpy(decoder(features, training=False))
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-4 * np.abs(x).max())


@pytest.mark.parametrize(("stride", "rates"), [(32, (3, 6, 9)), (16, (6, 12, 18)), (8, (12, 24, 36))])
def test_output_stride_sets_grid_and_rates(stride, rates):
    network = DeepLabV3Plus("resnet_tiny", num_classes=3, output_stride=stride, decoder_filters=8)
    assert network.rates == rates
    images = np.zeros((1, 64, 96, 3), "uint8")
    deep = network.encoder(network.normalization(images))["P5"]
    assert deep.shape[1:3] == (64 // stride, 96 // stride)
    assert network(images).shape == (1, 64, 96, 3)


@pytest.mark.parametrize("size", [(321, 321), (33, 50)])
def test_sizes_that_are_no_multiples_of_32(size):
    network = DeepLabV3Plus("resnet_tiny", decoder_filters=8, output_stride=16)
    images = np.random.default_rng(0).integers(0, 255, (1, *size, 1)).astype("uint8")
    features = network.represent(network.encode(images))["decoded"]
    assert features.shape == (1, -(-size[0] // 4), -(-size[1] // 4), 8)
    logits = ops.convert_to_numpy(network(images))
    assert logits.shape == (1, *size, 2) and logits.dtype == np.float32
    # PyTorch's two passes of a convolution differ by more than the enlargement is tested to: 1e-5 of a logit of 1.
    expected = enlarge(ops.convert_to_numpy(network.head(features)).astype("float64"), size)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=3e-5)


def test_round_trip_and_mixed_precision(tmp_path):
    network = DeepLabV3Plus("resnet_tiny", 3, output_stride=8, decoder_filters=8, dtype="mixed_bfloat16")
    images = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3)).astype("uint8")
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    expected = network.predict(images, verbose=0)
    assert expected.dtype == np.float32 and loaded.get_config() == network.get_config()
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected)


def test_a_head_stands_on_the_features_before_the_classifier():
    network = DeepLabV3Plus("resnet_tiny", 3, decoder_filters=8)
    extended = Extended(network, {"projection": Head("decoded", 5, hidden=7), "pooled_p5": Head("P5", 4, pool=True)})
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype("uint8")
    outputs = extended(images)
    assert outputs["projection"].shape == (2, 16, 16, 5) and outputs["pooled_p5"].shape == (2, 4)
    features = network.encode(images)
    for name, value in network.decode(features, (64, 64)).items():
        np.testing.assert_array_equal(ops.convert_to_numpy(outputs[name]), ops.convert_to_numpy(value), err_msg=name)
    np.testing.assert_array_equal(ops.convert_to_numpy(network(images)), ops.convert_to_numpy(outputs["mask_logits"]))
    projected = extended.head_layers["projection"](outputs["decoded"])
    np.testing.assert_array_equal(ops.convert_to_numpy(outputs["projection"]), ops.convert_to_numpy(projected))
    with pytest.raises(ValueError, match="needs the feature 'pooled', which the network lacks"):
        Extended(network, {"image": Head("pooled", 5)})


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="`output_stride` must be 8, 16 or 32"):
        DeepLabV3Plus("resnet_tiny", output_stride=4)
    with pytest.raises(ValueError, match="at least 32 pixels"):
        DeepLabV3Plus("resnet_tiny", decoder_filters=8)(np.zeros((1, 16, 64, 3)))
    with pytest.raises(ValueError, match="P2 and P5"):
        DeepLabV3PlusDecoder(4).build({"P5": (1, 2, 2, 3)})
