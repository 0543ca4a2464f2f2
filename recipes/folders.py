"""One's own images in the place of a data set: a folder whose parts are the split."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from keras_semimed.data import ImageSet, Split, read_folder
from keras_semimed.data.folder.labels import read_labels
from recipes.console import RecipeError, naming_flags
from recipes.settings import Settings

PARTS = ("labeled", "unlabeled", "test")
"""What a run needs of a folder; see `keras_semimed.data.read_folder` for the layout."""


def check_folder(settings: Settings) -> None:
    """Refuses a folder without one of the parts, and what it has no use for, before anything is read.

    Raises:
        RecipeError: Which names the folder or the flag.
    """
    path = Path(settings.data)
    for part in PARTS:
        if not (path / part).is_dir():
            raise RecipeError(f"data: {path} has no folder {part}/; a run needs {', '.join(f'{p}/' for p in PARTS)}")
    if not targets_of(path):
        raise RecipeError(f"data: {path} has neither labeled/masks/ nor labels.csv; give at least one of them")
    if settings.validate:
        raise RecipeError(f"--validate: {path} has no validation part; the part test/ is scored")
    if settings.classes is not None:
        raise RecipeError(f"--classes: those of {path} are in its labels.csv; leave it out")
    if settings.mask_classes == "type":
        raise RecipeError(f"--mask-classes type: {path} has the mask classes of its files; leave it out")


def targets_of(path: Path) -> tuple[str, ...]:
    """The tasks that a folder has targets for."""
    found = {"segmentation": (path / "labeled" / "masks").exists(), "classification": _has_classes(path / "labels.csv")}
    return tuple(task for task, there in found.items() if there)


def _has_classes(table: Path) -> bool:
    """Whether there are image classes; what is wrong with a table says whoever reads the folder."""
    try:
        return table.exists() and read_labels(table).has_classes
    except (OSError, ValueError):
        return True


def read_parts(settings: Settings) -> tuple[dict[str, ImageSet], Split]:
    """The images of a folder by part, and its split; where two parts share a name, all are called `<part>/<name>`.

    Raises:
        RecipeError: If the folder cannot be read, or a task has no targets in the part test; the message names them.
    """
    with naming_flags("data", "data"):
        folder = read_folder(settings.data, settings.image_size)
    assert folder.test is not None  # `check_folder`
    if len(folder.class_names) == 1 and settings.arguments["tasks"] != "segmentation":
        more = ", or learn the masks alone with --tasks segmentation" if folder.labeled.masks is not None else ""
        raise RecipeError(
            f"data: {settings.data}/labels.csv has the one class {folder.class_names[0]!r}; give images of at least two"
            f"{more}"
        )
    parts = dict(zip(PARTS, (folder.labeled, folder.unlabeled, folder.test), strict=True))
    for name, targets in (("masks", folder.labeled.masks), ("labels", folder.labeled.labels)):
        if targets is not None and getattr(folder.test, name) is None:
            where = "test/masks" if name == "masks" else "rows of labels.csv for the images in test"
            raise RecipeError(f"data: {settings.data} has no {where}; nothing could be scored")
    names = [name for images in parts.values() for name in images.names]
    if len(set(names)) < len(names):
        parts = {
            part: dataclasses.replace(images, names=[f"{part}/{name}" for name in images.names])
            for part, images in parts.items()
        }
    labeled, unlabeled, test = (tuple(parts[part].names) for part in PARTS)
    return parts, Split(labeled, unlabeled, (), test)
