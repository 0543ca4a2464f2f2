"""A method on a network of one matrix: every logit is set by the images, and what a network saw can be looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_semimed.models import SemiSupervisedModel, View
from keras_semimed.networks.contract import Network
from tests.gradients import gradient

STILL = {"horizontal_flip": False, "scale": (1.0, 1.0), "shift": 0.0}
"""Views without any geometry."""
CLASSES = 3


class Pixelwise(Network, keras.layers.Layer):
    """Features are the images, channel by channel times `gain`; logits are `mask_kernel` or `label_kernel` times them.

    With the first kernel, the identity, a pixel's first channels are its logits, and the means of an image its own.
    """

    image_multiple = 1
    takes_pictures = False
    encoders = ()

    def __init__(self, channels: int, heads: Mapping[str, int]) -> None:
        super().__init__(autocast=False)
        self.channels = channels
        self.logits = {f"{head}_logits": {"mask": "decoded", "label": "pooled"}[head] for head in heads}
        self.gain = self.add_weight(shape=(channels,), initializer="ones", name="gain")
        self.kernels = {
            f"{head}_logits": self.add_weight(shape=(channels, classes), initializer="identity", name=f"{head}_kernel")
            for head, classes in heads.items()
        }
        self.log = SimpleNamespace(passes=[], decoded=[])
        self.built = True

    def encode(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        self.log.passes.append((images, training))
        return {"P1": images * self.gain}

    def represent(self, features: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        self.log.decoded.append((features["P1"], training))
        return {"decoded": features["P1"], "pooled": ops.mean(features["P1"], axis=(1, 2))}

    def classify(self, represented: Mapping[str, Any], size: tuple[Any, Any]) -> dict[str, Any]:
        sources = {name: represented[source] for name, source in self.logits.items() if source in represented}
        return {name: ops.matmul(source, self.kernels[name]) for name, source in sources.items()}

    @property
    def widths(self) -> dict[str, int]:
        return dict.fromkeys(("P1", "decoded", "pooled"), self.channels)


def pixelwise(
    method: type[SemiSupervisedModel], size: int = 5, channels: int = 3, **arguments: Any
) -> SemiSupervisedModel:
    """A model of a method on `Pixelwise` networks, on views as the images come; not in its own registered name."""

    class OnPixels(method):  # type: ignore[misc, valid-type]
        def make_network(self) -> Any:
            classes = {"mask": self.num_classes, "label": self.num_labels}
            return Pixelwise(channels, {head: classes[head] for head in self.learnt_heads})

    given = {"image_size": size, "num_classes": CLASSES, "num_labels": CLASSES, "total_steps": 10, "views": STILL}
    return OnPixels(**{**given, **arguments})


def kernel_of(network: Any, head: str = "mask") -> Any:
    """The variable that makes the logits of a network."""
    return network.network.kernels[f"{head}_logits"]


def take_channels(network: Any, first: int) -> None:
    """Makes the channels from `first` on the logits of a network."""
    kernel = kernel_of(network)
    kernel.assign(np.eye(*kernel.shape, -first, dtype="float32"))


def with_zeros(logits: Any, channels: int = 3) -> np.ndarray:
    """Images that show logits of fewer classes than they have channels."""
    logits = np.asarray(logits, "float32")
    missing = channels - logits.shape[-1]
    return np.concatenate([logits, np.zeros((*logits.shape[:-1], missing), "float32")], -1)


def view_of(images: np.ndarray, inside: np.ndarray | None = None, masks: np.ndarray | None = None) -> View:
    """A view by hand, of any number of channels."""
    inside = np.ones(images.shape[:-1], "float32") if inside is None else inside
    masks = np.zeros(images.shape[:-1], "int32") if masks is None else masks
    return View(*map(ops.convert_to_tensor, (images, np.asarray(inside, "float32"), masks)))


def seen(network: Any) -> list[tuple[np.ndarray, bool]]:
    """The images of each pass of a network so far, and whether it was one in training mode; then forgets them."""
    log = network.network.log
    passes, log.passes, log.decoded = log.passes, [], []
    return [(array(images), training) for images, training in passes]


def array(value: Any) -> np.ndarray:
    return ops.convert_to_numpy(value)


def number(value: Any) -> float:
    return float(array(value))


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: number(getattr(value, "value", value)) for name, value in values.items()}


def batch(
    seed: int, labeled: int = 2, unlabeled: int = 3, size: int = 5
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A random batch: images are logits, a border of each is padding, some of the masks are unknown."""
    rng = np.random.default_rng(seed)

    def images(count: int) -> np.ndarray:
        return rng.normal(0, 2, (count, size, size, CLASSES)).astype("float32")

    def areas(count: int) -> np.ndarray:
        return np.stack([rng.integers(0, 2, count)] * 2 + [rng.integers(size - 1, size + 1, count)] * 2, 1)

    inputs = {
        "labeled": images(labeled),
        "unlabeled": images(unlabeled),
        "labeled_area": areas(labeled).astype("int32"),
        "unlabeled_area": areas(unlabeled).astype("int32"),
    }
    masks = rng.integers(0, CLASSES, (labeled, size, size))
    masks[rng.uniform(size=masks.shape) < 0.2] = 255
    masks[area_mask(inputs["labeled_area"], size) == 0] = 255
    return inputs, {"mask": masks.astype("int32"), "label": rng.integers(0, CLASSES, labeled).astype("int32")}


def area_mask(area: np.ndarray, size: int) -> np.ndarray:
    """`(N, S, S)`: 1 from top to bottom and from left to right."""
    mask = np.zeros((len(area), size, size), "float32")
    for index, (top, left, bottom, right) in enumerate(area):
        mask[index, top:bottom, left:right] = 1
    return mask


def random_boxes(seed: int, count: int, size: int = 5) -> np.ndarray:
    """`(N, S, S)` float32, 1 inside a random box; the first image has none."""
    rng = np.random.default_rng(seed)
    corners = [np.sort(rng.choice(size + 1, 2, replace=False)) for _ in range(2 * count)]
    area = np.array([(*rows, *columns) for rows, columns in zip(corners[::2], corners[1::2], strict=True)])
    boxes = area_mask(area[:, [0, 2, 1, 3]], size)
    boxes[0] = 0
    return boxes


def losses_of(model: SemiSupervisedModel, inputs: Mapping[str, Any], targets: Mapping[str, Any]) -> Any:
    """What the method makes of a batch."""
    return model.terms(*views_of(model, inputs, targets))


def terms_of(model: SemiSupervisedModel, inputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, float]:
    """The terms that the method makes of a batch."""
    return numbers(losses_of(model, inputs, targets).terms)


def views_of(model: SemiSupervisedModel, inputs: Mapping[str, Any], targets: Mapping[str, Any]) -> tuple[Any, Any]:
    """Both weak views of a batch."""
    tensors = {name: ops.convert_to_tensor(value) for name, value in inputs.items()}
    labeled, unlabeled = model.training_views(
        tensors, {name: ops.convert_to_tensor(value) for name, value in targets.items()}
    )
    return labeled, unlabeled.view


def total_of(model: SemiSupervisedModel, inputs: Mapping[str, Any], targets: Mapping[str, Any]) -> float:
    """The loss of a batch."""
    tensors = {name: ops.convert_to_tensor(value) for name, value in inputs.items()}
    known = {name: ops.convert_to_tensor(value) for name, value in targets.items()}
    return number(model.compute_loss(tensors, known, {}, training=True))


def slope(variable: Any, function: Callable[[], Any]) -> np.ndarray:
    """d function() / d variable, no state moved."""

    def value(values: Any) -> Any:
        with keras.StatelessScope(state_mapping=[(variable, values)]):
            return function()

    return gradient(value, array(variable.value))


def slope_by_images(model: SemiSupervisedModel, views: tuple[Any, Any], name: str) -> np.ndarray:
    """d term / d the images of the weak unlabelled view, no state moved."""
    labeled, unlabeled = views

    def value(images: Any) -> Any:
        with keras.StatelessScope():
            return model.terms(labeled, unlabeled._replace(images=images)).terms[name]

    return gradient(value, array(unlabeled.images))


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, "float64")
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def cross_entropies(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """`-log p` of the label of each pixel or image; 0 where the label is 255."""
    known = labels != 255
    chosen = np.take_along_axis(log_softmax(logits), np.where(known, labels, 0)[..., None], -1)[..., 0]
    return np.where(known, -chosen, 0.0)


def mean_cross_entropy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Over what is not 255; 0 if there is nothing else."""
    return float(cross_entropies(labels, logits).sum() / max((labels != 255).sum(), 1))


def mixed(values: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """With the image before it in the batch inside the box of each."""
    result = values.copy()
    for image in range(len(values)):
        inside = boxes[image] > 0
        result[image][inside] = values[(image - 1) % len(values)][inside]
    return result


def pictures_of_masks(seed: int, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose logits are sure of their own masks, and the masks; where these are unknown, the image is 0."""
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, CLASSES, (count, size, size))
    images = 40.0 * np.eye(CLASSES)[masks]
    masks[rng.uniform(size=masks.shape) < 0.1] = 255
    images[masks == 255] = 0
    return images.astype("float32"), masks.astype("int32")


def oracle_losses(model: SemiSupervisedModel) -> tuple[Any, Any]:
    """Of a batch whose unlabelled images show their masks: with the true masks, and with those of other images."""
    size = model.image_size
    known, masks = pictures_of_masks(1, 2, size)
    images, truth = pictures_of_masks(2, 3, size)
    inputs = {"labeled": known, "unlabeled": images}
    found = [
        losses_of(model, inputs, {"mask": masks, "unlabeled_mask": each}) for each in (truth, np.roll(truth, 1, axis=2))
    ]
    return found[0], found[1]
