"""One's own images in the place of a data set: a folder whose parts are the split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_semimed.data import FolderParts, part_folder, read_folder
from keras_semimed.data.argument_checks import check_intensity_range
from keras_semimed.data.folder.files import labeled_part
from keras_semimed.data.folder.labels import read_labels
from keras_semimed.data.folder.mask_names import check_mask_name
from keras_semimed.data.images.mask_values import parse_key
from keras_semimed.experiments.command_line.settings import Settings
from keras_semimed.experiments.console import RecipeError, naming_flags


def check_folder(settings: Settings) -> None:
    """Refuses a folder without one of the parts, and what it has no use for, before anything is read.

    Raises:
        RecipeError: Which names the folder or the flag.
    """
    path = Path(settings.data)
    labeled, drawn = labeled_part(path), settings.test is not None or settings.folds is not None
    for part in (labeled, "unlabeled"):
        if not (path / part).is_dir():
            raise RecipeError(f"data: {path} has no folder {part}/; a run needs {labeled}/ and unlabeled/")
    if not (path / "test").is_dir() and not drawn:
        raise RecipeError(
            f"data: {path} has no folder test/; cut a test part off the annotated images with --test 0.3, or with "
            "--folds 5 --fold 0"
        )
    if not targets_of(path):
        raise RecipeError(f"data: {path} has neither {labeled}/masks/ nor labels.csv; give at least one of them")
    declared(settings)
    if settings.validate and settings.validation is None:
        raise RecipeError("--validate: a folder has no validation part; cut one off with --validation 0.15")
    if settings.classes is not None:
        raise RecipeError(f"--classes: those of {path} are in its labels.csv; leave it out")
    if settings.mask_classes == "type":
        raise RecipeError(f"--mask-classes type: {path} has the mask classes of its files; leave it out")


def declared(settings: Settings) -> dict[str, Any]:
    """What a run says of the files of folders, as `read_folder` takes it.

    Raises:
        RecipeError: If a flag is none of it.
    """
    try:
        values = None if settings.mask_values is None else dict(map(parse_key, settings.mask_values.split()))
    except ValueError as error:
        raise RecipeError(f"--mask-values: {error}") from error
    name = settings.mask_name or "{}"
    try:
        check_mask_name(name)
        limits = None if settings.intensity_range is None else check_intensity_range(settings.intensity_range)
    except ValueError as error:
        raise RecipeError(with_flags(str(error))) from error
    return {
        "num_classes": settings.arguments.get("num_classes"),
        "mask_values": values,
        "intensity_range": limits,
        "keep_aspect": settings.keep_aspect,
        "mask_name": name,
        "mask_class_names": settings.mask_class_names,
    }


def with_flags(text: str) -> str:
    """An error of reading, with the flags that set what it speaks of."""
    names = ("num_classes", "mask_values", "intensity_range", "mask_name", "mask_class_names")
    flags = [f"--{name.replace('_', '-')}" for name in names if name in text]
    return f"{text} ({', '.join(flags)})" if flags else text


def targets_of(path: Path) -> tuple[str, ...]:
    """The tasks that a folder has targets for."""
    masks, table = path / labeled_part(path) / "masks", path / "labels.csv"
    found = {"segmentation": masks.exists(), "classification": _has_classes(table)}
    return tuple(task for task, there in found.items() if there)


def _has_classes(table: Path) -> bool:
    """Whether there are image classes; what is wrong with a table says whoever reads the folder."""
    try:
        return table.exists() and read_labels(table).has_classes
    except (OSError, ValueError):
        return True


def read_parts(settings: Settings) -> FolderParts:
    """The images of a folder by what a run does with them.

    Raises:
        RecipeError: If the folder cannot be read or parted, or a task has no targets in the part test; the message
            names them.
    """
    arguments = declared(settings)
    with naming_flags("data", "data"):
        try:
            folder = read_folder(settings.data, settings.image_size, **arguments)
        except ValueError as error:
            raise ValueError(with_flags(str(error))) from error
    if len(folder.class_names) == 1 and settings.arguments["tasks"] != "segmentation":
        more = ", or learn the masks alone with --tasks segmentation" if folder.labeled.masks is not None else ""
        raise RecipeError(
            f"data: {settings.data}/labels.csv has the one class {folder.class_names[0]!r}; give images of at least two"
            f"{more}"
        )
    for name, targets in (("masks", folder.labeled.masks), ("labels", folder.labeled.labels)):
        if folder.test is not None and targets is not None and getattr(folder.test, name) is None:
            where = "test/masks" if name == "masks" else "rows of labels.csv for the images in test"
            raise RecipeError(f"data: {settings.data} has no {where}; nothing could be scored")
    chosen = {name: getattr(settings, name) for name in ("test", "validation", "folds", "fold")}
    labeled = None if settings.labeled == 1.0 else settings.labeled
    try:
        return part_folder(folder, settings.seed, labeled, **chosen)
    except ValueError as error:
        text = str(error)
        for name in (*chosen, "labeled"):
            text = text.replace(f"`{name}`", f"--{name}").replace(f"{name}=", f"--{name} ")
        raise RecipeError(f"{text} (data: {settings.data})") from error
