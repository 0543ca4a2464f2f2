"""Encoders: levels, strides, cutting into stages, and features that torchvision's weights must give."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.networks import check_image_size, encoder, encoder_config, pyramid, stages
from keras_semimed.networks.encoders import ARCHITECTURES

LEVELS = ("P1", "P2", "P3", "P4", "P5")


@pytest.fixture(scope="module")
def tiny():
    return encoder("resnet_tiny")


def images(size=64, batch=2, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, size, size, 3)).astype("float32")


def features(model, x):
    return {level: ops.convert_to_numpy(value) for level, value in model(x, training=False).items()}


def torch_features(arrays, x):
    """ResNet forward pass in inference mode, written from the architecture's description with torch's functions."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    w = {name: torch.tensor(np.asarray(array, "float32")) for name, array in arrays.items()}

    def conv_norm(x, conv, norm, stride=1):
        kernel = w[f"{conv}.weight"]
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        statistics = (w[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *statistics, eps=1e-5)

    def block(x, name, stride):
        convolutions = [i for i in (1, 2, 3) if f"{name}.conv{i}.weight" in w]
        strided = 2 if len(convolutions) == 3 else 1  # a bottleneck has its stride on the 3x3
        y = x
        for i in convolutions:
            y = conv_norm(y, f"{name}.conv{i}", f"{name}.bn{i}", stride if i == strided else 1)
            y = y if i == convolutions[-1] else functional.relu(y)
        if f"{name}.downsample.0.weight" in w:
            x = conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
        return functional.relu(x + y)

    x = functional.relu(conv_norm(torch.tensor(x).permute(0, 3, 1, 2), "conv1", "bn1", 2))
    levels = {"P1": x}
    x = functional.max_pool2d(x, 3, 2, 1)
    for layer in (1, 2, 3, 4):
        index = 0
        while f"layer{layer}.{index}.conv1.weight" in w:
            x = block(x, f"layer{layer}.{index}", 2 if index == 0 and layer > 1 else 1)
            index += 1
        levels[f"P{layer + 1}"] = x
    return {level: value.permute(0, 2, 3, 1).numpy() for level, value in levels.items()}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_pretrained_features_are_torchvisions(name, shared_weights):
    path = shared_weights / f"{name}_imagenet_pqf.npz"
    x = images()
    expected = torch_features(np.load(path), x)
    found = features(encoder(name, weights=path), x)
    for level in LEVELS:
        scale = np.abs(expected[level]).max()
        np.testing.assert_allclose(found[level] / scale, expected[level] / scale, atol=1e-4, err_msg=level)


@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    [
        # torchvision's totals, without the classifier, with two running statistics a normalised channel.
        ("resnet18", (64, 64, 128, 256, 512), 11_689_512 - 513_000 + 2 * 4_800),
        ("resnet50", (64, 256, 512, 1024, 2048), 25_557_032 - 2_049_000 + 2 * 26_560),
    ],
)
def test_levels_and_parameters(name, channels, parameters):
    model = encoder(name)
    shapes = model.compute_output_shape((1, 224, 160, 3))
    for number, (level, width) in enumerate(zip(LEVELS, channels, strict=True), start=1):
        assert tuple(model.output[level].shape) == (None, None, None, width)
        assert tuple(shapes[level]) == (1, 224 // 2**number, 160 // 2**number, width)
    assert model.count_params() == parameters


def test_tiny_has_a_quarter_of_the_channels(tiny):
    assert [tensor.shape[-1] for tensor in tiny.output.values()] == [16, 16, 32, 64, 128]
    assert list(tiny.output) == list(LEVELS)


@pytest.mark.parametrize(
    ("block_type", "output_stride", "strides"),
    [("basic_block", 16, (2, 4, 8, 16, 16)), ("bottleneck_block", 8, (2, 4, 8, 8, 8))],
)
def test_dilated_encoder_refines_the_grid_of_the_strided_one(monkeypatch, block_type, output_stride, strides):
    # The same weights must give the same features where both grids have a point.
    small = type(ARCHITECTURES["resnet_tiny"])((1, 1, 2, 2), block_type, width_divisor=8)
    monkeypatch.setitem(ARCHITECTURES, "small", small)
    strided, dilated = encoder("small"), encoder("small", output_stride=output_stride)
    assert [w.path for w in dilated.weights] == [w.path for w in strided.weights]
    dilated.set_weights(strided.get_weights())
    x = images()
    coarse, fine = features(strided, x), features(dilated, x)
    for number, (level, stride) in enumerate(zip(LEVELS, strides, strict=True), start=1):
        assert fine[level].shape[1] == 64 // stride
        step = 2**number // stride
        np.testing.assert_allclose(fine[level][:, ::step, ::step], coarse[level], rtol=1e-4, atol=1e-5)


def test_stages_one_after_the_other_are_the_encoder_and_share_its_weights(tiny):
    x = images()
    expected = features(tiny, x)
    parts = stages(tiny)
    assert len(parts) == 5
    for level, part in zip(LEVELS, parts, strict=True):
        x = part(x, training=False)
        np.testing.assert_allclose(ops.convert_to_numpy(x), expected[level], rtol=1e-5, atol=1e-6)
    own = {id(weight) for weight in tiny.weights}
    assert {id(weight) for part in parts for weight in part.weights} == own


def test_stages_refuse_levels_that_are_no_chain():
    image = keras.Input((None, None, 3))
    p4 = keras.layers.Conv2D(4, 3, strides=16, padding="same")(image)
    p5 = keras.layers.Conv2D(4, 3, strides=32, padding="same")(image)
    with pytest.raises(ValueError, match="P5 needs more than the level before it"):
        stages(keras.Model(image, {"P4": p4, "P5": p5}))


def test_pyramid_takes_a_hub_backbone_and_shares_its_layers():
    from keras_hub.models import ResNetBackbone

    backbone = ResNetBackbone([64], [7], [64, 8, 8, 8], [1, 1, 1, 1], [1, 2, 2, 2], "basic_block")
    model = pyramid(backbone)
    assert sorted(model.output) == ["P2", "P3", "P4", "P5"]
    assert model.layers[1] is backbone.layers[1]
    assert len(stages(model)) == 4


def test_pyramid_returns_a_fitting_model_itself_and_rebuilds_from_its_config(tiny):
    assert pyramid(tiny) is tiny
    again = pyramid(encoder_config(tiny))
    again.set_weights(tiny.get_weights())
    x = images()
    np.testing.assert_allclose(features(again, x)["P5"], features(tiny, x)["P5"], rtol=1e-5, atol=1e-6)
    assert encoder_config("resnet18") == "resnet18"


def test_refusals(tiny):
    with pytest.raises(ValueError, match="`encoder` must be one of resnet_tiny, resnet18.*found 'resnet19'"):
        encoder("resnet19")
    with pytest.raises(ValueError, match="`output_stride` must be 8, 16 or 32, found 4"):
        encoder("resnet_tiny", output_stride=4)
    with pytest.raises(ValueError, match="beside a model"):
        pyramid(tiny, weights="imagenet")
    with pytest.raises(ValueError, match="dict of levels as its output, found Sequential"):
        pyramid(keras.Sequential([keras.layers.Dense(1)]))
    image = keras.Input((None, None, 3))
    gap = keras.Model(image, {"P3": image, "P5": image})
    with pytest.raises(ValueError, match=r"consecutive levels that end with P5, found \['P3', 'P5'\]"):
        pyramid(gap)


def test_image_size():
    check_image_size(224)
    check_image_size((96, 64))
    with pytest.raises(ValueError, match=r"`image_size` must be a positive multiple of 32, found \(64, 100\)"):
        check_image_size((64, 100))
    with pytest.raises(ValueError, match="multiple of 32, found 0"):
        check_image_size(0)


def test_the_encoder_for_small_images_is_resnet18_without_its_last_stage(tmp_path):
    whole, short = encoder("resnet18"), encoder("resnet18_p4")
    for layer in short.layers:
        layer.set_weights(whole.get_layer(layer.name).get_weights() if layer.weights else [])
    x = images()
    expected, found = features(whole, x), features(short, x)
    for level in LEVELS[:4]:
        np.testing.assert_array_equal(found[level], expected[level])
    pooled = expected["P4"].reshape(2, 2, 2, 2, 2, 256).mean((2, 4))
    np.testing.assert_allclose(found["P5"], pooled, rtol=1e-5, atol=1e-6)
    assert short.count_params() < 0.26 * whole.count_params()
    with pytest.raises(ValueError, match="`output_stride` of resnet18_p4 must be 32, found 16"):
        encoder("resnet18_p4", output_stride=16)


def test_the_encoder_for_small_images_takes_the_weights_of_resnet18(shared_weights):
    path = shared_weights / "resnet18_imagenet_pqf.npz"
    x = images()
    expected, found = (features(encoder(name, path), x) for name in ("resnet18", "resnet18_p4"))
    np.testing.assert_array_equal(found["P4"], expected["P4"])
