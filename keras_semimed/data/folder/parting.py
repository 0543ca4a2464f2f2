"""A test part and a validation part for a folder of images that has none, with no patient on two sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from keras_semimed.data.arrays import EvaluationBatches, ImageSet, SemiSupervisedBatches
from keras_semimed.data.folder.files import picture_digest
from keras_semimed.data.folder.reading import Folder, read_folder
from keras_semimed.data.images.mask_values import Key
from keras_semimed.data.splits.duplicates import THRESHOLDS, near_duplicate_pairs, thumbnails
from keras_semimed.data.splits.folds import assign_folds, draw_part
from keras_semimed.data.splits.parts import PARTS, Split, members_of, take_labeled


class FolderParts(NamedTuple):
    """The images of a folder by what is done with them; no name of the split is in two parts."""

    labeled: ImageSet
    unlabeled: ImageSet
    validation: ImageSet | None
    test: ImageSet | None
    split: Split

    def near_duplicates(self) -> list[tuple[str, str]]:
        """Pairs of images that look alike, one of which is trained on and the other tested or validated with."""
        trained, scored = [self.labeled, self.unlabeled], [part for part in (self.validation, self.test) if part]
        names = [name for part in (*trained, *scored) for name in part.names]
        border = sum(len(part) for part in trained)
        found = thumbnails(chain.from_iterable(part.images for part in (*trained, *scored)), "grey")
        pairs = near_duplicate_pairs(found, THRESHOLDS["grey"])
        return [(names[first], names[second]) for first, second, _ in pairs if (first < border) != (second < border)]


def part_folder(
    folder: Folder,
    seed: int = 0,
    labeled: int | float | None = None,
    test: int | float | None = None,
    validation: int | float | None = None,
    folds: int | None = None,
    fold: int | None = None,
) -> FolderParts:
    """Cuts parts off the annotated images of a folder by seed; all images of a group, and copies, stay on one side.

    Unlabelled images of a group that is tested or validated with, and copies, are left out; a line counts them. Where
    parts of the folder share names, all images are called `<part>/<name>`, part being where they lie.

    Args:
        folder: What `read_folder` found.
        seed: Another seed gives other parts.
        labeled: Number of annotated images to learn from with their targets, or their share of those that are trained
            on; the targets of the others are hidden from the training. None: all. In a folder without `unlabeled/` the
            others are the unlabelled images; where there are none, the labelled ones are, without their targets.
        test: Number of test images, or their share of the annotated ones, each class in proportion. None: those of
            the folder's own `test`, if it has one.
        validation: The same for a part that is cut off the rest and not trained on. None: none.
        folds: Cut the annotated images into so many folds in the place of `test`.
        fold: Number of the fold to test on, from 0.

    Raises:
        ValueError: If the folder has a test part and another is asked for, a part would be empty or nothing is left to
            learn from, or `fold` is no fold; the message names the argument.
    """
    folder = _renamed(folder)
    annotated = folder.labeled
    labels = [0] * len(annotated) if annotated.labels is None else annotated.labels.tolist()
    groups = annotated.names if annotated.groups is None else annotated.groups
    if folder.test is not None and (test is not None or folds is not None):
        argument = "`test`" if test is not None else "`folds`"
        raise ValueError(f"{argument} must be left out: the folder has a part test/ of its own")
    if (folds is None) != (fold is None) or (folds is not None and test is not None):
        raise ValueError("`folds` and `fold` must be given together, and without `test`")
    pictures = [picture_digest(image) for image in annotated.images]
    classes = dict(zip(annotated.names, labels, strict=True))
    together = _joined_by_copies(groups, pictures)
    members = members_of(annotated.names, together)
    held_out: set[str] = set()
    if folds is not None:
        if not 0 <= fold < folds:  # type: ignore[operator]
            raise ValueError(f"`fold` must be within 0 and {folds - 1}, found {fold}")
        fold_of = assign_folds(annotated.names, labels, together, seed, folds)
        held_out = {name for name, number in fold_of.items() if number == fold + 1}  # type: ignore[operator]
    elif test is not None:
        held_out = draw_part(list(members.values()), classes, seed, "test", test, len(annotated))
    rest = [group for group in members.values() if group[0] not in held_out]
    watched: set[str] = set()
    if validation is not None:
        watched = draw_part(rest, classes, seed, "validation", validation, len(annotated) - len(held_out))
    trained = [name for name in annotated.names if name not in held_out | watched]
    if not trained:
        raise ValueError("`test` and `validation` leave no annotated image to learn from; ask for fewer")
    chosen = set(trained) if labeled is None else take_labeled(trained, seed, labeled, len(trained))
    scored_groups = {group for name, group in zip(annotated.names, groups, strict=True) if name in held_out | watched}
    shown = {picture for name, picture in zip(annotated.names, pictures, strict=True) if name in held_out | watched}
    hidden = annotated.select([name for name in trained if name not in chosen]) if len(chosen) < len(trained) else None
    unlabeled, left_out = None, 0
    if folder.unlabeled is not None:
        unlabeled, left_out = _without(folder.unlabeled, scored_groups, shown)
    if left_out:
        print(
            f"{left_out} unlabelled images belong to groups that are tested or validated with, or are copies of their "
            "images, and are left out"
        )
    learnt = annotated.select([name for name in annotated.names if name in chosen])
    parts = FolderParts(
        learnt,
        _without_targets([images for images in (hidden, unlabeled) if images is not None] or [learnt]),
        annotated.select(sorted(watched)) if watched else None,
        annotated.select(sorted(held_out)) if held_out else folder.test,
        Split((), (), (), ()),
    )
    names = {part: tuple(sorted(getattr(parts, part).names)) if getattr(parts, part) else () for part in PARTS}
    if hidden is None and unlabeled is None:
        names["unlabeled"] = ()
    return parts._replace(split=Split(**names))


@overload
def from_folder(
    path: str | Path, *args: Any, test: None = None, folds: None = None, **kwargs: Any
) -> SemiSupervisedBatches: ...


@overload
def from_folder(path: str | Path, *args: Any, **kwargs: Any) -> tuple[SemiSupervisedBatches, EvaluationBatches]: ...


def from_folder(  # type: ignore[misc]
    path: str | Path,
    image_size: int = 224,
    channels: int = 3,
    num_classes: int | None = None,
    batch_size: int = 8,
    unlabeled_batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    seed: int = 0,
    mask_values: Mapping[Key, int] | None = None,
    class_names: Sequence[str] | None = None,
    intensity_range: tuple[float, float] | None = None,
    keep_aspect: bool = False,
    mask_name: str = "{}",
    mask_class_names: Sequence[str] | None = None,
    labeled: int | float | None = None,
    test: int | float | None = None,
    folds: int | None = None,
    fold: int | None = None,
) -> SemiSupervisedBatches | tuple[SemiSupervisedBatches, EvaluationBatches]:
    """Reads a folder into batches for `fit`; its layout and the errors are those of `read_folder`.

    With `test` or `folds` the annotated images are parted, no patient on two sides, and batches for `evaluate` come
    back as well. A folder's own test part is reached with `read_folder(path).test`.

    Args:
        path: The folder.
        image_size: As in `read_folder`.
        channels: As in `read_folder`.
        num_classes: As in `read_folder`.
        batch_size: Labelled images a batch.
        unlabeled_batch_size: Unlabelled images a batch. None means `batch_size`.
        steps_per_epoch: Batches an epoch. None means one pass over the unlabelled images.
        seed: Seed of the order.
        mask_values: As in `read_folder`.
        class_names: As in `read_folder`.
        intensity_range: As in `read_folder`.
        keep_aspect: As in `read_folder`.
        mask_name: As in `read_folder`.
        mask_class_names: As in `read_folder`.
        labeled: As in `part_folder`.
        test: As in `part_folder`.
        folds: As in `part_folder`.
        fold: As in `part_folder`.

    Returns:
        Training batches; with `test` or `folds`, also those of the test part.
    """
    folder = read_folder(
        path,
        image_size,
        channels,
        num_classes,
        mask_values,
        class_names,
        intensity_range,
        keep_aspect,
        mask_name,
        mask_class_names,
        need_unlabeled=labeled is None,
    )
    sizes = (batch_size, unlabeled_batch_size, steps_per_epoch, seed)
    if labeled is None and test is None and folds is None and fold is None:
        assert folder.unlabeled is not None
        return SemiSupervisedBatches(folder.labeled, folder.unlabeled, *sizes)
    parts = part_folder(folder, seed, labeled, test, folds=folds, fold=fold)
    train = SemiSupervisedBatches(parts.labeled, parts.unlabeled, *sizes)
    if test is None and folds is None:
        return train
    assert parts.test is not None
    print(f"split: {parts.split.summary()}; {len(parts.near_duplicates())} pairs of near-duplicates across it")
    return train, EvaluationBatches(parts.test, batch_size)


def _renamed(folder: Folder) -> Folder:
    """The folder with names that occur once."""
    parts = {"labeled": folder.labeled, "unlabeled": folder.unlabeled, "test": folder.test}
    apart = named_apart({name: images for name, images in parts.items() if images is not None})
    return replace(folder, labeled=apart["labeled"], unlabeled=apart.get("unlabeled"), test=apart.get("test"))


def named_apart(parts: Mapping[str, ImageSet]) -> dict[str, ImageSet]:
    """The same images with names that occur once: `<part>/<name>` for all of them where two parts share one.

    Args:
        parts: Images by what is done with them.
    """
    names = [name for images in parts.values() for name in images.names]
    if len(set(names)) == len(names):
        return dict(parts)
    return {part: replace(images, names=[f"{part}/{name}" for name in images.names]) for part, images in parts.items()}


def _without_targets(sets: Sequence[ImageSet]) -> ImageSet:
    """All images without targets; those that have no group are a group of their own."""
    first, *others = sets
    if not others and first.masks is None and first.labels is None:
        return first
    grouped = any(images.groups is not None for images in sets)
    return ImageSet(
        names=[name for images in sets for name in images.names],
        images=np.concatenate([np.asarray(images.images[:]) for images in sets]),
        groups=[group for images in sets for group in images.groups or images.names] if grouped else None,
        num_classes=sets[-1].num_classes,
        areas=None if first.areas is None else np.concatenate([images.areas for images in sets]),
        rules=sets[-1].rules,
    )


def _joined_by_copies(groups: Sequence[str], pictures: Sequence[str | None]) -> list[str]:
    """The groups, those that share a picture being one, called like the first of them."""
    first: dict[str, str] = {}
    joined = list(groups)
    for group, picture in zip(groups, pictures, strict=True):
        other = group if picture is None else first.setdefault(picture, group)
        if other != group:
            old, new = (joined[groups.index(each)] for each in (group, other))
            joined = [new if each == old else each for each in joined]
    return joined


def _without(images: ImageSet, groups: set[str], pictures: set[str | None]) -> tuple[ImageSet, int]:
    """The images of other groups and with other pictures, and how many are left out."""
    if not groups and not pictures:  # nothing is cut off
        return images, 0
    own: Sequence[str | None] = images.groups or [None] * len(images)
    kept = [
        name
        for name, group, image in zip(images.names, own, images.images, strict=True)
        if group not in groups and ((picture := picture_digest(image)) is None or picture not in pictures)
    ]
    if not kept:
        raise ValueError(
            "every unlabelled image belongs to a group that is tested or validated with, or is a copy of one of its "
            "images; ask for fewer"
        )
    return (images, 0) if len(kept) == len(images) else (images.select(kept), len(images) - len(kept))
