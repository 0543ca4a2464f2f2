"""What a run in a notebook is given: whether it fits together, its split, and what tells the run from others."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_semimed.data import EvaluationBatches, ImageSet, SemiSupervisedBatches, Split
from keras_semimed.data.argument_checks import check_count
from keras_semimed.data.folder.parting import named_apart
from keras_semimed.experiments.command_line.settings import flag_names
from keras_semimed.experiments.inputs.data_sets import Data
from keras_semimed.models import METHODS, SemiSupervisedModel
from keras_semimed.models.value_checks import check_image_set
from keras_semimed.provenance import data_digest

OF_IMAGES = {"mask": "masks", "label": "image classes"}
NOT_COMPARED = ("name", "trainable", "dtype", "reading", "provenance")
"""Of a model's configuration and of its views': what Keras counts up, and what training notes."""


class Given(NamedTuple):
    """A run's images, and the batches of them."""

    data: Data
    train: SemiSupervisedBatches
    scored_at_once: int
    """Images a forward pass of the scoring."""
    watched: EvaluationBatches | None
    """The validation part."""


def check_model(model: Any) -> None:
    """Refuses what is no compiled method of this package.

    Raises:
        ValueError: Which says what it is.
    """
    if not isinstance(model, SemiSupervisedModel):
        kind = type(model).__name__
        raise ValueError(f"`model` must be a method of keras_semimed.models, such as Hermes or FixMatch, found {kind}")
    if not model.compiled:
        raise ValueError("`model` is not compiled; call model.compile() first")


def check_batches(model: SemiSupervisedModel, train: Any, test: Any, validation: Any, epochs: int) -> None:
    """Refuses data that a model cannot learn from or be scored on.

    Raises:
        ValueError: Which names the argument.
    """
    if not isinstance(train, SemiSupervisedBatches):
        raise ValueError(
            f"`train` must be a SemiSupervisedBatches, found {type(train).__name__}; data.from_folder(path, test=0.3) "
            "gives one, and batches for `test`"
        )
    for name, batches in {"test": test, "validation": validation}.items():
        if not isinstance(batches, EvaluationBatches) and (name == "test" or batches is not None):
            raise ValueError(
                f"`{name}` must be an EvaluationBatches, found {type(batches).__name__}; make one of an image set"
            )
        if batches is not None:
            _check_scored(name, batches.image_set, model, train.labeled)
    check_count("epochs", epochs)
    model.check_batch(train.batch_size, train.unlabeled_batch_size)
    check_image_set(train.labeled, model.num_classes, model.num_labels, model.learnt_heads, learn=True)
    if model.pseudo_labels == "truth" and not train.unlabeled_targets:
        raise ValueError(
            "`train` brings no truth of its unlabelled images, which a model with pseudo_labels='truth' learns from; "
            "make it with unlabeled_targets=True"
        )


def _check_scored(name: str, images: ImageSet, model: SemiSupervisedModel, labeled: ImageSet) -> None:
    for head in model.learnt_heads:
        learnt, found = (_targets(part, head) is not None for part in (labeled, images))
        if learnt and not found:
            raise ValueError(f"`{name}` has no {OF_IMAGES[head]} to score by, which the model learns; give them")
    if images.images.shape[1:] != labeled.images.shape[1:]:
        raise ValueError(
            f"`{name}` has images of {images.images.shape[1:]}, `train` of {labeled.images.shape[1:]} (height, width, "
            "channels); read them at one size"
        )
    classes, expected = (", ".join(part.class_names) for part in (images, labeled))
    if images.labels is not None and labeled.labels is not None and classes != expected:
        raise ValueError(f"`{name}` has the classes {classes}, `train` has {expected}; give images of the same classes")
    check_image_set(images, model.num_classes, model.num_labels, model.learnt_heads, learn=False)


def _targets(images: ImageSet, head: str) -> np.ndarray | None:
    return images.masks if head == "mask" else images.labels


def parted(
    train: SemiSupervisedBatches, test: EvaluationBatches, validation: EvaluationBatches | None, split: Split | None
) -> Given:
    """The images by what the run does with them, called as a command would call them.

    Where two parts share names, all are called `<part>/<name>`.

    Args:
        train: What is learnt from.
        test: What is scored in the end.
        validation: What is scored after each epoch.
        split: The split that the images are from; None: the parts are the split.

    Raises:
        ValueError: If an image is trained on and tested with, or the images are not those of `split`.
    """
    parts = {"labeled": train.labeled, "unlabeled": train.unlabeled, "test": test.image_set}
    parts |= {} if validation is None else {"validation": validation.image_set}
    for name in ("test", "validation"):
        if name in parts and (known := _same_images(parts[name], (train.labeled, train.unlabeled))):
            raise ValueError(
                f"`{name}` holds {len(known)} images that `train` has too, such as {known[0]!r}; give images that no "
                "training sees"
            )
    if split is None:
        parts = named_apart(parts)
        names = {part: tuple(sorted(images.names)) for part, images in parts.items()}
        split, scored = Split(**{"validation": (), **names}), "test"
    else:
        scored = _scored_part(split, parts)
    if parts["labeled"] is not train.labeled:
        train = copy.copy(train)
        train.labeled, train.unlabeled = parts["labeled"], parts["unlabeled"]
    data = Data(train.labeled, train.unlabeled, parts["test"], split, scored, None, parts.get("validation"))
    watched = None if validation is None else EvaluationBatches(parts["validation"], validation.batch_size)
    return Given(data, train, test.batch_size, watched)


def _same_images(images: ImageSet, others: tuple[ImageSet, ...]) -> list[str]:
    """Names of images that another set has by the same name, pixel by pixel."""
    found: dict[str, None] = {}
    for other in others:
        places = {name: place for place, name in enumerate(other.names)}
        for name, image in zip(images.names, images.images, strict=True):
            if name in places and np.array_equal(image, other.images[places[name]]):
                found[name] = None
    return list(found)


def _scored_part(split: Split, parts: Mapping[str, ImageSet]) -> str:
    """The part of a split that is scored; a validation part that is not used is trained on."""
    names = {part: set(images.names) for part, images in parts.items()}
    for scored in ("test", "validation"):
        trained = set(split.train_unlabeled(scored == "validation" or "validation" in parts))
        if names["test"] == set(getattr(split, scored)) and names["unlabeled"] == trained:
            if names["labeled"] == set(split.labeled):
                return scored
    raise ValueError(
        f"`split` {split.hash} is not that of `train` and `test`: an image is in another part; give the split that "
        "came with them, or leave it out"
    )


def configuration_of(
    model: SemiSupervisedModel, given: Given, epochs: int, seed: int, name: str | None
) -> dict[str, Any]:
    """What makes two runs the same experiment, by the names that a command has for it, ready for JSON.

    Args:
        model: What is trained.
        given: Its images and batches.
        epochs: How long.
        seed: What comparisons pair the run by.
        name: Of the data; None: their digest.
    """
    train, data = given.train, given.data
    digest = data_digest(data.labeled, data.unlabeled)
    kinds = {kind: name for name, kind in METHODS.items()}
    values = {
        "data": name or digest,
        "data_digest": digest,
        "scored_digest": data.held_out.digest[:12],
        "labeled": len(data.labeled),
        "seed": seed,
        "order_seed": train.seed,
        "method": kinds.get(type(model), type(model).__name__),
        "steps": epochs * len(train),
        "epoch_steps": len(train),
        "batch_size": train.unlabeled_batch_size,
        "labeled_batch_size": train.batch_size,
        "mixed_precision": model.dtype_policy.name,
        "weights": model.given.weights,
    }
    values |= _arguments(model) | _flat("optimizer", keras.saving.serialize_keras_object(model.optimizer))
    return json.loads(json.dumps(values, default=str))


def _arguments(model: SemiSupervisedModel) -> dict[str, Any]:
    """Arguments of the model and of its views, by the names of flags."""
    config = {name: value for name, value in model.get_config().items() if name not in NOT_COMPARED}
    config["model_seed"] = config.pop("seed")
    views = config.pop("views")["config"]
    for name in (*NOT_COMPARED, "image_size", "seed"):
        views.pop(name, None)
    if not isinstance(config["encoder"], str):  # its layers are counted up by Keras
        config["encoder"] = f"own, {model.encoder.count_params():,} weights"
    return flag_names(config) | flag_names(views)


def _flat(name: str, value: Any) -> dict[str, Any]:
    """A configuration of Keras without nesting, names that are counted up and what is off."""
    if not isinstance(value, Mapping):
        return {} if value is None or value is False else {name: value}
    if {"class_name", "config"} <= value.keys():
        return {name: value["class_name"]} | _flat(name, value["config"] or {})
    return {
        key: inner
        for part, each in value.items()
        if part not in NOT_COMPARED
        for key, inner in _flat(f"{name}.{part}", each).items()
    }
