"""What a folder of images can be trained for, and what a training from the shell has to be told in addition."""

from __future__ import annotations

from typing import NamedTuple

from keras_semimed.data.folder.files import FolderFiles
from keras_semimed.data.splits.folds import draw_part
from keras_semimed.data.splits.parts import members_of

SHARES = (0.3, 0.5, 0.2, 1)
"""Of the annotated images, or their number: what is proposed for a test part, the first that works."""


class Verdict(NamedTuple):
    """What keeps training from starting, and flags that it cannot do without."""

    problems: list[str]
    needs: list[str]


def cut_off(files: FolderFiles) -> list[str]:
    """Says what a run needs for a test part where a folder has none: a flag, or images.

    Args:
        files: What the folder holds.
    """
    if files.test or (files.path / "test").exists() or not files.labeled:
        return []
    for wanted in SHARES:
        if _leaves_all_classes(files, wanted):
            return [f"--test {wanted}, which cuts a test part off the annotated images: there is no test/"]
    return ["a folder test/ of images to score: too few images or patients are annotated to cut it off"]


def hide_targets(files: FolderFiles) -> list[str]:
    """Says what a run needs where a folder has no unlabelled images.

    Args:
        files: What the folder holds.
    """
    if files.unlabeled:
        return []
    return [
        "--labeled 0.5, or a number of images to learn from, which hides the targets of the others: there is no "
        "unlabeled/"
    ]


def _leaves_all_classes(files: FolderFiles, wanted: int | float) -> bool:
    """Whether a test part of that size is none of nothing and leaves images of each class, as a run cuts it."""
    names = [image.name for image in files.labeled]
    classes = {name: image.label or "" for name, image in zip(names, files.labeled, strict=True)}
    groups = members_of(names, [image.group or f"image {image.name}" for image in files.labeled])
    number = {label: index for index, label in enumerate(sorted(set(classes.values())))}
    try:
        held_out = draw_part(
            list(groups.values()),
            {name: number[label] for name, label in classes.items()},
            0,
            "test",
            wanted,
            len(names),
        )
    except ValueError:
        return False
    return {classes[name] for name in names if name not in held_out} == set(classes.values())


def learnable(files: FolderFiles, class_names: tuple[str, ...] | None, lesion: bool) -> Verdict:
    """Says which of masks and image classes can be learnt and scored, where the folder offers one that cannot.

    Args:
        files: What the folder holds.
        class_names: The image classes where they are declared.
        lesion: Whether a labelled mask shows a lesion.
    """
    reasons = {}
    if any(image.mask is not None for image in files.labeled):
        reasons["segmentation"] = _no_masks(files, lesion)
    if any(image.label is not None for image in files.labeled):
        reasons["classification"] = _no_classes(files, class_names)
    wrong = [reason for reason in reasons.values() if reason is not None]
    possible = [task for task, reason in reasons.items() if reason is None]
    if not wrong or not possible:
        return Verdict(wrong, [])
    return Verdict([], [f"--tasks {possible[0]}, as {wrong[0]}"])


def _no_masks(files: FolderFiles, lesion: bool) -> str | None:
    """Why masks cannot be learnt and scored."""
    if not lesion:
        return (
            f"{files.path}: no labelled mask holds a pixel of a class above 0, the background; give masks with a "
            "lesion, or check their values"
        )
    if files.test and all(image.mask is None for image in files.test):
        return f"{files.path}: there is no test/masks, so that masks could not be scored"
    return None


def _no_classes(files: FolderFiles, declared: tuple[str, ...] | None) -> str | None:
    """Why image classes cannot be learnt and scored."""
    table = files.path / "labels.csv"
    labels = {str(image.label) for image in (*files.labeled, *files.test) if image.label is not None}
    names, present = declared or tuple(sorted(labels)), {image.label for image in files.labeled}
    if missing := [name for name in names if name not in present]:
        return f"{table}: no labelled image has the class {', '.join(missing)}; label at least one of each class"
    if len(names) == 1:
        return f"{table}: the one class is {names[0]!r}; image classes are learnt from two on"
    if files.test and all(image.label is None for image in files.test):
        return f"{table}: there is no row with a class for the images in test, so that classes could not be scored"
    return None
