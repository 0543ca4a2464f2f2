"""What a batch and a call must look like: names and shapes of images and targets, and arguments that are refused.

Where a step is compiled, all of this is looked at once, while it is traced.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_semimed.layers.views import IGNORE

INPUTS = ("labeled", "unlabeled", "labeled_area", "unlabeled_area", "unlabeled_strong")
IMAGES = ("labeled", "unlabeled", "unlabeled_strong")
TARGETS = ("mask", "label", "unlabeled_mask", "unlabeled_label")
REFUSED = {
    "loss": "`loss` is the method's own here; set its terms' weights when the model is made.",
    "loss_weights": "`loss_weights` are arguments of the model here; set them when it is made.",
    "weighted_metrics": "`weighted_metrics` need sample weights, which there are none of; pass them as `metrics`.",
    "sample_weight": f"`sample_weight` is not used here, nor a third element of a batch; give pixels and images that "
    f"shall not count the target {IGNORE}, and show images that shall count more several times.",
    "class_weight": "`class_weight` is not used here; set `label_weights` for image classes or `mask_loss='dice'` for "
    "masks when the model is made.",
    "validation_split": "`validation_split` would cut labelled and unlabelled images alike; take images out before the "
    "data set is made, and pass them as `validation_data`.",
}


def bound(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, only those that were given."""
    return dict(inspect.signature(function).bind(*args, **kwargs).arguments)


def refuse(arguments: Mapping[str, Any]) -> None:
    """Raises a ValueError for an argument that Keras takes and the methods cannot honour."""
    for name, sentence in REFUSED.items():
        value = arguments.get(name)
        if value is not None and not (isinstance(value, int | float) and value == 0):
            raise ValueError(sentence)


def check_image_shape(images: Any, name: str = "images") -> None:
    """Raises a ValueError unless images are `(N, H, W, 1 or 3)`; what is not known yet passes."""
    if getattr(images.shape, "rank", 4) is None:
        return
    shape = tuple(images.shape)
    if len(shape) == 4 and shape[-1] in (1, 3, None):
        return
    advice = ""
    if len(shape) == 3:
        advice = f"; one image is `{name}[None]`" if shape[-1] in (1, 3) else f"; grey images are `{name}[..., None]`"
    elif len(shape) == 4 and shape[1] in (1, 3):
        advice = f"; channels come last: `np.moveaxis({name}, 1, -1)`"
    raise ValueError(f"`{name}` must be (N, H, W, 1 or 3), found {shape}{advice}.")


def checked_inputs(inputs: Any) -> Mapping[str, Any]:
    """The inputs of a training batch.

    Raises:
        ValueError: for anything but a dict with the names that there are.
    """
    if not isinstance(inputs, Mapping):
        raise ValueError(
            'fit takes inputs {"labeled": images, "unlabeled": images}, not images alone; see '
            "keras_semimed.data.from_arrays."
        )
    if not {"labeled", "unlabeled"} <= set(inputs) or set(inputs) - set(INPUTS):
        raise ValueError(
            f"the inputs have the keys {sorted(inputs)}; expected 'labeled', 'unlabeled' and none but "
            f"{', '.join(map(repr, INPUTS[2:]))} beside them."
        )
    return inputs


def checked_targets(targets: Any, heads: Sequence[str]) -> dict[str, Any]:
    """The targets of a batch, without a channel axis.

    Args:
        targets: `{"mask": (N, H, W) or (N, H, W, 1), "label": (N,) or (N, 1)}`, or one of them.
        heads: which of them the model learns.

    Raises:
        ValueError: for other names or shapes; a target that is missing would count as perfect.
    """
    names = " and ".join(map(repr, heads))
    if not isinstance(targets, Mapping):
        found = "none" if targets is None else type(targets).__name__
        raise ValueError(f"the targets must be a dict with {names}, found {found}.")
    if set(targets) - set(TARGETS) or not set(targets) & set(heads):
        raise ValueError(
            f"the targets have the keys {sorted(targets)}; expected {names}"
            f"{'' if set(targets) <= set(TARGETS) else ', and none but ' + ', '.join(map(repr, TARGETS))}."
        )
    return {name: _without_channel(name, value) for name, value in targets.items()}


def check_sizes(inputs: Mapping[str, Any], targets: Mapping[str, Any]) -> None:
    """Raises a ValueError unless everything in a training batch belongs to its images: their number and their size.

    Args:
        inputs: of the batch, `checked_inputs`.
        targets: of the batch, `checked_targets`.
    """
    for name, values in {**inputs, **targets}.items():
        images = "unlabeled" if name.startswith("unlabeled") else "labeled"
        axes = 1 if name.endswith(("label", "area")) else 3 if name.endswith("mask") else 4
        shape, expected = values.shape, inputs[images].shape
        if None in (getattr(shape, "rank", 0), getattr(expected, "rank", 0)):
            continue
        pairs = list(zip(tuple(shape)[:axes], tuple(expected)[:axes], strict=False))
        if any(ours != theirs for ours, theirs in pairs if None not in (ours, theirs)):
            raise ValueError(
                f"{name!r} is {tuple(shape)}, the {images} images are {tuple(expected)}; there must be one for each of "
                "them, of the same height and width."
            )
    first, second = (tuple(inputs[name].shape) for name in ("labeled", "unlabeled"))
    if len(first) == len(second) == 4 and None not in (first[3], second[3]) and first[3] != second[3]:
        raise ValueError(
            f"the labelled images have {first[3]} channels, the unlabelled ones {second[3]}; bring them to one number."
        )


def check_target_size(name: str, target: Any, prediction: Any) -> None:
    """Raises a ValueError unless a target `(N, ...)` is as large as its prediction `(N, ..., K)`."""
    if getattr(target.shape, "rank", 0) is None:
        return
    found, expected = tuple(target.shape)[1:], tuple(prediction.shape)[1:-1]
    if None not in (*found, *expected) and found != expected:
        raise ValueError(f"the target {name!r} is {found}, the images are {expected} (height, width); resize one.")


def _without_channel(name: str, values: Any) -> Any:
    if getattr(values.shape, "rank", 0) is None:
        return values
    shape, rank = tuple(values.shape), 3 if name.endswith("mask") else 1
    if len(shape) == rank:
        return values
    if len(shape) == rank + 1 and shape[-1] in (1, None):
        return keras.ops.squeeze(values, -1)
    axes = "(N, H, W) class indices" if rank == 3 else "(N,) class indices"
    raise ValueError(f"the target {name!r} must be {axes}, not one-hot, found {shape}.")
