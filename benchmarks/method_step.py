"""What a training step of a method costs beside the bare passes of its networks.

Three figures, measured in turn in one process, each a whole compiled `train_on_batch` on fixed data:

plain   the passes of a supervised step: the labelled images through one network, backward, optimizer;
passes  the method's own passes, as its step makes them (networks, images, heads, the teacher's, which have no gradient;
        see `benchmarks.recorded_passes`), a trivial loss, backward, the method's optimizer and moving average, but no
        views, no selection and no losses;
step    the full step.

Untrained networks call every pixel something else than its neighbour, which no training sees: all pixels would be
boundaries. Here the bias of the mask's logits calls all of them background.

    KERAS_BACKEND=jax python -m benchmarks.method_step --method fixmatch --memory
    python -m benchmarks.method_step --method loco --encoder resnet50 --image-size 384 --batch-size 2
    python -m benchmarks.method_step --method cps --set cutmix_probability=1.0 network=deeplab
"""

from __future__ import annotations

import argparse
import ast
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.recorded_passes import describe, passes_alone, ready_images, record, smooth_images
from benchmarks.steps import in_turn, ratio, resident
from keras_semimed.models import METHODS, SemiSupervisedModel

FIGURES = ("plain", "passes", "step")
SHARED = ("network", "tasks", "decoder_filters", "output_stride", "num_classes", "num_labels")
"""Arguments of the method that the supervised baseline takes as well."""


def parsed(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=tuple(METHODS), required=True)
    parser.add_argument("--image-size", type=int, default=224, help="side of the images in pixels (224)")
    parser.add_argument("--batch-size", type=int, default=4, help="labelled images a step, and unlabelled ones (4)")
    parser.add_argument("--encoder", default="resnet18", help="encoder (resnet18)")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="further arguments of the method")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each figure after a warm-up (5)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count the seconds of the processor, which other programs disturb less, not those of the clock; let the "
        "backend have one thread then, because threads that wait count too",
    )
    parser.add_argument("--only", choices=FIGURES, help="time one figure alone")
    parser.add_argument("--memory", action="store_true", help="peak memory too, each figure in a process of its own")
    arguments = parser.parse_args(argv)
    for text in arguments.set:
        if "=" not in text:
            parser.error(f"--set takes NAME=VALUE, such as cutmix_probability=1.0, not {text!r}")
    return arguments


def method_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the method's model."""
    given = {"image_size": arguments.image_size, "encoder": arguments.encoder, "total_steps": 1000}
    for text in arguments.set:
        name, value = text.split("=", 1)
        try:
            given[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            given[name] = value
    return given


def batch(size: int, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A batch on the device: smooth images, masks with a rectangle, labels in turn."""
    x = {name: smooth_images((count, size, size, 3), seed) for seed, name in enumerate(("labeled", "unlabeled"))}
    masks = np.zeros((count, size, size), "uint8")
    masks[:, size // 4 : size // 2, size // 3 : size // 2] = 1
    y = {"mask": masks, "label": (np.arange(count) % 2).astype("int32")}
    x = {name: ops.convert_to_tensor(values.astype("uint8")) for name, values in x.items()}
    return x, {name: ops.convert_to_tensor(values) for name, values in y.items()}


def full_model(method: type[SemiSupervisedModel], **arguments: Any) -> SemiSupervisedModel:
    """A compiled model whose networks call everything background."""
    model = method(**arguments)
    for network in (*model.networks, *model.teacher_networks):
        for head in network.parts.get("mask_head", []):
            bias = np.full(head.bias.shape, -3.0, "float32")
            bias[0] = 3.0
            head.bias.assign(bias)
    model.compile()
    return model


def stepper(model: SemiSupervisedModel, x: Any, y: Any = None) -> Callable[[], Any]:
    """A function that does one step and waits for its end."""
    variable = model.trainable_variables[-1]

    def step() -> float:
        loss = model.train_on_batch(x, y, return_dict=True)["loss"]
        ops.convert_to_numpy(variable)
        return float(loss)

    return step


def make_step(figure: str, arguments: argparse.Namespace, say: Callable[[str], Any] = print) -> Callable[[], Any]:
    """Builds one figure's model and returns a function that does one step."""
    given = method_arguments(arguments)
    method = METHODS[arguments.method]
    x, y = batch(arguments.image_size, arguments.batch_size)
    model = full_model(method, **given)
    if figure == "step":
        return stepper(model, x, y)
    if figure == "plain":
        method = METHODS["supervised"]
        given = {name: value for name, value in given.items() if name in (*SHARED, "image_size", "encoder")}
        given |= {"network": model.given.network, "tasks": model.tasks}
        model = full_model(method, **given)
    passes = record(model, x, y)
    say(f"{figure}: {describe(passes)}")
    images = {number: ops.convert_to_tensor(values) for number, values in ready_images(passes).items()}
    return stepper(passes_alone(method, passes, **given), images)


def peak_memory(figure: str) -> float:
    """Peak resident memory in GiB of a process that does the steps of one figure."""
    command = [sys.executable, "-m", "benchmarks.method_step", *sys.argv[1:], "--only", figure, "--repeats", "1"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    return float(lines[-1].split()[-2])


def main(argv: list[str] | None = None) -> None:
    """Parses the arguments, runs the figures in turn and prints them with their ratios."""
    arguments = parsed(argv)
    size, count = arguments.image_size, arguments.batch_size
    print(
        f"{arguments.method} on {keras.backend.backend()}, {arguments.encoder}, {count} + {count} images at {size} "
        f"pixels, float32 {' '.join(arguments.set)}"
    )
    figures = (arguments.only,) if arguments.only else FIGURES
    clock = time.process_time if arguments.processor_time else time.perf_counter
    seconds = in_turn({figure: make_step(figure, arguments) for figure in figures}, arguments.repeats, clock)
    for figure, values in seconds.items():
        memory = f", peak memory {peak_memory(figure):.2f} GiB" if arguments.memory and not arguments.only else ""
        spread = f"from {min(values):.3f} to {max(values):.3f}"
        print(f"{figure:8s}{statistics.median(values):8.3f} s ({spread}){memory}", flush=True)
    if arguments.only:
        print(f"peak memory {resident('VmHWM') / 2**10:.3f} GiB")
        return
    for first, second in (("step", "passes"), ("step", "plain"), ("passes", "plain")):
        print(f"{first} / {second}: {ratio(seconds[first], seconds[second])}")


if __name__ == "__main__":
    main()
