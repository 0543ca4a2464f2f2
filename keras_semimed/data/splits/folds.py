"""Splits for k-fold cross-validation: every image is tested once, and a group is on one side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from keras_semimed.data.splits.parts import (
    Split,
    check_arguments,
    count_of,
    hashed,
    members_of,
    split_rest,
    take_groups,
)


def draw_part(
    groups: Sequence[list[str]], classes: dict[str, int], seed: int, part: str, wanted: int | float, whole: int
) -> set[str]:
    """Draws a part of about the size that is asked for.

    Args:
        groups: Names of the images that stay together.
        classes: Class of each image, each of which the part has in proportion.
        seed: Another seed gives another part.
        part: What it is called: `"test"` or `"validation"`.
        wanted: Number of its images, or their share of `whole`.
        whole: Number of all images.

    Returns:
        The names in the part.

    Raises:
        ValueError: If there would be none, or all.
    """
    count = count_of(wanted, whole, part)
    found = take_groups(groups, classes, seed, part, count / whole) if count < whole else set()
    if not found:
        raise ValueError(f"`{part}`={wanted} of {whole} annotated images gives none, or all; ask for another number")
    return found


def k_fold_splits(
    names: Sequence[str],
    labels: Sequence[int] | np.ndarray | None,
    groups: Sequence[str] | None,
    seed: int,
    folds: int = 5,
    labeled: int | float = 72,
    validation_fraction: float = 0.15,
    balanced: bool = False,
) -> tuple[Split, ...]:
    """Cuts images into folds of nearly equal size and class mix, and returns the split that tests each of them.

    Args:
        names: Unique image names. Their order does not matter.
        labels: Class of each image; None for images without classes.
        groups: Group of each image (patient, sequence, near-duplicates), which stays whole; None for none.
        seed: Seed; another seed gives other folds.
        folds: Number of folds, at least 2.
        labeled: Number of labelled images, or their share of the training images of a split, below 1. A smaller
            labelled part lies in a larger one.
        validation_fraction: Part of the training images that is cut off for validation.
        balanced: Label as many images of one class as of another instead of in proportion.

    Raises:
        ValueError: If there are fewer groups than folds, or as `keras_semimed.data.leak_safe_split`.
    """
    labels = [0] * len(names) if labels is None else labels
    groups = names if groups is None else groups
    fold_of = assign_folds(names, labels, groups, seed, folds)
    arguments = (labeled, validation_fraction, balanced)
    return tuple(fold_split(names, labels, groups, fold_of, fold, seed, *arguments) for fold in range(1, folds + 1))


def fold_split(
    names: Sequence[str],
    labels: Sequence[int] | np.ndarray | None,
    groups: Sequence[str] | None,
    fold_of: Mapping[str, int],
    test_fold: int,
    seed: int = 0,
    labeled: int | float = 72,
    validation_fraction: float = 0.15,
    balanced: bool = False,
) -> Split:
    """The split whose test part is one of given folds, such as published ones; the rest is drawn by seed.

    Args:
        names: As in `k_fold_splits`.
        labels: As in `k_fold_splits`.
        groups: As in `k_fold_splits`; None lets the validation part cut through what belongs together.
        fold_of: Fold of each image; further names are left out.
        test_fold: The fold to test.
        seed: Seed of the validation part and the labelled images.
        labeled: As in `k_fold_splits`.
        validation_fraction: As in `k_fold_splits`.
        balanced: As in `k_fold_splits`.

    Raises:
        ValueError: If an image has no fold, the fold is empty or holds all images, a group lies in it and outside, or
            as `keras_semimed.data.leak_safe_split`.
    """
    labels = [0] * len(names) if labels is None else labels
    groups = names if groups is None else groups
    check_arguments(names, labels, groups, 0, validation_fraction)
    unknown = [name for name in names if name not in fold_of]
    if unknown:
        raise ValueError(f"fold_of has no fold for {unknown[0]!r}; give one for each image")
    test = {name for name in names if fold_of[name] == test_fold}
    if not 0 < len(test) < len(names):
        raise ValueError(f"test_fold={test_fold} holds {len(test)} of {len(names)} images; choose a fold with a part")
    members = members_of(names, groups)
    for group, inside in members.items():
        if 0 < len(test.intersection(inside)) < len(inside):
            raise ValueError(f"group {group!r} lies in fold {test_fold} and outside; a group has to be in one fold")
    classes = dict(zip(names, labels, strict=True))
    return split_rest(members.values(), classes, test, seed, labeled, validation_fraction, balanced)


def assign_folds(
    names: Sequence[str], labels: Sequence[int] | np.ndarray, groups: Sequence[str], seed: int, folds: int
) -> dict[str, int]:
    """Returns the fold, from 1, of each image; a pure function of names, classes, groups and seed.

    Groups go, the largest first and else in the order of the seed, to the fold that has the fewest images of their
    classes, so that folds differ by one image of a class where no group is larger.

    Raises:
        ValueError: If `folds` is below 2 or above the number of groups, or the arguments do not fit together.
    """
    check_arguments(names, labels, groups, 0, 0)
    members = members_of(names, groups).values()
    if not 2 <= folds <= len(members):
        raise ValueError(f"folds={folds}: {len(members)} groups of images can be cut into 2 to {len(members)} folds")
    classes = dict(zip(names, labels, strict=True))
    counts = [Counter[int]() for _ in range(folds)]
    fold_of: dict[str, int] = {}
    for group in sorted(members, key=lambda group: (-len(group), hashed(seed, "fold", group[0]))):
        own = Counter(classes[name] for name in group)
        chosen = min(range(folds), key=lambda fold: (sum(counts[fold][c] for c in own), counts[fold].total(), fold))
        counts[chosen] += own
        fold_of |= dict.fromkeys(group, chosen + 1)
    return fold_of
