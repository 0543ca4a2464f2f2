"""What every recipe checks before it reads data, and how flags become the values that a run uses."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from keras_semimed.networks.encoders import ARCHITECTURES
from recipes.arguments import NOT_CONFIGURATION, Settings
from recipes.console import RecipeError


def check(settings: Settings) -> None:
    """Refuses what is wrong whatever the data are, before anything is read.

    Raises:
        RecipeError: If a number is out of range, a name unknown or a path missing; the message names the flag.
    """
    for name in ("steps", "batch_size", "labeled_batch_size", "epoch_steps", "panels"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise RecipeError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if settings.pseudo_labels < 0:
        raise RecipeError(f"--pseudo-labels must be at least 0, got {settings.pseudo_labels}")
    if settings.labeled <= 0:
        raise RecipeError(f"--labeled must be positive, got {settings.labeled}")
    if not 0 <= settings.seed < 2**32:
        raise RecipeError(f"--seed must be within 0 and 2^32 - 1, got {settings.seed}")
    if settings.encoder not in ARCHITECTURES:
        raise RecipeError(f"--encoder must be one of {', '.join(ARCHITECTURES)}, got {settings.encoder}")
    for name in ("manual_dir", "cvc_dir", "start_from"):
        path = getattr(settings, name, None)
        if path is not None and not path.exists():
            raise RecipeError(f"--{name.replace('_', '-')} {path} does not exist")
    if settings.weights is not None and settings.weights.endswith((".npz", ".safetensors")):
        if not Path(settings.weights).is_file():
            raise RecipeError(f"--weights {settings.weights} is not a file")


def batch_and_epoch(settings: Settings, unlabeled_images: int) -> dict[str, Any]:
    """Values of `labeled_batch_size` and `epoch_steps` where they were left open.

    Args:
        settings: The flags.
        unlabeled_images: Number of unlabelled training images; sets the default length of an epoch.

    Raises:
        RecipeError: If `steps` cannot be divided into epochs.
    """
    return {
        "labeled_batch_size": settings.labeled_batch_size or settings.batch_size,
        "epoch_steps": _epoch_steps(settings, unlabeled_images),
    }


def configuration(settings: Settings) -> dict[str, Any]:
    """What makes two runs the same experiment, ready for JSON.

    Raises:
        RecipeError: If the run to start from is not finished.
    """
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(settings).items()
        if name not in NOT_CONFIGURATION
    }
    if settings.start_from is not None:
        values["start_from"] = model_digest(settings.start_from)
    return values


def model_digest(folder: Path) -> str:
    """What tells the model of a finished run from any other: the SHA-256 of its file.

    Raises:
        RecipeError: If the folder holds no finished run.
    """
    try:
        return hashlib.sha256((folder / "model.keras").read_bytes()).hexdigest()
    except OSError as error:
        raise RecipeError(f"--start-from {folder} is not the folder of a finished run ({error})") from error


def _epoch_steps(settings: Settings, unlabeled_images: int) -> int:
    """A divisor of `steps`: the given one, or the one nearest to a pass over the unlabelled images."""
    steps = settings.steps
    wanted = settings.epoch_steps or min(unlabeled_images / settings.batch_size, steps)

    def distance(number: int) -> float:
        return max(number / wanted, wanted / number)

    nearest = min((number for number in range(1, steps + 1) if steps % number == 0), key=distance)
    if settings.epoch_steps not in (None, nearest):
        raise RecipeError(f"--epoch-steps {wanted} does not divide --steps {steps}; try {nearest}")
    if distance(nearest) > 4:
        length = round(wanted)
        raise RecipeError(
            f"--steps {steps} cannot be divided into epochs of about {length} steps, which a run resumes from; "
            f"try {steps // length * length} or {(steps // length + 1) * length}"
        )
    return nearest
