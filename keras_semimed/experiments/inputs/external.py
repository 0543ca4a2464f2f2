"""Images of another hospital, on which the finished model is scored as well."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from keras_semimed.data import ImageSet, loading, masks_by_class, read_image_folder
from keras_semimed.data.array_checks import IGNORE
from keras_semimed.data.cards import CARDS, card
from keras_semimed.data.folder.files import image_stem
from keras_semimed.data.folder.labels import GROUPING, cells_of, column_key, spacing_columns
from keras_semimed.experiments.command_line.bundles import is_folder
from keras_semimed.experiments.command_line.settings import Settings
from keras_semimed.experiments.console import RecipeError, did_you_mean, naming_flags
from keras_semimed.experiments.inputs.folder_checks import reading_of

LABELS = "labels.csv"
MOST_VALUES = 10
"""A column with more values, such as the age, is nothing that images are scored by."""


class External(NamedTuple):
    """Images with what the run learns, and the groups that they are scored by."""

    name: str
    images: ImageSet
    groups: Mapping[str, Mapping[str, str]]
    """What they are scored by, such as `class` or `scanner`: values by the images' names."""


def check_external(settings: Settings) -> None:
    """Refuses a place that is none, before anything is read.

    Raises:
        RecipeError: Which names the flag.
    """
    place = settings.test_on
    if place is None:
        if settings.test_on_dir is not None:
            raise RecipeError(f"--test-on-dir {settings.test_on_dir} is the place of --test-on, which is missing")
        return
    if place in (settings.data_set, *settings.parts):
        raise RecipeError(f"--test-on {place} is the data that the run learns from; give those of another hospital")
    if place in CARDS:
        return
    if not Path(place).is_dir():
        raise RecipeError(
            f"--test-on {place} is neither a data set ({', '.join(CARDS)}) nor a folder{did_you_mean(place, CARDS)}"
        )


def read_external(settings: Settings, like: ImageSet) -> External | None:
    """The images of `--test-on`, with the classes that the model learns.

    Args:
        settings: Of the run.
        like: Its training images.

    Raises:
        RecipeError: If they have not what the run learns, or other classes.
    """
    place = settings.test_on
    if place is None:
        return None
    columns: dict[str, dict[str, str]] = {}
    with naming_flags("--test-on", "--test-on-dir"):
        if place in CARDS:
            classes, size = card(place).study_classes or None, settings.image_size
            aspect = bool(settings.keep_aspect)
            images = loading.load_image_set(place, size, settings.test_on_dir, settings.data_dir, classes, aspect)
        else:
            reading = {**_as_training(settings, like), "class_names": like.class_names or None}
            images = read_image_folder(place, settings.image_size, **reading)
            columns = _columns(Path(place) / LABELS)
    segments = settings.arguments["tasks"] != "classification"
    if images.masks is None and segments:
        raise RecipeError(f"--test-on {place} has no masks to score by; give images with masks")
    if images.labels is None and not segments:
        raise RecipeError(f"--test-on {place} has no image classes to score by; give images with classes")
    if like.class_names and images.labels is not None and tuple(images.class_names) != tuple(like.class_names):
        raise RecipeError(
            f"--test-on {place} has the classes {', '.join(images.class_names)}, the training images have "
            f"{', '.join(like.class_names)}; give images of the same classes"
        )
    if known := _in_both(images, like):
        raise RecipeError(
            f"--test-on {place} holds {len(known)} images of the data that the run learns from, such as {known[0]!r}; "
            "give images of another hospital"
        )
    groups = _groups(images, columns)
    if settings.mask_classes == "type":
        if images.labels is None:
            raise RecipeError(f"--test-on {place} has no image classes, which --mask-classes type needs")
        images = masks_by_class(images)
    if segments and images.num_classes != like.num_classes:
        raise RecipeError(
            f"--test-on {place} has masks of {images.num_classes} classes, the training images of {like.num_classes}"
        )
    if not like.class_names:
        images = dataclasses.replace(images, labels=None, class_names=())
    return External(Path(place).name, images, groups)


def _as_training(settings: Settings, like: ImageSet) -> dict[str, Any]:
    """How the files are read: as the run declares it, or as the data set was read."""
    reading = reading_of(settings)
    if is_folder(settings.data):
        return reading
    names = like.rules.mask_class_names if like.rules is not None and settings.mask_classes == "lesion" else ()
    return {**reading, "mask_class_names": names or None, "num_classes": len(names) or None}


def _in_both(images: ImageSet, like: ImageSet) -> list[str]:
    """Names of images that are, pixel by pixel, among the others."""
    seen = {hashlib.sha256(image.tobytes()).digest() for image in like.images}
    return [
        name
        for name, image in zip(images.names, images.images, strict=True)
        if hashlib.sha256(image.tobytes()).digest() in seen
    ]


def _groups(images: ImageSet, columns: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The image classes and the columns that have several values, and not too many."""
    found: dict[str, dict[str, str]] = {}
    if images.labels is not None:
        pairs = zip(images.names, images.labels, strict=True)
        found["class"] = {name: images.class_names[label] for name, label in pairs if label != IGNORE}
    for name in images.names:
        for column, value in columns.get(name, {}).items():
            found.setdefault(column, {})[name] = value
    return {kind: values for kind, values in found.items() if 2 <= len(set(values.values())) <= MOST_VALUES}


def _columns(table: Path) -> dict[str, dict[str, str]]:
    """What labels.csv says of each image beyond class, patient and size of pixels, by the stem of its file."""
    if not table.exists():
        return {}
    columns, *lines = (line for line in cells_of(table) if line)
    spacing = spacing_columns(columns)
    kinds = {
        column: place
        for place, column in enumerate(columns)
        if column and column not in spacing and column_key(column) not in ("file", "class", *GROUPING)
    }
    file = columns.index("file")
    return {
        image_stem(Path(line[file].strip().replace("\\", "/"))): {
            kind: line[place] for kind, place in kinds.items() if place < len(line) and line[place]
        }
        for line in lines
    }
