"""Masks whose classes are the types of lesions."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_semimed.data.arrays import ImageSet


def masks_by_class(images: ImageSet) -> ImageSet:
    """Gives the lesion of each image the image's class: 0 background, 1 the first class of images, 2 the second, ...

    A test of what a method does with several foreground classes, where the data have one lesion an image and its type.

    Args:
        images: Masks of background and lesion, and image classes.

    Returns:
        The same images with masks of 1 + C classes; 255 stays, and lesions of images of an unknown class become it.

    Raises:
        ValueError: If there are no masks or image classes, or the masks have several classes already.
    """
    if images.masks is None or images.labels is None:
        raise ValueError("masks by class need masks and image classes; the images lack one of them")
    if images.num_classes != 2:
        raise ValueError(f"masks by class need masks of 2 classes, background and lesion, found {images.num_classes}")
    known = images.labels != 255
    types = np.where(known, images.labels + 1, 255).astype("uint8")
    masks = np.where(images.masks == 1, types[:, None, None], images.masks)
    num_classes = 1 + max(len(images.class_names), int(types[known].max(initial=0)))
    present = None
    if images.present is not None:
        background, lesion = images.present.T
        present = np.eye(num_classes, dtype=bool)[np.where(known, types, 0)] & lesion[:, None]
        present[:, 0] = background
    own = None
    if images.own_masks is not None:
        pairs = zip(images.own_masks, types, strict=True)
        own = [mask._replace(values=np.where(mask.values == 1, kind, mask.values)) for mask, kind in pairs]
    rules = images.rules
    if rules is not None and len(images.class_names) == num_classes - 1:
        rules = dataclasses.replace(rules, mask_class_names=("background", *images.class_names))
    return dataclasses.replace(
        images, masks=masks, num_classes=num_classes, present=present, own_masks=own, rules=rules
    )
