"""Several image sets as one, to train on together, and apart again, to be scored one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from keras_semimed.data.arrays import ImageSet


def concatenate(sets: Mapping[str, ImageSet]) -> ImageSet:
    """Joins image sets; an image is called `<set>/<name>` from then on, and so is a group, which keeps them unique.

    Args:
        sets: Image sets by name, such as `{"kvasir_seg": …, "cvc_clinicdb": …}`. All have images of one size, the
            same mask classes and the same kinds of targets.

    Returns:
        All images in the order given. An image without a group is a group of its own where another set has groups.

    Raises:
        ValueError: If `sets` is empty, a name is empty or holds a slash, or the sets do not fit together.
    """
    if not sets:
        raise ValueError("sets is empty; give at least one image set")
    for key in sets:
        if not key or "/" in key:
            raise ValueError(f"an image set is called {key!r}; it needs a name without a slash")
    _check_alike(sets)
    values = list(sets.values())
    first = values[0]
    padded = any(images.areas is not None for images in values)
    grouped = any(images.groups is not None for images in values)
    measured = any(images.spacing is not None for images in values)
    return ImageSet(
        names=[f"{key}/{name}" for key, images in sets.items() for name in images.names],
        images=np.concatenate([images.images for images in values]),
        masks=None if first.masks is None else np.concatenate([images.masks for images in values]),
        labels=None if first.labels is None else np.concatenate([images.labels for images in values]),
        groups=[f"{key}/{group}" for key, images in sets.items() for group in _groups(images)] if grouped else None,
        class_names=first.class_names,
        num_classes=first.num_classes,
        areas=np.concatenate([_areas(images) for images in values]) if padded else None,
        present=None
        if any(images.present is None for images in values)
        else np.concatenate([images.present for images in values]),
        own_masks=None
        if any(images.own_masks is None for images in values)
        else [mask for images in values for mask in images.own_masks or ()],
        spacing=np.concatenate([_spacing(images) for images in values]) if measured else None,
        rules=first.rules if all(images.rules == first.rules for images in values) else None,
    )


def separate(images: ImageSet) -> dict[str, ImageSet]:
    """Takes apart what `concatenate` joined, or any selection of it; names and groups stay as they are.

    Returns:
        The image set of each `<set>` in `<set>/<name>`, in the order of their first images.

    Raises:
        ValueError: If a name does not say which set its image comes from.
    """
    members: dict[str, list[str]] = {}
    for name in images.names:
        key, slash, _ = name.partition("/")
        if not slash:
            raise ValueError(f"{name!r} does not say which set it comes from; expected <set>/<name>")
        members.setdefault(key, []).append(name)
    return {key: images.select(names) for key, names in members.items()}


def _areas(images: ImageSet) -> np.ndarray:
    if images.areas is not None:
        return images.areas
    height, width = images.images.shape[1:3]
    return np.tile(np.array([0, 0, height, width], "int32"), (len(images), 1))


def _spacing(images: ImageSet) -> np.ndarray:
    return np.full((len(images), 2), np.nan) if images.spacing is None else images.spacing


def _groups(images: ImageSet) -> Sequence[str]:
    return images.names if images.groups is None else images.groups


def _check_alike(sets: Mapping[str, ImageSet]) -> None:
    """Raises ValueError unless all sets have images, targets and classes of one kind."""
    (first_key, first), *others = sets.items()
    for key, images in others:
        for what, a, b in (
            ("images of (height, width, channels)", first.images.shape[1:], images.images.shape[1:]),
            ("masks", first.masks is not None, images.masks is not None),
            ("labels", first.labels is not None, images.labels is not None),
            ("image classes", tuple(first.class_names), tuple(images.class_names)),
            ("num_classes", first.num_classes, images.num_classes),
        ):
            if a != b:
                raise ValueError(f"{first_key} and {key} differ in {what}: {a} and {b}; make them equal")
