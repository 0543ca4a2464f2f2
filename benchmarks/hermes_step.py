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
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_semimed.models import Hermes
from keras_semimed.networks.joint import JointNetwork

FIGURES = {"a": "plain networks", "b": "method networks", "c": "full step"}


def gradient_step(network: keras.layers.Layer) -> Callable[[np.ndarray], None]:
    """Compiled forward and backward pass of a trivial loss over all outputs; waits for the gradients."""

    def loss_of(outputs: dict) -> keras.KerasTensor:
        return sum(ops.mean(ops.square(value)) for value in outputs.values())

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function
        def gradients(images):
            with tf.GradientTape() as tape:
                loss = loss_of(network(images, training=True))
            return tape.gradient(loss, network.trainable_variables)

        return lambda images: [g.numpy() for g in gradients(tf.convert_to_tensor(images))[:1]]
    if backend == "jax":
        import jax

        def loss(trainable, non_trainable, images):
            outputs, state = network.stateless_call(trainable, non_trainable, images, training=True)
            return loss_of(outputs), state

        compiled = jax.jit(jax.grad(loss, has_aux=True))
        trainable = [v.value for v in network.trainable_variables]
        non_trainable = [v.value for v in network.non_trainable_variables]
        return lambda images: jax.block_until_ready(compiled(trainable, non_trainable, images))
    import torch

    def run(images: np.ndarray) -> None:
        parameters = [v.value for v in network.trainable_variables]
        torch.autograd.grad(loss_of(network(torch.as_tensor(images), training=True)), parameters, allow_unused=True)

    return run


def make_step(figure: str, arguments: argparse.Namespace) -> Callable[[], None]:
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


def timed(step: Callable[[], None]) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def peak_memory(figure: str) -> float:
    """Peak resident memory in GiB of a process that runs two steps of one figure."""
    command = [sys.executable, "-m", "benchmarks.hermes_step", *sys.argv[1:], "--only", figure]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return float(lines[-1])


def main() -> None:
    """Parses the arguments, runs the figures and prints them with their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=224, help="side of the images in pixels (224)")
    parser.add_argument("--batch-size", type=int, default=8, help="labelled images a step, and unlabelled ones (8)")
    parser.add_argument("--encoder", default="resnet18", help="encoder of both branches (resnet18)")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each figure after a warm-up (5)")
    parser.add_argument("--no-memory", action="store_true", help="skip the processes that measure peak memory")
    parser.add_argument("--only", choices=tuple(FIGURES), help="run two steps of one figure, print its peak memory")
    arguments = parser.parse_args()
    if arguments.only:
        step = make_step(arguments.only, arguments)
        step(), step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        return
    steps = {figure: make_step(figure, arguments) for figure in FIGURES}
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {figure: [] for figure in FIGURES}
    for _ in range(arguments.repeats):
        for figure, step in steps.items():
            seconds[figure].append(timed(step))
    print(
        f"backend {keras.backend.backend()}, {arguments.encoder} twice, decoder 256/128/64/32/16, "
        f"{arguments.batch_size} + {arguments.batch_size} images at {arguments.image_size}, float32"
    )
    for figure, text in FIGURES.items():
        memory = "" if arguments.no_memory else f", peak memory {peak_memory(figure):.2f} GiB"
        values = seconds[figure]
        spread = f"from {min(values):.3f} to {max(values):.3f}"
        print(f"{figure}  {text:16s} {statistics.median(values):7.3f} s ({spread}){memory}")
    for first, second in (("c", "b"), ("c", "a"), ("b", "a")):
        ratios = [x / y for x, y in zip(seconds[first], seconds[second], strict=True)]
        print(f"{first} / {second}  {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
