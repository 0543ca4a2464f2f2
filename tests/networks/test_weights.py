"""Weight files: what is read, what is refused, and that a refusal leaves the encoder as it was."""

import keras
import numpy as np
import pytest

from keras_semimed.networks import encoder, load_torchvision_weights
from keras_semimed.networks.weights import torchvision_name


@pytest.fixture(scope="module")
def model():
    return encoder("resnet_tiny")


@pytest.fixture
def arrays(model):
    """Random weights of the tiny ResNet under torchvision's names, in torchvision's order."""
    suffixes = {
        "kernel": "weight",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    generator = np.random.default_rng(0)
    result = {"fc.weight": np.zeros((10, 128)), "fc.bias": np.zeros(10), "bn1.num_batches_tracked": np.array(3)}
    for layer in model.layers:
        for variable in layer.weights:
            shape = tuple(variable.shape)
            shape = (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape
            name = f"{torchvision_name(layer.name)}.{suffixes[variable.name]}"
            result[name] = generator.uniform(0.5, 1.5, shape).astype("float32")
    return result


def save(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_every_array_arrives_in_its_place(tmp_path, model, arrays, suffix):
    load_torchvision_weights(model, save(tmp_path / f"weights{suffix}", arrays))
    kernel, *_ = model.get_layer("stack1_block0_0_conv").get_weights()
    np.testing.assert_array_equal(kernel[0, 0, 5, 7], arrays["layer2.0.downsample.0.weight"][7, 5, 0, 0])
    kernel, *_ = model.get_layer("stack3_block0_2_conv").get_weights()
    np.testing.assert_array_equal(kernel[2, 1, 5, 7], arrays["layer4.0.conv2.weight"][7, 5, 2, 1])
    gamma, beta, mean, variance = model.get_layer("conv1_bn").get_weights()
    for value, name in ((gamma, "weight"), (beta, "bias"), (mean, "running_mean"), (variance, "running_var")):
        np.testing.assert_array_equal(value, arrays[f"bn1.{name}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("layer3.0.bn2.bias"), r"has no array layer3\.0\.bn2\.bias"),
        (
            lambda a: a.update({"conv1.weight": np.zeros((16, 3, 5, 5))}),
            r"conv1\.weight has the shape \(5, 5, 3, 16\) in Keras' order, where the encoder has \(7, 7, 3, 16\)",
        ),
        (lambda a: a.update({"layer4.1.conv1.weight": np.zeros(3)}), r"1 arrays .* such as layer4\.1\.conv1\.weight"),
        (lambda a: a["layer4.0.bn2.running_var"].fill(np.nan), r"layer4\.0\.bn2\.running_var holds NaN"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_whole(tmp_path, model, arrays, change, message):
    before = model.get_weights()
    change(arrays)
    with pytest.raises(ValueError, match=message):
        load_torchvision_weights(model, save(tmp_path / "weights.npz", arrays))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_files_that_cannot_be_read(tmp_path, model):
    with pytest.raises(FileNotFoundError, match="absent.npz does not exist"):
        encoder("resnet_tiny", weights=str(tmp_path / "absent.npz"))
    for name in ("damaged.npz", "damaged.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 cut off")
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            load_torchvision_weights(model, tmp_path / name)
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="must end with .npz or .safetensors, found '.pth'"):
        load_torchvision_weights(model, tmp_path / "weights.pth")


def test_presets_that_cannot_be_had(monkeypatch):
    from keras_hub.models import ResNetBackbone

    with pytest.raises(ValueError, match="'imagenet' does not exist for encoder 'resnet_tiny'"):
        encoder("resnet_tiny", weights="imagenet")
    with pytest.raises(ValueError, match="found 'resnet_19_imagenet', which is no keras-hub ResNet preset"):
        encoder("resnet_tiny", weights="resnet_19_imagenet")

    def offline(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(ResNetBackbone, "from_preset", offline)
    with pytest.raises(RuntimeError, match="'resnet_18_imagenet' .no route to host.*path of an .npz .*weights=None"):
        encoder("resnet18", weights="imagenet")


def test_preset_weights_are_copied_and_other_architectures_refused(monkeypatch):
    from keras_hub.models import ResNetBackbone

    source = encoder("resnet18")
    for layer in source.layers:
        layer.set_weights([np.full(weight.shape, 0.25) for weight in layer.weights])
    monkeypatch.setattr(ResNetBackbone, "from_preset", lambda *args, **kwargs: source)
    model = encoder("resnet18", weights="imagenet")
    assert all(np.all(value == 0.25) for value in model.get_weights())
    with pytest.raises(ValueError, match="'resnet_18_imagenet' belongs to another architecture"):
        encoder("resnet34", weights="resnet_18_imagenet")


def test_unknown_layers_have_no_torchvision_name():
    assert torchvision_name("stack2_block11_3_bn") == "layer3.11.bn3"
    with pytest.raises(ValueError, match="layer 'dense' has no counterpart"):
        torchvision_name(keras.layers.Dense(1, name="dense").name)
