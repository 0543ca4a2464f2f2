"""The images of a run: read, split, and which of them are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_semimed.data import ImageSet, Split, concatenate, loading, masks_by_class, split_image_set
from keras_semimed.data.cards import card
from keras_semimed.data.folder.files import printable
from keras_semimed.data.splits.leaks import leak_report
from keras_semimed.data.splits.named import check_split
from keras_semimed.data.splits.parts import PARTS
from keras_semimed.experiments.command_line.bundles import is_folder
from keras_semimed.experiments.command_line.settings import Settings
from keras_semimed.experiments.console import RecipeError, naming_flags
from keras_semimed.experiments.inputs.external import External, check_external, read_external
from keras_semimed.experiments.inputs.folder_checks import check_folder, targets_of
from keras_semimed.experiments.inputs.folders import read_parts


class Data(NamedTuple):
    """The images by what a run does with them."""

    labeled: ImageSet
    unlabeled: ImageSet
    held_out: ImageSet
    split: Split
    scored: str
    """Name of the part that is held out and scored."""
    external: External | None = None
    """Images of another hospital, which are scored as well."""
    watched: ImageSet | None = None
    """A folder's validation part: scored after each epoch, never trained on."""

    @property
    def plain_images(self) -> np.ndarray:
        """All that is learnt from, labelled and unlabelled, as it is: `(N, H, W, C)` in 0..255."""
        return np.concatenate([np.asarray(part.images[:]) for part in (self.labeled, self.unlabeled)])


def check_data(settings: Settings) -> None:
    """Refuses a split that the data do not have, before they are read.

    Raises:
        RecipeError: Which names the flags.
    """
    check_external(settings)
    if is_folder(settings.data):
        check_folder(settings)
        return
    if settings.classes is not None:
        known = card((settings.parts or (settings.data_set,))[0]).class_names
        if unknown := [name for name in settings.classes if name not in known]:
            raise RecipeError(
                f"--classes: {settings.data} has no class {unknown[0]!r}; it has {', '.join(known) or 'none'}"
            )
        if len(set(settings.classes)) < max(len(settings.classes), 2):
            raise RecipeError(f"--classes must be at least two different ones, found {','.join(settings.classes)}")
    if settings.mask_classes == "type" and not image_classes(settings):
        raise RecipeError(f"--mask-classes type: {settings.data} has no image classes; leave it out")
    if settings.split_file is not None:
        load_split(settings.split_file)
        return
    name = None if settings.parts else settings.data_set
    try:
        check_split(name, settings.split, settings.test, settings.intersect)
    except ValueError as error:
        raise RecipeError(f"--split {settings.split} with --data {settings.data}: {error}") from error


def read(settings: Settings) -> Data:
    """Reads and splits the images; those of joined sets are called `<set>/<name>`."""
    if is_folder(settings.data):
        cut = read_parts(settings)
        external = read_external(settings, cut.labeled)
        held_out, scored = (cut.validation, "validation") if settings.validate else (cut.test, "test")
        assert held_out is not None  # `check_folder`
        found = cut.near_duplicates()
        print(f"near-duplicates on two sides of the split: {len(found)} pairs" + _such_as(found), flush=True)
        return Data(cut.labeled, cut.unlabeled, held_out, cut.split, scored, external, cut.validation)
    parts = settings.parts
    if parts:
        # The first set lies in --manual-dir, and so do the others unless they have a place of their own.
        places = {"cvc_clinicdb": settings.cvc_dir or settings.manual_dir}
        images = concatenate({part: _read(settings, part, places.get(part, settings.manual_dir)) for part in parts})
    else:
        images = _read(settings, settings.data_set, settings.manual_dir)
    if settings.mask_classes == "type":
        images = masks_by_class(images)
    split = (
        read_split(settings.split_file, images, settings.validate)
        if settings.split_file
        else _named_split(settings, images)
    )
    unlabeled = split.train_unlabeled(settings.validate)
    if not unlabeled:
        raise RecipeError(f"--labeled {settings.labeled:g} of {settings.data} leaves no unlabelled image; give less")
    return Data(
        images.select(split.labeled),
        images.select(unlabeled),
        images.select(split.validation if settings.validate else split.test),
        split,
        "validation" if settings.validate else "test",
        read_external(settings, images),
    )


def _such_as(pairs: Sequence[tuple[str, str]]) -> str:
    return f", such as {printable(pairs[0][0])} and {printable(pairs[0][1])}" if pairs else ""


def load_split(path: Path) -> Split:
    """A split that was given as a file.

    Raises:
        RecipeError: If it is none, or names an image twice.
    """
    try:
        return Split.load(path)
    except OSError as error:
        raise RecipeError(f"--split-file {path} cannot be read: {error.strerror}; give a text file") from error
    except ValueError as error:
        raise RecipeError(f"--split-file {error}") from error


def read_split(path: Path, images: ImageSet, validate: bool = False) -> Split:
    """A split that was given as a file, for these images.

    Raises:
        RecipeError: If it names an image twice or one that there is none of, or leaves a part empty that is needed.
    """
    split = load_split(path)
    named = {name for part in PARTS for name in getattr(split, part)}
    if unknown := sorted(named - set(images.names)):
        raise RecipeError(
            f"--split-file {path} names {len(unknown)} images that the data do not have, such as {unknown[0]!r}; the "
            f"first of theirs is {images.names[0]!r}"
        )
    needed = ("labeled", "unlabeled", "validation" if validate else "test")
    if empty := [part for part in needed if not getattr(split, part)]:
        raise RecipeError(f"--split-file {path} has no image in the part {', '.join(empty)}; give it at least one")
    if rest := len(images) - len(named):
        print(f"{rest} of {len(images)} images are in no part of {path} and are left out", flush=True)
    return split


def _named_split(settings: Settings, images: ImageSet) -> Split:
    return split_image_set(
        images,
        None if settings.parts else settings.data_set,
        settings.split,
        settings.seed,
        settings.labeled,
        settings.test,
        settings.intersect,
    )


def tasks_of(settings: Settings) -> tuple[str, ...]:
    """The tasks that the data have targets for."""
    if is_folder(settings.data):
        return targets_of(Path(settings.data))
    return ("segmentation", "classification") if image_classes(settings) else ("segmentation",)


def image_classes(settings: Settings) -> tuple[str, ...]:
    """The classes of images that are used, of a data set; none where it has masks only."""
    known = card((settings.parts or (settings.data_set,))[0])
    return settings.classes or known.study_classes


def groups_of(settings: Settings, names: tuple[str, ...]) -> Mapping[str, str]:
    """Which data set each image belongs to, where several are scored apart; empty for one."""
    return {name: name.partition("/")[0] for name in names} if settings.parts else {}


def count_leaks(data: Data) -> str:
    """How many pairs of one group (patient, sequence or near-duplicates) lie in training and in the scored part."""
    if data.labeled.groups is None or data.held_out.groups is None:
        return "unknown, the images have no groups"
    parts = (data.labeled, data.unlabeled, data.held_out)
    trained_and_scored = Split(tuple(data.labeled.names), tuple(data.unlabeled.names), (), tuple(data.held_out.names))
    found = {name: f"image {name}" for name in data.unlabeled.names}
    found |= {name: group for part in parts for name, group in zip(part.names, part.groups or (), strict=False)}
    report = leak_report(trained_and_scored, found)
    unknown = "; groups of the unlabelled images unknown" if data.unlabeled.groups is None else ""
    return f"{len(report.leaks)} pairs, {len(report.twins())} of {len(data.held_out)} scored images{unknown}"


def _read(settings: Settings, name: str, place: Path | None) -> ImageSet:
    classes = settings.classes or card(name).study_classes or None
    with naming_flags("--data", "--cvc-dir" if place is not settings.manual_dir else "--manual-dir"):
        return loading.load_image_set(name, settings.image_size, place, settings.data_dir, classes)
