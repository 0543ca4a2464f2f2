"""Pretrained weights for the ResNet encoders: keras-hub presets, and files with torchvision's parameter names."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

# keras-hub's layer names, such as "stack2_block0_1_conv", number the shortcut 0 and the convolutions of a block from 1.
_BLOCK = re.compile(r"stack(?P<stage>\d)_block(?P<block>\d+)_(?P<index>\d)_(?P<kind>conv|bn)")
_VARIABLES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_torchvision_weights(model: keras.Model, path: str | Path) -> None:
    """Fills a ResNet encoder from an `.npz` or `.safetensors` file; no weight changes unless every one fits.

    The classifier (`fc.*`) and `num_batches_tracked` of the file are not used.

    Args:
        model: what `encoder` returned.
        path: file of arrays named and laid out as in torchvision's ResNets, convolutions (out, in, height, width).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or an array is missing, has another shape, holds NaN, or is left over.
    """
    arrays = _read(Path(path))
    values = []
    for layer in model.layers:
        for variable in layer.weights:
            name = f"{torchvision_name(layer.name)}.{_VARIABLES[variable.name]}"
            if name not in arrays:
                raise ValueError(f"weights file {path} has no array {name}. Does it belong to another ResNet?")
            value = np.asarray(arrays.pop(name), "float32")
            if value.ndim == 4:
                value = value.transpose(2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
            if value.shape != tuple(variable.shape):
                raise ValueError(
                    f"weights file {path}: {name} has the shape {value.shape} in Keras' order, where the encoder has "
                    f"{tuple(variable.shape)}. Does it belong to another ResNet?"
                )
            if not np.isfinite(value).all():
                raise ValueError(f"weights file {path}: {name} holds NaN or infinite values; get the file anew.")
            values.append((variable, value))
    if arrays:
        raise ValueError(
            f"weights file {path} holds {len(arrays)} arrays that the encoder has not, such as {min(arrays)}. Does it "
            "belong to another ResNet?"
        )
    for variable, value in values:
        variable.assign(value)


def load_preset(model: keras.Model, preset: str) -> None:
    """Fills a ResNet encoder from a keras-hub preset of the same architecture.

    Raises:
        ValueError: there is no such preset, or it is another architecture.
        RuntimeError: the preset could not be fetched.
    """
    from keras_hub.models import ResNetBackbone

    if preset not in ResNetBackbone.presets and "://" not in preset and not Path(preset).is_dir():
        raise ValueError(
            f"weights: found {preset!r}, which is no keras-hub ResNet preset ({', '.join(ResNetBackbone.presets)}) and "
            "no .npz or .safetensors file."
        )
    try:
        source = ResNetBackbone.from_preset(preset, data_format="channels_last")
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise RuntimeError(
            f"weights: keras-hub could not fetch the preset {preset!r} ({reason}). Without access to the hub, pass the "
            "path of an .npz or .safetensors file with torchvision's parameter names, or weights=None."
        ) from error
    given = {layer.name: layer.get_weights() for layer in source.layers if layer.weights}
    wanted = {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in model.layers if layer.weights}
    if {name: [value.shape for value in values] for name, values in given.items()} != wanted:
        raise ValueError(f"weights: the preset {preset!r} belongs to another architecture than the encoder asked for.")
    for name, values in given.items():
        model.get_layer(name).set_weights(values)


def torchvision_name(layer_name: str) -> str:
    """Returns torchvision's name of a keras-hub ResNet layer: "stack1_block0_2_conv" is "layer2.0.conv2".

    Raises:
        ValueError: the layer is not one of a ResNet with weights.
    """
    if layer_name in ("conv1_conv", "conv1_bn"):
        return "bn1" if layer_name.endswith("bn") else "conv1"
    match = _BLOCK.fullmatch(layer_name)
    if match is None:
        raise ValueError(f"layer {layer_name!r} has no counterpart in torchvision's ResNets.")
    block = f"layer{int(match['stage']) + 1}.{match['block']}"
    if match["index"] == "0":
        return f"{block}.downsample.{('conv', 'bn').index(match['kind'])}"
    return f"{block}.{match['kind']}{match['index']}"


def _read(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of the file that belong to the encoder."""
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"weights file {path} must end with .npz or .safetensors, found {path.suffix!r}.")
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist; pass an existing file, a preset name or None.")
    arrays = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    return {k: v for k, v in arrays.items() if not k.startswith("fc.") and not k.endswith("num_batches_tracked")}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"weights file {path} is damaged or no .npz file ({error}); get it anew.") from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise ImportError(f"weights file {path} needs the package safetensors: pip install safetensors") from error
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"weights file {path} is damaged or no .safetensors file ({error}); get it anew.") from error
