"""Several trainings in one run, each going on from the network of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_semimed.experiments.command_line.settings import MOST_STEPS
from keras_semimed.experiments.console import RecipeError, did_you_mean

FORM = "METHOD:STEPS or METHOD:STEPS@FACTOR with commas between, such as supervised:600,hermes:400@0.5"


class Stage(NamedTuple):
    """A training of a run.

    Attributes:
        method: its name.
        steps: how long it is.
        factor: of the learning rate.
    """

    method: str
    steps: int
    factor: float


def read_stages(text: str, methods: Mapping[str, Any]) -> list[Stage]:
    """Takes `--stages` apart.

    Raises:
        RecipeError: If it has another form, a method is unknown or a stage has no step.
    """
    found = []
    for word in text.split(","):
        method, colon, rest = word.strip().partition(":")
        steps, at, factor = rest.partition("@")
        if method not in methods and colon:
            near = did_you_mean(method, methods)
            raise RecipeError(f"--stages {text}: {method!r} is none of {', '.join(methods)}{near}")
        try:
            stage = Stage(method, int(steps), float(factor) if at else 1.0)
        except ValueError:
            raise RecipeError(f"--stages {text}: {word!r} is not of the form {FORM}") from None
        if not 1 <= stage.steps <= MOST_STEPS or not 0 < stage.factor < float("inf"):
            raise RecipeError(
                f"--stages {text}: {word!r} must have 1 to {MOST_STEPS:,} steps, and a finite factor above 0"
            )
        found.append(stage)
    return found


def rates(optimizer: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Arguments of an optimizer with all learning rates times a factor."""
    return {name: value * factor if name.endswith("learning_rate") else value for name, value in optimizer.items()}
