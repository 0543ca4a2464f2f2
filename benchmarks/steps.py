"""What the step benchmarks share: compiled gradients, alternating timing, peak memory in a process of its own."""

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

FIGURES = {"a": "plain networks", "b": "method networks", "c": "full step"}
MakeStep = Callable[[str, argparse.Namespace], Callable[[], object]]


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


def timed(step: Callable[[], object]) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def peak_memory(module: str, figure: str) -> float:
    """Peak resident memory in GiB of a process that runs two steps of one figure."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *sys.argv[1:], "--only", figure]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return float(lines[-1])


def run(module: str, description: str | None, make_step: MakeStep, headline: str, **defaults: object) -> None:
    """Parses the arguments, runs the figures in turn and prints them with their ratios.

    Args:
        module: Name of the benchmark's module, which is started again for peak memory.
        description: Head of the help text.
        make_step: Builds the networks of a figure and returns a function that runs one step.
        headline: What is measured; may hold names of arguments in braces.
        defaults: Of `image_size`, `batch_size` and `encoder`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    texts = {
        "image_size": "side of the images in pixels",
        "batch_size": "labelled images a step, and unlabelled ones",
        "encoder": "encoder",
    }
    for name, text in texts.items():
        value = defaults[name]
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"{text} ({value})")
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
    print(f"backend {keras.backend.backend()}, {headline.format(**vars(arguments))}, float32")
    for figure, text in FIGURES.items():
        memory = "" if arguments.no_memory else f", peak memory {peak_memory(module, figure):.2f} GiB"
        values = seconds[figure]
        spread = f"from {min(values):.3f} to {max(values):.3f}"
        print(f"{figure}  {text:16s} {statistics.median(values):7.3f} s ({spread}){memory}")
    for first, second in (("c", "b"), ("c", "a"), ("b", "a")):
        ratios = [x / y for x, y in zip(seconds[first], seconds[second], strict=True)]
        print(f"{first} / {second}  {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")
