"""The model of a run, made from its flags, and what it begins with."""

from __future__ import annotations

from pathlib import Path

import keras

from keras_semimed.data import ImageSet, Split
from keras_semimed.experiments.command_line.settings import Settings, flag_names
from keras_semimed.experiments.console import RecipeError
from keras_semimed.files import check_digests, read_sealed
from keras_semimed.models import METHODS, SemiSupervisedModel
from keras_semimed.models.value_checks import check_image_set
from keras_semimed.optimizers import branch_optimizer, encoder_optimizer


def build(settings: Settings, images: ImageSet) -> SemiSupervisedModel:
    """Makes and compiles the model for the classes of `images`.

    Raises:
        RecipeError: If an argument does not fit; the message names it and its flag.
    """
    counts = {"num_classes": images.num_classes, "num_labels": len(images.class_names)}
    given = {name: value for name, value in settings.arguments.items() if value is not None}
    arguments = {name: count for name, count in counts.items() if count > 1} | given
    arguments |= {"image_size": settings.image_size, "seed": settings.seed, "total_steps": settings.steps}
    make = encoder_optimizer if settings.optimizer_groups == "encoder" else branch_optimizer
    try:
        model = METHODS[settings.method](views=dict(settings.views), **arguments)
        if settings.control:
            check_control(settings, model)
        if isinstance(images, ImageSet):  # or the counts alone
            check_image_set(images, model.num_classes, model.num_labels, model.learnt_heads, learn=True)
        model.compile(make(settings.steps, **settings.optimizer))
    except (ValueError, OSError, RuntimeError) as error:
        named = {f"`{name}`": word for name in (*arguments, *settings.optimizer) for word in flag_names({name: None})}
        words = sorted({f"--{word.replace('_', '-')}" for name, word in named.items() if name in str(error)})
        raise RecipeError(f"{error}" + (f" ({', '.join(words)})" if words else "")) from error
    return model


def check_control(settings: Settings, model: SemiSupervisedModel) -> None:
    """Refuses a control in which something is learnt without labels at some time.

    Raises:
        RecipeError: Which names the terms.
    """
    left: dict[str, None] = {}
    for step in (0, settings.steps // 2, settings.steps - 1):
        model.step.assign(step)
        weights = {name: float(keras.ops.convert_to_numpy(weight)) for name, weight in model.loss_weights.items()}
        left |= {name: None for name, weight in weights.items() if weight and not name.endswith("supervised")}
    model.step.assign(0)
    if left:
        raise RecipeError(f"--control: no argument of {settings.method} sets the weight of {', '.join(left)} to 0")


def start_from(path: Path, model: SemiSupervisedModel, split: Split) -> None:
    """Gives the model what the run in the folder `path` has learnt, from the same training images.

    Raises:
        RecipeError: If that run had another split: what it trained on could be what this one is scored on; or if its
            model is damaged.
        ValueError: If the networks do not fit.
    """
    files = read_sealed(path / "config.json", sealed=False).get("files", {})
    check_digests(path, files, ["split.txt", "model.keras"])
    found = Split.load(path / "split.txt")
    if found.hash != split.hash:
        raise RecipeError(f"--start-from {path} was trained on the split {found.hash}, this run has {split.hash}")
    try:
        other = keras.saving.load_model(path / "model.keras", compile=False)
    except Exception as error:  # zipfile, h5py and Keras have a dozen kinds for damaged bytes
        raise RecipeError(
            f"--start-from {path}: its model.keras is damaged, or not of this version ({error})"
        ) from error
    model.start_from(other)
