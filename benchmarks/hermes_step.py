"""What a Hermes training step costs beside the bare networks.

Three figures, measured in turn in one process (a b c a b c ...), medians:

a  plain: forward and backward pass of the same images through U-Net and classifier, trivial loss;
b  method networks: the same with inter-task attention and the saliency pass, which Hermes has by definition;
c  the full step: views, all losses, thresholds, memory bank, both optimizers.

Each figure also runs alone in a process of its own for its peak memory.

    KERAS_BACKEND=jax python -m benchmarks.hermes_step --image-size 224 --batch-size 8
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import keras
import numpy as np

from benchmarks.steps import gradient_step, run
from keras_semimed.models import Hermes
from keras_semimed.networks.joint import JointNetwork


def make_step(figure: str, arguments: argparse.Namespace) -> Callable[[], object]:
    """Builds one figure's networks and returns a function that runs one step."""
    size, batch = arguments.image_size, arguments.batch_size
    rng = np.random.default_rng(0)
    if figure == "c":
        model = Hermes(image_size=size, encoder=arguments.encoder, total_steps=1000)
        model.compile()
        x = {name: rng.integers(0, 255, (batch, size, size, 3), dtype=np.uint8) for name in ("labeled", "unlabeled")}
        y = {
            "mask": rng.integers(0, 2, (batch, size, size), dtype=np.uint8),
            "label": rng.integers(0, 2, (batch,)).astype("int32"),
        }
        return lambda: model.train_on_batch(x, y)
    network = JointNetwork(
        encoder=arguments.encoder, exchange="both" if figure == "b" else "none", contrast_level=None, name="network"
    )
    network(keras.KerasTensor((1, size, size, 3)))
    images = rng.uniform(0, 255, (3 * batch, size, size, 3)).astype("float32")
    step = gradient_step(network)
    return lambda: step(images)


if __name__ == "__main__":
    HEADLINE = "{encoder} twice, decoder 256/128/64/32/16, {batch_size} + {batch_size} images at {image_size}"
    run("hermes_step", __doc__, make_step, HEADLINE, image_size=224, batch_size=8, encoder="resnet18")
