"""From the flags to the values that a run uses: presets, methods and epoch lengths filled in."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from keras_semimed.models.hermes import PRESETS
from keras_semimed.networks.encoders import ARCHITECTURES, check_image_size
from recipes.arguments import HERMES_ARGUMENTS, NOT_CONFIGURATION, Settings
from recipes.console import RecipeError


def check(settings: Settings) -> None:
    """Refuses what is wrong whatever the data are, before anything is read.

    Raises:
        RecipeError: If a number is out of range, a name unknown or a path missing; the message names the flag.
    """
    for name in ("steps", "batch_size", "labeled_batch_size", "epoch_steps", "labeled"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise RecipeError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if not 0 <= settings.seed < 2**32:
        raise RecipeError(f"--seed must be within 0 and 2^32 - 1, got {settings.seed}")
    if settings.encoder not in ARCHITECTURES:
        raise RecipeError(f"--encoder must be one of {', '.join(ARCHITECTURES)}, got {settings.encoder}")
    for name, path in (("manual-dir", settings.manual_dir), ("start-from", settings.start_from)):
        if path is not None and not path.exists():
            raise RecipeError(f"--{name} {path} does not exist")
    if settings.weights is not None and settings.weights.endswith((".npz", ".safetensors")):
        if not Path(settings.weights).is_file():
            raise RecipeError(f"--weights {settings.weights} is not a file")
    try:
        check_image_size(settings.image_size)
    except ValueError as error:
        raise RecipeError(f"--image-size {settings.image_size}: {error}") from error


def resolve(settings: Settings, unlabeled_images: int) -> Settings:
    """Fills in what was left open.

    Args:
        settings: The flags.
        unlabeled_images: Number of unlabelled training images; sets the default length of an epoch.

    Raises:
        RecipeError: If `steps` cannot be divided into epochs.
    """
    values: dict[str, Any] = {
        "labeled_batch_size": settings.labeled_batch_size or settings.batch_size,
        "epoch_steps": _epoch_steps(settings, unlabeled_images),
    }
    if settings.method == "supervised":
        values |= dict.fromkeys(HERMES_ARGUMENTS)
        values |= {
            "exchange": settings.exchange or "none",
            "lambda_cls": 1.0 if settings.lambda_cls is None else settings.lambda_cls,
        }
        return dataclasses.replace(settings, **values)
    values["exchange"] = settings.exchange or "both"
    preset = PRESETS[str(settings.preset)]
    for name in ("lambda_cls", "unlabeled_weight", "confidence", "uncertainty", "gamma"):
        if getattr(settings, name) is None:
            values[name] = preset[name]
    if settings.method == "control":
        values |= dict.fromkeys(("unlabeled_weight", "alpha", "beta", "gamma"), 0.0)
    return dataclasses.replace(settings, **values)


def configuration(settings: Settings) -> dict[str, Any]:
    """What makes two runs the same experiment, ready for JSON."""
    values = dataclasses.asdict(settings)
    values |= {"decoder_filters": list(settings.decoder_filters), "zoom": list(settings.zoom)}
    if settings.start_from is not None:
        values["start_from"] = model_digest(settings.start_from)
    return {name: value for name, value in values.items() if name not in NOT_CONFIGURATION}


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
