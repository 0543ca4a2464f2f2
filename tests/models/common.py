"""Small networks and data for the model tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

import keras
import numpy as np

from keras_semimed.data.arrays import ImageSet, SemiSupervisedBatches
from keras_semimed.models import SemiSupervisedModel

SIZE = 32
UNET_WIDTHS = (8, 8, 8, 4, 4)


def tiny_encoder(width: int = 4, stride: int = 32) -> keras.Model:
    """Five convolutions with named feature levels, strided up to the stride of the last one."""
    image = keras.Input((None, None, 3))
    x, levels = image, {}
    for level in range(1, 6):
        strides = 2 if 2**level <= stride else 1
        x = keras.layers.Conv2D(width * level, 3, strides=strides, padding="same", activation="relu")(x)
        x = keras.layers.BatchNormalization(momentum=0.5)(x)
        levels[f"P{level}"] = x
    return keras.Model(image, levels)


def image_set(count: int, seed: int = 0, classes: int = 2, labels: int = 2, channels: int = 3) -> ImageSet:
    """Bright squares on a dark noisy ground; the square's class and the image's class vary."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, SIZE, SIZE, channels), dtype=np.uint8)
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    for index in range(count):
        top, left = rng.integers(2, 14, 2)
        images[index, top : top + 14, left : left + 14] += 120
        masks[index, top : top + 14, left : left + 14] = 1 + index % (classes - 1)
    return ImageSet(
        [f"{seed}_{i}" for i in range(count)],
        images,
        masks,
        (np.arange(count) % labels).astype("int32"),
        None,
        tuple(f"class_{c}" for c in range(labels)),
        num_classes=classes,
    )


def batches(steps: int = 3, batch_size: int = 3, unlabeled: int = 2, **kwargs) -> SemiSupervisedBatches:
    return SemiSupervisedBatches(
        image_set(6, 0, **kwargs),
        image_set(8, 1, **kwargs),
        batch_size=batch_size,
        unlabeled_batch_size=unlabeled,
        steps_per_epoch=steps,
        seed=0,
    )


def arguments(**changes) -> dict:
    """Arguments of a model that trains in seconds."""
    deeplab = {"decoder_filters": 8, "output_stride": 32}
    widths = deeplab if changes.get("network") == "deeplab" else {"decoder_filters": UNET_WIDTHS}
    return {"image_size": SIZE, "encoder": tiny_encoder(), **widths, "total_steps": 6, **changes}


def made(method: type[SemiSupervisedModel], **changes) -> SemiSupervisedModel:
    """A model of a method, on its own network or on that of `changes`."""
    return method(**arguments(**{"network": method.default_network, **changes}))


def fitted(method: type[SemiSupervisedModel], epochs: int = 1, data=None, **changes) -> tuple:
    """A trained model and its history."""
    model = made(method, **changes)
    model.compile()
    return model, model.fit(data or batches(), epochs=epochs, verbose=0).history


def copy_of(start: SemiSupervisedModel) -> SemiSupervisedModel:
    """A second model in the same state, compiled."""
    model = type(start).from_config(start.get_config())
    model.set_weights(start.get_weights())
    model.compile()
    return model


def weights_of(model: keras.Layer) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v.value) for v in model.variables]


def assert_finite(model: keras.Model, history: dict) -> None:
    for name, values in history.items():
        assert np.isfinite(values).all(), name
    for variable in model.variables:
        assert np.isfinite(keras.ops.convert_to_numpy(variable.value)).all(), variable.path


@contextlib.contextmanager
def outputs_given(model: SemiSupervisedModel, *on_views: dict, taught: dict | None = None) -> Iterator[None]:
    """While it lasts a model's networks answer these NumPy outputs, one dict for each view of a pass."""

    def answer(found: Sequence[dict | None]) -> Callable:
        def run(*views, **arguments) -> list[dict]:
            assert len(views) == len(found), "another number of views than there are outputs for"
            return [keras.tree.map_structure(keras.ops.convert_to_tensor, each) for each in found]

        return run

    with mock.patch.object(model, "run", answer(on_views)), mock.patch.object(model, "teach", answer([taught])):
        yield
