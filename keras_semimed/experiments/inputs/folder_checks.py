"""What is said about a folder of one's own and what it must hold, looked at before Keras is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_semimed.data.argument_checks import check_class_names, check_intensity_range, check_num_classes
from keras_semimed.data.folder.files import labeled_part
from keras_semimed.data.folder.labels import read_labels
from keras_semimed.data.folder.mask_names import check_mask_name
from keras_semimed.data.images.mask_values import parse_keys, settled
from keras_semimed.data.reading_flags import with_flags
from keras_semimed.experiments.command_line.bundles import is_folder
from keras_semimed.experiments.command_line.settings import Settings
from keras_semimed.experiments.console import RecipeError


def check_folder(settings: Settings) -> None:
    """Refuses a folder without one of the parts, and what it has no use for, before anything is read.

    Raises:
        RecipeError: Which names the folder or the flag.
    """
    path = Path(settings.data)
    labeled, drawn = labeled_part(path), settings.test is not None or settings.folds is not None
    if not (path / labeled).is_dir():
        raise RecipeError(f"data: {path} has no folder {labeled}/; a run needs {labeled}/ and unlabeled/")
    if not (path / "unlabeled").is_dir() and needs_unlabeled(settings):
        if (path / "unlabelled").exists():
            raise RecipeError(f"data: {path / 'unlabelled'} is not read; call it unlabeled")
        raise RecipeError(
            f"data: {path} has no folder unlabeled/; put the other images there, or give --labeled 0.5 or a number, "
            "which hides the targets of the other annotated images"
        )
    if (path / "test").is_dir() and drawn:
        flag = "--test" if settings.test is not None else "--folds"
        raise RecipeError(f"{flag} must be left out: the folder has a part test/ of its own (data: {path})")
    if not (path / "test").is_dir() and not drawn:
        raise RecipeError(
            f"data: {path} has no folder test/; cut a test part off the annotated images with --test 0.3, or with "
            "--folds 5 --fold 0"
        )
    if not targets_of(path):
        raise RecipeError(
            f"data: {path} has neither {labeled}/masks/ nor labels.csv with classes; give at least one of them"
        )
    if settings.validate and settings.validation is None:
        raise RecipeError("--validate: a folder has no validation part; cut one off with --validation 0.15")
    if settings.classes is not None:
        raise RecipeError(f"--classes: those of {path} are in its labels.csv; leave it out")
    if settings.mask_classes == "type":
        raise RecipeError(f"--mask-classes type: {path} has the mask classes of its files; leave it out")
    try:
        check_reading(reading_of(settings))
    except ValueError as error:
        raise RecipeError(with_flags(str(error))) from error


def needs_unlabeled(settings: Settings) -> bool:
    """Whether no annotated images can take the place of unlabelled ones, and the method looks at them."""
    return settings.labeled == 1.0 and settings.method != "supervised"


def reading_of(settings: Settings) -> dict[str, Any]:
    """What the flags say about the files of a folder, as `read_folder` and `read_image_folder` take it.

    Raises:
        ValueError: If a word of `--mask-value` is no value of a mask with its class.
    """
    limits = settings.intensity_range
    return {
        "num_classes": settings.arguments.get("num_classes") if is_folder(settings.data) else None,
        "mask_values": None if settings.mask_value is None else parse_keys(settings.mask_value),
        "class_names": settings.class_names,
        "intensity_range": None if limits is None else tuple(limits),
        "keep_aspect": bool(settings.keep_aspect),
        "mask_name": "{}" if settings.mask_name is None else settings.mask_name,
        "mask_class_names": settings.mask_class_names,
    }


def check_reading(reading: dict[str, Any]) -> None:
    """Raises ValueError where what is said about the files makes no sense, whatever they are."""
    check_mask_name(reading["mask_name"])
    if reading["num_classes"] is not None:
        check_num_classes(reading["num_classes"])
    if reading["intensity_range"] is not None:
        check_intensity_range(reading["intensity_range"])
    for argument in ("class_names", "mask_class_names"):
        if reading[argument] is not None:
            check_class_names(argument, reading[argument])
    rule = settled(reading["mask_values"], reading["num_classes"], [])
    names, count = reading["mask_class_names"], rule.num_classes
    if names is not None and len(names) != count:
        raise ValueError(
            f"`mask_class_names` must be {count} different names, background first, found {list(names)}; with more "
            "mask classes give `num_classes`"
        )


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
