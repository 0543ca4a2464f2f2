"""What a model can be asked: predictions, embeddings, maps, a network for other programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import keras
import numpy as np
from keras import ops

from keras_semimed.models.checks import check_image_shape
from keras_semimed.models.value_checks import check_images
from keras_semimed.networks.contract import Extended, Rows

HEADS = {"mask": "segmentation", "label": "classification"}
"""What a model predicts, and the task that it is learnt in."""
EXPLANATIONS = ("saliency", "channel_attention", "spatial_attention")
"""The maps of `explain`."""


class Question(keras.Model):
    """Compiles what is asked of a model, as `predict` is, whatever the backend; `predict_on_batch` asks.

    Args:
        model: whose variables the answer rests on.
        answer: tensors from images.
    """

    def __init__(self, model: keras.Model, answer: Callable[[Any], Any]) -> None:
        super().__init__(dtype="float32")  # what is asked decides on its own precision
        self.asked = model
        self.answer = answer
        self.built = True

    def call(self, images: Any) -> Any:
        """The answer for these images."""
        return self.answer(images)


class Inference:
    """The mix-in of a model that predicts with `network` or with the first of its `teacher_networks`."""

    pixel_embeddings: ClassVar[str | None] = None
    """The head whose outputs on maps are the method's embeddings of pixels."""
    image_embeddings: ClassVar[str | None] = None
    """The head whose outputs are the method's embeddings of images."""

    tasks: str
    network: Extended
    teacher: Extended | None
    teacher_networks: list[Extended]
    _use_teacher: bool
    _maps: Callable[[Any], dict[str, Any]] | None = None

    @property
    def use_teacher(self) -> bool:
        """Whether `predict` and `evaluate` use the teacher's weights (the default where it predicts)."""
        return self._use_teacher

    @use_teacher.setter
    def use_teacher(self, value: bool) -> None:
        if value and self.teacher is None:
            raise ValueError("`use_teacher` needs a model that was made with `teacher_momentum`.")
        self._use_teacher = bool(value)
        self.predict_function = None
        self.test_function = None
        self._maps = None

    @property
    def predictor(self) -> Extended:
        """The network whose weights `predict` and `evaluate` use."""
        return self.teacher_networks[0] if self._use_teacher else self.network

    def check_shape(self, images: Any) -> None:
        """Raises a ValueError for images of another shape than the network takes."""
        if self.network.network.takes_pictures:
            check_image_shape(images)

    def inference_arguments(self, images: Any) -> dict[str, Any]:
        """What the network's `encode` takes in inference besides the images."""
        del images
        return {}

    def infer(self, images: Any) -> dict[str, Any]:
        """Returns `{"mask": (N, H, W, K), "label": (N, C)}` probabilities, float32, of the heads there are."""
        self.check_shape(images)
        outputs = self.predictor(
            images, rows=self.predictor.without_heads(), training=False, **self.inference_arguments(images)
        )
        return {
            head: ops.softmax(ops.cast(outputs[f"{head}_logits"], "float32"))
            for head in HEADS
            if f"{head}_logits" in outputs
        }

    @property
    def embedding_heads(self) -> dict[str, str]:
        """The heads whose outputs are the method's embeddings, by what they are of, `"images"` or `"pixels"`."""
        names = {"images": self.image_embeddings, "pixels": self.pixel_embeddings}
        return {of: name for of, name in names.items() if name is not None and name in self.predictor.head_layers}

    def embed(self, images: Any, of: Literal["images", "pixels"] = "images") -> Any:
        """What the method contrasts, or the means of the deepest features of the encoder.

        Args:
            images: `(N, H, W, 1 or 3)` in 0..255.
            of: `"images"`: vectors `(N, D)`; `"pixels"`: maps `(N, h, w, D)`.

        Returns:
            A tensor; None where the model has no embeddings of pixels (`embedding_heads` tells).

        Raises:
            ValueError: for images of another shape, and for arrays that are not in 0..255.
        """
        self.check_shape(images)
        if isinstance(images, np.ndarray):
            check_images(images)
        head = self.embedding_heads.get(of)
        if head is None and of == "pixels":
            return None
        features = self.predictor.encode(images, training=False, **self.inference_arguments(images))
        if head is None:
            return ops.mean(ops.cast(features[max(self._levels(features))], "float32"), axis=(1, 2))
        others = (*self.predictor.network.logits, *self.predictor.head_layers)
        rows: Rows = {name: () for name in others if name != head}
        return self.predictor.decode(features, ops.shape(images)[1:3], training=False, rows=rows)[head]

    def _levels(self, features: Mapping[str, Any]) -> list[str]:
        return [name for name in features if name.startswith("P")]

    def explain(self, images: Any) -> dict[str, Any]:
        """Maps that show what a prediction rests on: saliency (Hermes Eq. 6) and attention (Eq. 3, 4).

        Args:
            images: `(N, H, W, 1 or 3)` in 0..255.

        Returns:
            NumPy arrays: `saliency` `(N, H, W, 1)` in 0..1, `channel_attention` and `spatial_attention`, lists with
            `(N, C)` and `(N, h, w, 1)` for each of the levels P1 to P4. What the branches do not exchange is absent.

        Raises:
            ValueError: for images that are not `(N, H, W, 1 or 3)` in 0..255.
        """
        check_images(images)
        if self.tasks != "both":
            return {}
        if self._maps is None:  # a bound method: Keras would take the question itself for a part of this model
            self._maps = Question(self, self._explained).predict_on_batch
        return self._maps(images)

    def _explained(self, images: Any) -> dict[str, Any]:
        features = self.predictor.encode(images, training=False, **self.inference_arguments(images))
        outputs = self.predictor.network.represent(features, training=False, maps=True)
        return {name: outputs[name] for name in EXPLANATIONS if name in outputs}

    def inference_network(self, saliency: bool = True) -> keras.layers.Layer:
        """A copy of the predicting network without what only training needs: teacher, banks and heads.

        Args:
            saliency: False puts zeros in the place of a saliency map, for runtimes that cannot differentiate.

        Returns:
            A layer from images `(N, H, W, 3)` in 0..255 to a dict of logits, or the logits of the mask alone.
        """
        return self.predictor.network.for_inference(saliency=saliency)
