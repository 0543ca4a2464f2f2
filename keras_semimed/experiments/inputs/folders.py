"""One's own images in the place of a data set: a folder whose parts are the split."""

from __future__ import annotations

from pathlib import Path

from keras_semimed.data import FolderParts, part_folder, read_folder
from keras_semimed.data.folder.files import labeled_part
from keras_semimed.data.folder.labels import read_labels
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
    if settings.validate and settings.validation is None:
        raise RecipeError("--validate: a folder has no validation part; cut one off with --validation 0.15")
    if settings.classes is not None:
        raise RecipeError(f"--classes: those of {path} are in its labels.csv; leave it out")
    if settings.mask_classes == "type":
        raise RecipeError(f"--mask-classes type: {path} has the mask classes of its files; leave it out")


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
    with naming_flags("data", "data"):
        folder = read_folder(settings.data, settings.image_size)
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
