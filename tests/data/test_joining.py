"""Image sets joined and taken apart."""

import numpy as np
import pytest

from keras_semimed.data import ImageSet, SemiSupervisedBatches, concatenate, separate


def image_set(count, start=0, groups=None, **changes):
    values = np.arange(start, start + count, dtype="uint8")
    arguments = {
        "names": [str(i) for i in range(count)],
        "images": np.broadcast_to(values[:, None, None, None], (count, 4, 4, 3)).copy(),
        "masks": np.zeros((count, 4, 4), "uint8"),
        "groups": groups,
    }
    return ImageSet(**{**arguments, **changes})


def test_names_and_groups_stay_unique_and_rows_together():
    joined = concatenate({"a": image_set(3, groups=["x", "x", "y"]), "b": image_set(2, start=10)})
    assert list(joined.names) == ["a/0", "a/1", "a/2", "b/0", "b/1"]
    assert list(joined.groups) == ["a/x", "a/x", "a/y", "b/0", "b/1"]
    np.testing.assert_array_equal(joined.images[:, 0, 0, 0], [0, 1, 2, 10, 11])
    assert joined.masks.shape == (5, 4, 4) and joined.labels is None
    assert concatenate({"a": image_set(2)}).groups is None


def test_targets_and_classes_are_kept():
    labels = {"labels": np.array([1, 0], "int32"), "class_names": ("p", "q"), "num_classes": 3}
    joined = concatenate({"a": image_set(2, **labels), "b": image_set(2, **labels)})
    np.testing.assert_array_equal(joined.labels, [1, 0, 1, 0])
    assert joined.class_names == ("p", "q") and joined.num_classes == 3
    assert concatenate({"a": image_set(2, masks=None), "b": image_set(2, masks=None)}).masks is None


def test_areas_of_padded_sets_are_kept():
    padded = image_set(2, areas=np.array([[0, 1, 4, 3], [1, 0, 2, 4]], "int32"))
    joined = concatenate({"a": padded, "b": image_set(1)})
    np.testing.assert_array_equal(joined.areas, [[0, 1, 4, 3], [1, 0, 2, 4], [0, 0, 4, 4]])


def test_a_selection_is_taken_apart():
    joined = concatenate({"a": image_set(3), "b": image_set(2, start=10)})
    parts = separate(joined.select(["b/1", "a/2", "b/0"]))
    assert {key: list(images.names) for key, images in parts.items()} == {"b": ["b/1", "b/0"], "a": ["a/2"]}
    np.testing.assert_array_equal(parts["b"].images[:, 0, 0, 0], [11, 10])
    with pytest.raises(ValueError, match="'0' does not say which set"):
        separate(image_set(1))


def test_joined_sets_train_together():
    joined = concatenate({"a": image_set(3), "b": image_set(3, start=10)})
    inputs, targets = SemiSupervisedBatches(joined.select(["a/0", "b/0"]), joined, 2, 6)[0]
    assert sorted(inputs["unlabeled"][:, 0, 0, 0]) == [0, 1, 2, 10, 11, 12]
    assert sorted(inputs["labeled"][:, 0, 0, 0]) == [0, 10] and set(targets) == {"mask"}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": np.zeros((2, 4, 5, 3), "uint8"), "masks": np.zeros((2, 4, 5), "uint8")}, "differ in images of"),
        ({"masks": None}, "a and b differ in masks: True and False"),
        ({"labels": np.zeros(2, "int32")}, "differ in labels"),
        ({"class_names": ("p",)}, "differ in image classes"),
        ({"num_classes": 3}, "differ in num_classes: 2 and 3"),
    ],
)
def test_sets_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        concatenate({"a": image_set(2), "b": image_set(2, **change)})


@pytest.mark.parametrize("sets", [{}, {"": image_set(1)}, {"a/b": image_set(1)}])
def test_sets_need_names(sets):
    with pytest.raises(ValueError, match="sets is empty|needs a name without a slash"):
        concatenate(sets)
