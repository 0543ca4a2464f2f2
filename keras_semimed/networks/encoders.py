"""Image encoders: functional Keras models that give one feature map per resolution, named P1 (1/2) to P5 (1/32)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_semimed.configuration import plain
from keras_semimed.networks.weights import load_preset, load_torchvision_weights


@dataclass(frozen=True)
class Architecture:
    """What tells one ResNet from another.

    Attributes:
        blocks: residual blocks in each of the four stages.
        block_type: "basic_block" (two 3x3 convolutions) or "bottleneck_block" (1x1, 3x3, 1x1).
        imagenet: the keras-hub preset that `weights="imagenet"` stands for, where there is one.
        width_divisor: every layer has the standard number of channels divided by this.
        pooled: the last stage, with three quarters of the weights, is left out; P5 is P4 averaged over 2x2.
    """

    blocks: tuple[int, int, int, int]
    block_type: str
    imagenet: str | None = None
    width_divisor: int = 1
    pooled: bool = False


ARCHITECTURES = {
    "resnet_tiny": Architecture((1, 1, 1, 1), "basic_block", width_divisor=4),
    "resnet18": Architecture((2, 2, 2, 2), "basic_block", "resnet_18_imagenet"),
    "resnet18_p4": Architecture((2, 2, 2, 2), "basic_block", "resnet_18_imagenet", pooled=True),
    "resnet34": Architecture((3, 4, 6, 3), "basic_block"),
    "resnet50": Architecture((3, 4, 6, 3), "bottleneck_block", "resnet_50_imagenet"),
    "resnet101": Architecture((3, 4, 23, 3), "bottleneck_block", "resnet_101_imagenet"),
    "resnet152": Architecture((3, 8, 36, 3), "bottleneck_block", "resnet_152_imagenet"),
}

# keras-hub's names of the layers that can carry a stride, such as "stack2_block0_1_conv".
_SPATIAL = re.compile(r"stack(?P<stage>\d)_block\d+_\d_(?P<kind>conv|pad)")


def encoder(
    name: str = "resnet18", weights: str | Path | None = None, output_stride: int = 32, dtype: Any = None
) -> keras.Model:
    """Builds a ResNet (He et al., 2016) with torchvision's padding and strides.

    Input: `(N, H, W, 3)` float RGB images, normalised with ImageNet's mean and deviation (`ImageNormalization`), H and
    W multiples of 32. Output: `{"P1": (N, H/2, W/2, 64), "P2": (N, H/4, W/4, C2), ..., "P5": (N, H/32, W/32, C5)}`,
    where P1 is the stem after its ReLU, before the max-pooling.

    An `output_stride` below 32 turns the strides of the last stage (16) or of the last two (8) into dilations: the same
    kernels see the same neighbourhoods, on a denser grid.

    `"resnet18_p4"` is for small images, of which ResNet-18's last stage sees next to nothing (2x2 pixels of 64x64):
    without that stage it has a quarter of the weights, and its P5 is P4 averaged over 2x2. It takes ResNet-18's files.

    The model consists of plain Keras layers, so a file saved with it loads without keras-hub.

    Args:
        name: "resnet18", "resnet18_p4", "resnet34", "resnet50", "resnet101", "resnet152", or "resnet_tiny" (channels
            16, 16, 32, 64, 128, one block a stage) for demonstrations and tests.
        weights: None (random), "imagenet" or another keras-hub preset name, or the path of an `.npz` or `.safetensors`
            file whose arrays have torchvision's parameter names.
        output_stride: 32, 16 or 8; stride of P5 (with 8 also of P4).
        dtype: dtype policy of every layer; default Keras' global one.

    Raises:
        ValueError: unknown name, output stride or preset; a weights file that does not fit.
        FileNotFoundError: the weights file does not exist.
        RuntimeError: the preset could not be fetched.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"`encoder` must be one of {', '.join(ARCHITECTURES)} or a Keras model, found {name!r}.")
    if output_stride not in (8, 16, 32):
        raise ValueError(f"`output_stride` must be 8, 16 or 32, found {output_stride!r}.")
    architecture = ARCHITECTURES[name]
    if architecture.pooled and output_stride != 32:
        raise ValueError(f"`output_stride` of {name} must be 32, found {output_stride}: it has no stage to dilate.")
    model = _resnet(architecture, dtype)
    if output_stride != 32 or architecture.width_divisor != 1:
        model = keras.models.clone_model(
            model, clone_function=lambda layer: _adapt(layer, output_stride, architecture.width_divisor)
        )
    if weights is not None:
        _load(model, name, weights)
    if architecture.pooled:
        levels = {level: model.output[level] for level in ("P1", "P2", "P3", "P4")}
        pooled = keras.layers.AveragePooling2D(2, data_format="channels_last", dtype=dtype, name="p5_pool")(
            levels["P4"]
        )
        return keras.Model(model.input, {**levels, "P5": pooled})
    return model


def pyramid(
    model_or_name: str | dict[str, Any] | keras.Model,
    weights: str | Path | None = None,
    output_stride: int = 32,
    dtype: Any = None,
) -> keras.Model:
    """Returns a functional encoder whose output is a dict of consecutive feature levels that ends with P5.

    Args:
        model_or_name: a name that `encoder` knows, a keras-hub backbone with `pyramid_outputs`, a functional Keras
            model whose output is a dict with the keys P1 (or a later level) to P5, or what `encoder_config` gave.
            The layers of a given model are shared, not copied.
        weights: as in `encoder`; only with a name.
        output_stride: as in `encoder`; only with a name.
        dtype: as in `encoder`; a given model keeps its own.

    Raises:
        ValueError: the model has no such levels, or `weights` or `output_stride` came with a model.
    """
    if isinstance(model_or_name, str):
        return encoder(model_or_name, weights, output_stride, dtype)
    if weights is not None or output_stride != 32:
        raise ValueError(
            "weights and output_stride apply to an encoder given by name; found them beside a model. Load the weights "
            "into the model, or build it with the output stride, before passing it."
        )
    if isinstance(model_or_name, dict):
        # Keras takes entries out of a config that it reads; the caller may need it once more. Not `copy.deepcopy`: a
        # config that is the attribute of a layer would take the layers that Keras tracks beside it along.
        model_or_name = keras.saving.deserialize_keras_object(plain(model_or_name))
    outputs = getattr(model_or_name, "pyramid_outputs", None) or getattr(model_or_name, "output", None)
    if not isinstance(outputs, dict):
        raise ValueError(
            "`encoder` must be a name, a keras-hub backbone with pyramid_outputs, or a functional keras.Model with a "
            f"dict of levels as its output, found {type(model_or_name).__name__} with output {outputs!r}."
        )
    names = sorted(key for key in outputs if re.fullmatch(r"P[1-5]", key))
    if "P5" not in names or names != [f"P{level}" for level in range(6 - len(names), 6)]:
        raise ValueError(f"`encoder` must have consecutive levels that end with P5, found {sorted(outputs)}.")
    levels = {name: outputs[name] for name in names}
    return model_or_name if model_or_name.output == levels else keras.Model(model_or_name.input, levels)


def encoder_config(model_or_name: str | dict[str, Any] | keras.Model) -> str | dict[str, Any]:
    """Returns what `pyramid` needs to build this encoder again, for a `get_config`: the name, or the model's config.

    Weights are not part of it: they live in the weights of the model that holds the encoder.
    """
    return (
        model_or_name if isinstance(model_or_name, str | dict) else keras.saving.serialize_keras_object(model_or_name)
    )


def own_encoder(
    encoder: str | dict[str, Any] | keras.Model,
    weights: str | Path | None = None,
    output_stride: int = 32,
    dtype: Any = None,
) -> keras.Model:
    """As `pyramid`, but of a given model a copy with its weights, so that two networks share nothing.

    Args:
        encoder: as in `pyramid`.
        weights: as in `pyramid`.
        output_stride: as in `pyramid`.
        dtype: as in `pyramid`.

    Raises:
        ValueError: as in `pyramid`.
    """
    if not isinstance(encoder, keras.Model):
        return pyramid(encoder, weights, output_stride, dtype if isinstance(encoder, str) else None)
    original = pyramid(encoder, weights, output_stride)
    copied = pyramid(encoder_config(original))
    copied.set_weights(original.get_weights())
    return copied


def stages(model: keras.Model) -> list[keras.Model]:
    """Cuts an encoder at its levels into models that share its layers: image to P1, P1 to P2, ..., P4 to P5.

    With it, something can be done to the features between two stages (such as attention). Running the stages one after
    the other gives what the encoder gives.

    Args:
        model: what `encoder` or `pyramid` returned.

    Raises:
        ValueError: a level is not computed from the level before it alone.
    """
    names = sorted(model.output)
    tensors = [model.input, *(model.output[name] for name in names)]
    parts = []
    for name, before, after in zip(names, tensors[:-1], tensors[1:], strict=True):
        try:
            parts.append(keras.Model(before, after))
        except ValueError as error:
            raise ValueError(
                f"encoder cannot be cut into stages: {name} needs more than the level before it. Use a chain of "
                "stages, such as one of the ResNets."
            ) from error
    return parts


def check_image_size(size: int | tuple[int, int], stride: int = 32) -> None:
    """Raises a ValueError unless `size` (pixels, or (height, width)) is a positive multiple of `stride`."""
    for pixels in (size,) if isinstance(size, int) else size:
        if pixels < 1 or pixels % stride:
            raise ValueError(
                f"`image_size` must be a positive multiple of {stride}, found {size}. Resize or pad the images."
            )


def _resnet(architecture: Architecture, dtype: Any) -> keras.Model:
    """The keras-hub ResNet of standard width as a plain functional model with outputs P1 to P5."""
    from keras_hub.models import ResNetBackbone

    backbone = ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=list(architecture.blocks),
        stackwise_num_strides=[1, 2, 2, 2],
        block_type=architecture.block_type,
        use_pre_activation=False,
        data_format="channels_last",
        dtype=dtype,
    )
    outputs = {"P1": backbone.get_layer("conv1_relu").output, **backbone.pyramid_outputs}
    return keras.Model(backbone.input, outputs)


def _adapt(layer: keras.Layer, output_stride: int, width_divisor: int) -> keras.Layer:
    """Copies a ResNet layer, with fewer channels and with dilation in place of every stride beyond `output_stride`.

    The strided convolution of a stage still reads the grid of the stage before, so it takes that stage's dilation; what
    follows it takes the new one. Thus every second row and column of the result is what the strided stage gives.
    """
    config = layer.get_config()
    if "filters" in config:
        config["filters"] //= width_divisor
    match = _SPATIAL.fullmatch(layer.name)
    if match:
        stage_stride = 4 * 2 ** int(match["stage"])
        before, after = max(1, stage_stride // 2 // output_stride), max(1, stage_stride // output_stride)
        if match["kind"] == "pad":
            config["padding"] = before
        elif tuple(config["strides"]) == (2, 2):
            config["strides"] = 2 if after == 1 else 1
            config["dilation_rate"] = before if max(config["kernel_size"]) > 1 else 1
        elif max(config["kernel_size"]) > 1:
            config["dilation_rate"] = after
    return layer.__class__.from_config(config)


def _load(model: keras.Model, name: str, weights: str | Path) -> None:
    """Fills the encoder from a local file or, for any other string, from a keras-hub preset."""
    if isinstance(weights, Path) or weights.endswith((".npz", ".safetensors")):
        load_torchvision_weights(model, weights)
        return
    preset = ARCHITECTURES[name].imagenet if weights == "imagenet" else weights
    if preset is None:
        raise ValueError(
            f"weights='imagenet' does not exist for encoder {name!r}. Pass the path of an .npz or .safetensors file "
            "with torchvision's parameter names, or weights=None."
        )
    load_preset(model, preset)
