"""One's own images in the place of a data set: a folder whose parts are the split."""

from __future__ import annotations

import re

from keras_semimed.data import Folder, FolderParts, part_folder, read_folder
from keras_semimed.data.reading_flags import with_flags
from keras_semimed.experiments.command_line.settings import Settings
from keras_semimed.experiments.console import RecipeError, naming_flags
from keras_semimed.experiments.inputs.folder_checks import needs_unlabeled, reading_of


def read_parts(settings: Settings) -> FolderParts:
    """The images of a folder by what a run does with them.

    Raises:
        RecipeError: If the folder cannot be read or parted, or a task has no targets in the part test; the message
            names them.
    """
    tasks = settings.arguments["tasks"]
    try:
        with naming_flags("data", "data"):
            folder = read_folder(
                settings.data,
                settings.image_size,
                **reading_of(settings),
                need_unlabeled=needs_unlabeled(settings),
            )
    except RecipeError as error:
        raise RecipeError(with_flags(str(error))) from error
    if len(folder.class_names) == 1 and tasks != "segmentation":
        more = ", or learn the masks alone with --tasks segmentation" if folder.labeled.masks is not None else ""
        raise RecipeError(
            f"data: {settings.data}/labels.csv has the one class {folder.class_names[0]!r}; give images of at least two"
            f"{more}"
        )
    _check_scored(settings, folder)
    chosen = {name: getattr(settings, name) for name in ("test", "validation", "folds", "fold")}
    labeled = None if settings.labeled == 1.0 else settings.labeled
    try:
        return part_folder(folder, settings.seed, labeled, **chosen)
    except ValueError as error:
        text = str(error)
        for name in (*chosen, "labeled"):
            text = re.sub(rf"`{name}`=|\b{name}=", f"--{name} ", text).replace(f"`{name}`", f"--{name}")
        raise RecipeError(f"{text} (data: {settings.data})") from error


def _check_scored(settings: Settings, folder: Folder) -> None:
    """Refuses a folder whose part test lacks the targets of a task that is learnt."""
    targets = {
        "segmentation": ("masks", "test/masks", "classification"),
        "classification": ("labels", "rows of labels.csv for the images in test", "segmentation"),
    }
    for task, (name, where, other) in targets.items():
        if folder.test is None or settings.arguments["tasks"] == other or getattr(folder.labeled, name) is None:
            continue
        if getattr(folder.test, name) is None:
            spared = getattr(folder.labeled, targets[other][0]) is not None
            more = f", or leave the {task} out with --tasks {other}" if spared else ""
            raise RecipeError(f"data: {settings.data} has no {where}; nothing could be scored; give them{more}")
