"""What images, targets and predictions must hold: looked at on the host, before and after the compiled functions.

In arrays every image is looked at; in other data sets those of the first batch, because all of them would have to be
read twice. Images of 8 bits are not looked at: they cannot lie in 0..1 by accident.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_semimed.data import array_checks
from keras_semimed.layers.views import IGNORE
from keras_semimed.models.checks import IMAGES, check_image_shape

# How far beyond 0..255 resizing may take a value.
SLACK = 1.0


def check_images(images: Any, name: str = "images") -> None:
    """Raises a ValueError for images that are not `(N, H, W, 1 or 3)`, hold NaN or are not in 0..255."""
    check_image_shape(images, name)
    if keras.backend.standardize_dtype(images.dtype) not in ("uint8", "bool"):
        array_checks.check_range(on_host(images), name, SLACK)


def examined(data: Any) -> Any:
    """Looks at data that a model is to be fed with.

    Args:
        data: images, inputs of a training batch, or any data set that Keras takes.

    Returns:
        The same data; a generator is given back with its first batch in front again.

    Raises:
        ValueError: as `check_images`.
    """
    if isinstance(data, types.GeneratorType):
        first = next(data, None)
        _examine(_inputs(first))
        return data if first is None else _chained(first, data)
    if not hasattr(data, "image_set") and not hasattr(data, "labeled"):  # those hold 8 bits, and were looked at
        _examine(_first_inputs(data))
    return data


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _first_inputs(data: Any) -> Any:
    """The inputs of a data set's first batch; arrays as they are; None where looking would be dear."""
    if isinstance(data, keras.utils.PyDataset):
        return _inputs(data[0])
    if hasattr(data, "element_spec"):  # of TensorFlow: reading ahead may fill a buffer for shuffling
        specification = _inputs(data.element_spec)
        floating = any(kind.dtype.is_floating for kind in keras.tree.flatten(specification))
        return _inputs(next(iter(data.take(1)))) if floating else specification
    if hasattr(data, "dataset"):  # of PyTorch: an iterator would draw from the global random stream
        single = hasattr(data.dataset, "__getitem__") and len(data.dataset) > 0
        return keras.tree.map_structure(lambda x: x[None], _inputs(data.dataset[0])) if single else None
    return data


def _inputs(batch: Any) -> Any:
    return batch[0] if isinstance(batch, tuple | list) and batch else batch


def _examine(inputs: Any) -> None:
    named = inputs if isinstance(inputs, Mapping) else {"images": inputs}
    for name, images in named.items():
        if name in ("images", *IMAGES) and hasattr(images, "dtype"):
            check_images(images, name)


def on_host(values: Any) -> np.ndarray:
    """A tensor or array as an array."""
    return keras.ops.convert_to_numpy(values) if keras.ops.is_tensor(values) else np.asarray(values)


def check_image_set(image_set: Any, num_classes: int, num_labels: int, heads: Sequence[str], learn: bool) -> None:
    """Refuses targets that are no classes of a model, or lesions that are written as 255.

    One-hot coding would leave them out in silence.

    Args:
        image_set: an `ImageSet`; None is not looked at.
        num_classes: mask classes of the model.
        num_labels: image classes of the model.
        heads: that it learns.
        learn: whether it is to be learnt from.
    """
    if image_set is None:
        return
    if "mask" in heads and image_set.masks is not None:
        if image_set.num_classes > num_classes:
            raise ValueError(
                f"the images have {image_set.num_classes} mask classes, the model has num_classes={num_classes}; make "
                "the model with as many."
            )
        array_checks.check_lesion_value(image_set.masks, num_classes, "the set of masks")
        if learn and any((mask != IGNORE).any() for mask in image_set.masks):  # or nothing is known: no masks at all
            array_checks.check_lesion(image_set.masks, "the labelled images")
    if "label" in heads and image_set.labels is not None:
        _check_labels(image_set.labels, num_labels)
        if learn:
            _check_every_class(image_set.labels, num_labels, heads, image_set.class_names)


def check_targets(
    images: Any,
    targets: Mapping[str, Any],
    num_classes: int,
    num_labels: int,
    heads: Sequence[str],
    learn: bool = False,
    whole_set: bool = True,
) -> None:
    """As `check_image_set`, for arrays of targets and their images.

    Args:
        images: None: not known.
        targets: by head.
        num_classes: mask classes of the model.
        num_labels: image classes of the model.
        heads: that it learns.
        learn: whether they are to be learnt from.
        whole_set: False: a batch, of which some rules say nothing.
    """
    for name, values in targets.items():
        if name not in heads:
            continue
        values = on_host(values)
        size = tuple(images.shape)[1:3] if name == "mask" and hasattr(images, "shape") else ()
        if len(values) != len(images) and hasattr(images, "shape") or size and values.shape[1:] != size:
            raise ValueError(
                f"the target {name!r} is {values.shape}, the images are {tuple(images.shape)}; there must be one for "
                "each image, and masks must be as large."
            )
        if name == "label":
            _check_labels(values, num_labels)
            if whole_set and learn:
                _check_every_class(values, num_labels, heads)
            continue
        masks = values.astype("uint8")
        if not np.array_equal(masks, values):
            raise ValueError("the target 'mask' holds values that are not classes; expected whole 0..255.")
        for index, mask in enumerate(masks):
            array_checks.check_mask_values(mask, f"mask[{index}]", num_classes)
        if whole_set:
            array_checks.check_lesion_value(masks, num_classes, "the target 'mask'")
        if whole_set and learn and (masks != IGNORE).any():
            array_checks.check_lesion(masks, "the target 'mask'")


def _check_labels(labels: np.ndarray, num_labels: int) -> None:
    if not np.array_equal(labels, np.round(labels)):
        raise ValueError("the target 'label' holds values that are not classes; expected whole numbers.")
    strange = labels[((labels < 0) | (labels >= num_labels)) & (labels != IGNORE)]
    if strange.size:
        raise ValueError(
            f"the images have the class {strange.max()}, the model has the classes 0 to {num_labels - 1}; make the "
            f"model with num_labels={max(int(strange.max()) + 1, num_labels)}, or check the labels."
        )


def _check_every_class(labels: np.ndarray, num_labels: int, heads: Sequence[str], names: Sequence[str] = ()) -> None:
    """Refuses to learn a class that no labelled image has, or warns where there are masks to learn as well.

    Where masks are learnt and no label is known, there is nothing to say.
    """
    labels = np.asarray(labels).reshape(-1)
    present = set(labels[labels != IGNORE].tolist())
    missing = [index for index in range(num_labels) if index not in present]
    if missing and (present or "mask" not in heads):
        named = ", ".join(f"{index} ({names[index]})" if index < len(names) else f"{index}" for index in missing)
        sentence = (
            f"`num_labels`={num_labels}, but no labelled image has the class {named}; label at least one of each "
            "class, or leave the class out."
        )
        if "mask" not in heads:
            raise ValueError(sentence)
        warnings.warn(sentence, stacklevel=4)


def check_weights(network: keras.layers.Layer) -> None:
    """Raises a ValueError for a network whose weights are not finite.

    Its predictions may be: TensorFlow's convolutions on a CPU make NaN to 0 where a ReLU follows.
    """
    for variable in network.weights:
        if keras.backend.is_float_dtype(variable.dtype) and not np.isfinite(np.sum(on_host(variable.value))):
            raise ValueError(
                f"the weights of the model are not finite, the first of them {variable.path!r}: the training diverged; "
                "take weights from before, or train with a lower learning rate."
            )


def check_predictions(outputs: Mapping[str, np.ndarray]) -> None:
    """Raises a ValueError for probabilities that are not finite, whose largest class would be the background."""
    for name, values in outputs.items():
        finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        if not finite.all():
            raise ValueError(
                f"the model's {name!r} of images[{int(np.argmin(finite))}] is not finite, nor are those of "
                f"{int((~finite).sum())} of {len(finite)} images, though its weights are: numbers ran over; make the "
                "model with dtype='float32' or 'mixed_bfloat16'."
            )


def check_added_losses(encoder: keras.Model) -> None:
    """Refuses an encoder whose layers add losses of what they compute.

    An image goes through a network several times a step, in views that count differently, so that such a loss has no
    meaning of its own. Losses of weights, `kernel_regularizer` and its like, are part of the loss.

    Raises:
        ValueError: for an `activity_regularizer`, or a layer that calls `add_loss`.
    """
    layers = encoder._flatten_layers()
    names = [layer.name for layer in layers if getattr(layer, "activity_regularizer", None) is not None]
    if not names and any(not type(layer).__module__.startswith("keras.") for layer in layers):
        size = [side or 32 for side in encoder.input_shape[1:3]]
        with keras.StatelessScope(collect_losses=True) as scope:
            encoder(keras.ops.zeros((1, *size, encoder.input_shape[-1] or 3)), training=True)
        names = [encoder.name] if scope.losses else []
    if names:
        raise ValueError(
            f"`encoder` adds losses of what it computes ({', '.join(names)}), which the methods cannot weigh; leave "
            "`activity_regularizer` and `add_loss` out. `kernel_regularizer` is part of the loss."
        )
