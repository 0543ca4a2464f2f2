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
        The same images with masks of 1 + C classes; 255 stays.

    Raises:
        ValueError: If there are no masks or image classes, or the masks have several classes already.
    """
    if images.masks is None or images.labels is None:
        raise ValueError("masks by class need masks and image classes; the images lack one of them")
    if images.num_classes != 2:
        raise ValueError(f"masks by class need masks of 2 classes, background and lesion, found {images.num_classes}")
    types = (images.labels + 1).astype("uint8")[:, None, None]
    masks = np.where(images.masks == 1, types, images.masks)
    num_classes = 1 + max(len(images.class_names), int(types.max()))
    present = None
    if images.present is not None:
        background, lesion = images.present.T
        present = np.eye(num_classes, dtype=bool)[images.labels + 1] & lesion[:, None]
        present[:, 0] = background
    own = None
    if images.own_masks is not None:
        pairs = zip(images.own_masks, images.labels.tolist(), strict=True)
        own = [
            mask._replace(values=np.where(mask.values == 1, 1 + label, mask.values).astype("uint8"))
            for mask, label in pairs
        ]
    rules = images.rules
    if rules is not None and len(images.class_names) == num_classes - 1:
        rules = dataclasses.replace(rules, mask_class_names=("background", *images.class_names))
    return dataclasses.replace(
        images, masks=masks, num_classes=num_classes, present=present, own_masks=own, rules=rules
    )
