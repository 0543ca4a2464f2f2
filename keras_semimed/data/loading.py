"""From the name of a data set to batches for `fit`, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from keras_semimed.configuration import check_choice
from keras_semimed.data import tfds
from keras_semimed.data.argument_checks import check_image_size
from keras_semimed.data.arrays import EvaluationBatches, ImageSet, SemiSupervisedBatches, mention_vanished
from keras_semimed.data.cache import Stack, memory_limit
from keras_semimed.data.cards import Card, card
from keras_semimed.data.images.letterbox import present
from keras_semimed.data.images.levels import LEVELS
from keras_semimed.data.images.packed_masks import PackedMask
from keras_semimed.data.images.rules import ReadingRules
from keras_semimed.data.mask_types import masks_by_class
from keras_semimed.data.packed import is_packed, of_classes, read_packed
from keras_semimed.data.readers.examples import Example, read_examples
from keras_semimed.data.splits.named import check_split, split_image_set
from keras_semimed.data.splits.parts import Split


def load_image_set(
    name: str,
    image_size: int = 224,
    manual_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    classes: Sequence[str] | None = None,
    keep_aspect: bool = False,
    cache: str = "auto",
) -> ImageSet:
    """Reads a whole data set, each image decoded and resized once.

    It is read through its TFDS builder, which prepares it once under `data_dir`; where TensorFlow is missing, the
    same images are read directly from `manual_dir` (or made, for phantoms).

    Args:
        name: `"busi"`, `"bus_bra"`, `"udiat"`, `"kvasir_seg"`, `"cvc_clinicdb"`, `"phantom_ultrasound"` or
            `"phantom_endoscopy"`.
        image_size: Height and width of the images, in pixels.
        manual_dir: Folder or zip that was downloaded by hand; see `describe(name)`. With TFDS needed only once. Or a
            file `.npz` that `semimed data pack` made of it.
        data_dir: Where TFDS keeps prepared data; its default when None.
        classes: Image classes to keep; a label is the position in `classes`. None keeps all.
        keep_aspect: Keep the aspect ratio and pad, instead of stretching to a square; masks are 255 in the padding, and
            the set's `areas` say where the images are.
        cache: Where the images are kept: `"memory"`, `"disk"` (a temporary file) or `"auto"`: in memory unless they
            take more than a quarter of it. A line says which.

    Returns:
        The images sorted by name, 3 channels, with masks, groups and, where the set has image classes, labels.

    Raises:
        ValueError: If `name` or a class is unknown, or a file is damaged or does not fit; the message names it.
        FileNotFoundError: If `manual_dir` does not exist or holds no such data.
    """
    facts = card(name)
    if classes is not None and not facts.class_names:
        raise ValueError(f"classes={tuple(classes)}: {name} has no image classes; leave classes out")
    classes = facts.class_names if classes is None else tuple(classes)
    unknown = [value for value in classes if value not in facts.class_names]
    if unknown or (facts.class_names and not classes):
        raise ValueError(f"classes={classes}: {name} has the classes {facts.class_names}; choose among them")
    check_image_size(image_size)
    limit = memory_limit(cache)
    if manual_dir is not None and is_packed(manual_dir):
        if keep_aspect:
            raise ValueError(f"`keep_aspect` must be False for {manual_dir}, whose images were stretched when packed")
        return of_classes(read_packed(manual_dir, name, image_size), classes)
    examples = tfds.tfds_examples(name, manual_dir, data_dir) if tfds.available() else read_examples(name, manual_dir)
    return _collect(examples, image_size, facts, classes, keep_aspect, limit)


def load(
    name: str,
    labeled: int | float = 72,
    split: str | Split = "paper",
    seed: int = 0,
    image_size: int = 224,
    batch_size: int = 8,
    unlabeled_batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    validate: bool = False,
    manual_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    classes: Sequence[str] | None = None,
    test: int | float | None = None,
    intersect: bool = False,
    keep_aspect: bool = False,
    cache: str = "auto",
    unlabeled_targets: bool = False,
    mask_classes: Literal["lesion", "type"] = "lesion",
) -> tuple[SemiSupervisedBatches, EvaluationBatches, Split]:
    """Reads a data set, splits it and returns batches for `fit` and for evaluation.

    Args:
        name: As in `load_image_set`.
        labeled: Number of labelled images, or their share of the training images.
        split: The name of a split that the set has (see `describe` and `split_image_set`) or a `Split`.
        seed: Seed of the split and of the order of the batches.
        image_size: Height and width of the images, in pixels.
        batch_size: Labelled images a batch.
        unlabeled_batch_size: Unlabelled images a batch. None means `batch_size`.
        steps_per_epoch: Batches an epoch. None means one pass over the unlabelled images.
        validate: Evaluate on the validation part, which then is not trained on, instead of the test part.
        manual_dir: As in `load_image_set`.
        data_dir: As in `load_image_set`.
        classes: As in `load_image_set`, but None keeps the classes that papers use (benign and malignant of BUSI).
        test: As in `split_image_set`.
        intersect: As in `split_image_set`.
        keep_aspect: As in `load_image_set`.
        cache: As in `load_image_set`.
        unlabeled_targets: As in `SemiSupervisedBatches`, for an oracle.
        mask_classes: `"lesion"`, the masks as they are, or `"type"`: the lesion of an image has the image's class
            (`masks_by_class`).

    Returns:
        Training batches, evaluation batches (test, or validation with `validate`) and the split.

    Raises:
        ValueError: If an argument is unknown or does not fit the data, as in `load_image_set` and `split_image_set`.
        FileNotFoundError: As in `load_image_set`.
    """
    facts = card(name)
    if not isinstance(split, Split):
        check_split(name, split, test, intersect)
    classes = (facts.study_classes or None) if classes is None else classes
    check_choice("mask_classes", mask_classes, ("lesion", "type"))
    images = load_image_set(name, image_size, manual_dir, data_dir, classes, keep_aspect, cache)
    images = masks_by_class(images) if mask_classes == "type" else images
    parts = split
    if not isinstance(parts, Split):
        parts = split_image_set(images, name, parts, seed, labeled, test, intersect)
    train = SemiSupervisedBatches(
        labeled=images.select(parts.labeled),
        unlabeled=images.select(parts.train_unlabeled(validate)),
        batch_size=batch_size,
        unlabeled_batch_size=unlabeled_batch_size,
        steps_per_epoch=steps_per_epoch,
        seed=seed,
        unlabeled_targets=unlabeled_targets,
    )
    held_out = images.select(parts.validation if validate else parts.test)
    return train, EvaluationBatches(held_out, batch_size), parts


class _Row(NamedTuple):
    """What is kept of an example beside its pixels."""

    name: str
    mask: np.ndarray
    label: int | None
    group: str
    area: np.ndarray
    classes: tuple[int, ...]
    own_mask: PackedMask


def _collect(
    examples: Iterable[Example], size: int, facts: Card, classes: Sequence[str], keep_aspect: bool, limit: float
) -> ImageSet:
    """Resizes the examples of the wanted classes and keeps them, sorted by name."""
    rules = ReadingRules(
        size, keep_aspect=keep_aspect, masks=LEVELS, class_names=tuple(classes), mask_class_names=facts.mask_names
    )
    rows, stack = [], Stack(limit)
    for example in examples:
        label = example.label
        if label is not None:
            if facts.class_names[label] not in classes:
                continue
            label = classes.index(facts.class_names[label])
        fitted = rules.fit(example.image, example.mask)
        assert fitted.mask is not None and fitted.own_mask is not None
        stack.append(fitted.image)
        rows.append(_Row(example.name, fitted.mask, label, example.group, fitted.area, fitted.classes, fitted.own_mask))
    if not rows:
        raise ValueError(f"the data hold no image of the classes {tuple(classes)}")
    order = sorted(range(len(rows)), key=lambda index: rows[index].name)
    rows = [rows[index] for index in order]
    images = stack.rows(order)
    print(f"{len(rows)} images of {size} x {size} kept {stack.place} ({stack.nbytes / 2**20:.0f} MiB)")
    found = ImageSet(
        names=[row.name for row in rows],
        images=images,
        masks=np.stack([row.mask for row in rows]),
        labels=np.array([row.label for row in rows], "int32") if facts.class_names else None,
        groups=[row.group for row in rows],
        class_names=tuple(classes),
        num_classes=facts.num_classes,
        areas=np.stack([row.area for row in rows]) if keep_aspect else None,
        present=present([row.classes for row in rows], facts.num_classes),
        rules=rules,
        own_masks=[row.own_mask for row in rows],
    )
    mention_vanished(found)
    return found
