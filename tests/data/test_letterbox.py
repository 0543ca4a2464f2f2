import numpy as np
import pytest

from keras_semimed.data.images.letterbox import letterbox, unletterbox


@pytest.mark.parametrize("shape, area", [((20, 40), [2, 0, 6, 8]), ((40, 10), [0, 3, 8, 5]), ((16, 16), [0, 0, 8, 8])])
def test_the_longer_side_fills_the_square(shape, area):
    image = np.full((*shape, 3), 200, "uint8")
    mask = np.zeros(shape, "uint8")
    mask[: shape[0] // 2] = 1
    boxed = letterbox(image, mask, 8)
    assert boxed.area.tolist() == area
    inside = np.zeros((8, 8), bool)
    inside[area[0] : area[2], area[1] : area[3]] = True
    assert (boxed.image[inside] == 200).all() and (boxed.image[~inside] == 0).all()
    assert (boxed.mask[~inside] == 255).all() and set(boxed.mask[inside]) == {0, 1}
    cut = unletterbox(boxed.mask, boxed.area)
    half = (area[2] - area[0]) // 2
    assert (cut[:half] == 1).all() and (cut[half:] == 0).all()


def test_a_very_narrow_image_keeps_a_line():
    assert letterbox(np.ones((1000, 1, 1), "uint8"), None, 16).area.tolist() == [0, 7, 16, 8]
