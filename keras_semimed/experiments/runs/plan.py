"""What a run is about to do, in words and numbers, and how long it will take."""

from __future__ import annotations

import math
import time
from typing import Any

import keras

from keras_semimed.experiments.command_line.flags import flags_of
from keras_semimed.experiments.command_line.settings import Settings
from keras_semimed.experiments.inputs.data_sets import Data
from keras_semimed.models import SemiSupervisedModel

TIMED = 5
"""Steps that the expected time is told by, after the first two, which compile."""


def plan(model: SemiSupervisedModel, settings: Settings, data: Data) -> dict[str, str]:
    """What a training will do, by what it is about, for the screen."""
    labeled, unlabeled = settings.labeled_batch_size or settings.batch_size, settings.batch_size
    said = amounts(model, data, settings.steps, settings.epoch_steps or settings.steps, (labeled, unlabeled))
    if timetable := starts(settings):
        said["begins later"] = ", ".join(timetable)
    rates = {name: value for name, value in settings.optimizer.items() if name.endswith("learning_rate")}
    rates |= {"head factor": settings.optimizer["head_factor"]} if "head_factor" in settings.optimizer else {}
    rest = [f"{name.replace('_', ' ')} {value:g}" for name, value in rates.items() if name != "learning_rate"]
    said["learning rate"] = ", ".join([f"{rates.get('learning_rate', 0):g}", *rest])
    said["weights"] = weights_of(model)
    begin = settings.arguments.get("weights")
    said["start"] = f"encoder from {begin}" if begin else "random weights"
    if settings.start_from is not None:
        said["start"] = f"network of {settings.start_from}"
    return said


def amounts(
    model: SemiSupervisedModel, data: Data, steps: int, epoch_steps: int, sizes: tuple[int, int]
) -> dict[str, str]:
    """How long a training is, and how often it looks at its images.

    Args:
        model: What is trained.
        data: Its images.
        steps: Of the whole training.
        epoch_steps: Of an epoch.
        sizes: Labelled and unlabelled images a step.
    """
    unlabeled = "not looked at" if model.supervised_only else _passes(len(data.unlabeled), sizes[1], steps)
    return {
        "steps": f"{steps:,} in {steps // epoch_steps} epochs of {epoch_steps}",
        "labelled images": _passes(len(data.labeled), sizes[0], steps),
        "unlabelled images": unlabeled,
    }


def weights_of(model: SemiSupervisedModel) -> str:
    """How many numbers are trained, and how many are not."""
    trained, frozen = (_count(weights) for weights in (model.trainable_weights, model.non_trainable_weights))
    return f"{trained:,} trained, {frozen:,} not (moving statistics, averages, counters, what is frozen)"


def starts(settings: Settings) -> list[str]:
    """What does not weigh in full from the first step on: arguments that count steps or shares of the run."""
    found = []
    for name, flag in flags_of(settings.method).items():
        value = settings.arguments.get(flag.parameter.name) if flag.of == "method" else None
        if not name.endswith(("_start", "_ramp", "_delay", "warmup_share")) or not isinstance(value, int | float):
            continue
        if value and not isinstance(value, bool):
            step = round(value * settings.steps) if isinstance(value, float) and value < 1 else round(value)
            what = "over" if name.endswith("_ramp") else "at step"
            found.append(f"{name} {what} {step:,}" + (" steps" if name.endswith("_ramp") else ""))
    return found


def _passes(images: int, batch: int, steps: int) -> str:
    passes = steps * batch / images
    return f"{images:,}, {batch} a step: each {f'{passes:.1f}' if passes < 10 else f'{passes:,.0f}'} times"


def _count(weights: list[Any]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


class ExpectedTime(keras.callbacks.Callback):
    """Says once, after the first timed steps, how long the training will take.

    Args:
        steps: Of the whole training.
        done: Those that an earlier sitting has made.
    """

    def __init__(self, steps: int, done: int = 0):
        super().__init__()
        self.left = steps - done
        self.seen = 0
        self.started = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts, and tells."""
        self.seen += 1
        if self.seen == 2:
            self.started = time.perf_counter()
        elif self.seen == 2 + TIMED:
            float((logs or {}).get("loss", 0.0))  # waits for an accelerator
            each = (time.perf_counter() - self.started) / TIMED
            print(f"\nabout {duration(each * (self.left - self.seen))} to go, {each:.2f} s a step", flush=True)


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
