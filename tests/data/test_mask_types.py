from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keras_semimed.data import ImageSet, masks_by_class


def images(masks, labels=(0, 1), **more):
    masks = np.array(masks, "uint8")
    pixels = np.zeros((*masks.shape, 1), "uint8")
    names = [str(index) for index in range(len(masks))]
    labels = None if labels is None else np.array(labels, "int32")
    return ImageSet(
        names, pixels, masks, labels, class_names=("benign", "malignant") if labels is not None else (), **more
    )


def test_the_lesion_has_the_class_of_its_image():
    found = masks_by_class(images([[[0, 1], [255, 1]], [[1, 0], [0, 255]]]))
    assert found.masks.tolist() == [[[0, 1], [255, 1]], [[2, 0], [0, 255]]]
    assert found.num_classes == 3 and found.labels.tolist() == [0, 1]


def test_what_it_needs():
    with pytest.raises(ValueError, match="need masks and image classes"):
        masks_by_class(images([[[0, 1]]], labels=None))
    with pytest.raises(ValueError, match="masks of 2 classes"):
        masks_by_class(images([[[0, 2]], [[0, 1]]], num_classes=3))


def test_the_lesion_of_an_image_of_an_unknown_class_is_ignored():
    unknown = images([[[0, 1], [255, 1]], [[1, 0], [0, 255]]], labels=(255, 1))
    found = masks_by_class(unknown)
    assert found.masks.tolist() == [[[0, 255], [255, 255]], [[2, 0], [0, 255]]]
    assert found.num_classes == 3
    found = masks_by_class(dataclasses.replace(unknown, present=np.ones((2, 2), bool)))
    assert found.present.tolist() == [[True, False, False], [True, False, True]]
