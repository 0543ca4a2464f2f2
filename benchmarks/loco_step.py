"""What a LoCo training step costs beside the bare networks.

Three figures, measured in turn in one process (a b c a b c ...), medians:

a  plain: forward and backward pass of the labelled, weak and strong images through DeepLabV3+, trivial loss;
b  method networks: the same with the projector on labelled and weak images, no classifier on the weak ones, and the
   teacher's forward pass on the weak images, which LoCo has by definition;
c  the full step: views, CutMix, filter, all losses, optimizer, moving average.

Untrained networks call every pixel something else than its neighbour, so that all pixels are boundary pixels, which no
training sees; the heads' biases here call all of the unlabelled images background. The labelled masks have boundaries.

Each figure also runs alone in a process of its own for its peak memory.

    KERAS_BACKEND=jax python -m benchmarks.loco_step --image-size 384 --batch-size 2
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.steps import gradient_step, run
from keras_semimed.models import LoCo
from keras_semimed.networks.projected import ProjectedDeepLab


class Plain(keras.layers.Layer):
    """DeepLabV3+ on all images."""

    def __init__(self, encoder: str) -> None:
        super().__init__(autocast=False)
        self.network = ProjectedDeepLab(encoder=encoder)

    def call(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        """Logits of all images."""
        return self.network(images, training=training)


class StudentAndTeacher(keras.layers.Layer):
    """The passes that a LoCo step consists of, on labelled, strong and weak images in this order, as many of each."""

    def __init__(self, encoder: str) -> None:
        super().__init__(autocast=False)
        self.student = ProjectedDeepLab(encoder=encoder, name="student")
        self.teacher = ProjectedDeepLab(encoder=encoder, name="teacher")
        self.teacher.trainable = False

    def call(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        """Logits of labelled and strong images, projections of labelled and weak ones, the teacher's of the weak."""
        third, size = images.shape[0] // 3, images.shape[1:3]
        features = self.student.features(images, training=training)
        projected = ops.concatenate([features[:third], features[2 * third :]])
        return {
            "mask_logits": self.student.classify(features[: 2 * third], size),
            "projections": self.student.project(projected, training=training),
            "teacher": ops.stop_gradient(self.teacher(images[2 * third :], training=False)["mask_logits"]),
        }


def smooth_images(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Images without noise, `(count, size, size, 3)` float32 in 0..255: on noise every pseudo-label is a boundary."""
    coarse = rng.uniform(0, 255, (count, 6, 6, 3)).astype("float32")
    return ops.convert_to_numpy(ops.image.resize(coarse, (size, size), data_format="channels_last"))


def make_step(figure: str, arguments: argparse.Namespace) -> Callable[[], object]:
    """Builds one figure's networks and returns a function that runs one step."""
    size, batch = arguments.image_size, arguments.batch_size
    rng = np.random.default_rng(0)
    if figure == "c":
        model = LoCo(image_size=size, encoder=arguments.encoder, total_steps=1000)
        for network in (model.network, model.teacher):
            network.segmentation.head.bias.assign([3.0, -3.0])
        model.compile()
        x = {name: smooth_images(rng, batch, size).astype("uint8") for name in ("labeled", "unlabeled")}
        y = {"mask": np.zeros((batch, size, size), np.uint8)}
        y["mask"][:, size // 4 : size // 2, size // 3 : size // 2] = 1
        return lambda: model.train_on_batch(x, y)
    network = (Plain if figure == "a" else StudentAndTeacher)(arguments.encoder)
    images = smooth_images(rng, 3 * batch, size)
    network(keras.KerasTensor(images.shape))
    step = gradient_step(network)
    return lambda: step(images)


if __name__ == "__main__":
    HEADLINE = "DeepLabV3+ on {encoder}, output stride 16, {batch_size} + {batch_size} images at {image_size}"
    run("loco_step", __doc__, make_step, HEADLINE, image_size=384, batch_size=2, encoder="resnet50")
