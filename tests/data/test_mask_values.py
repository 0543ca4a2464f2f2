"""What the values and colours of masks stand for."""

import numpy as np
import pytest

from keras_semimed.data.images.mask_values import MaskValues, found_values, parse_key, settled
from keras_semimed.data.images.pixels import Picture


def grey(*values, lossy=False):
    return Picture(np.array([values], "int32"), lossy=lossy)


RED, BLUE = (255, 0, 0), (0, 0, 200)


def colours(*values, lossy=False):
    return Picture(np.array([values], "int32"), lossy=lossy)


@pytest.mark.parametrize(
    ("mask", "num_classes", "classes"),
    [
        (grey(0, 1, 1), 2, [0, 1, 1]),
        (grey(0, 255), 2, [0, 1]),
        (grey(0, 65535), 2, [0, 1]),
        (grey(0, 1, 255), 2, [0, 1, 255]),
        (grey(0, 2, 255), 3, [0, 2, 255]),
        (grey(0, 255), 3, [0, 255]),
        (grey(0, 3, 250, 255, lossy=True), 2, [0, 0, 1, 1]),
        (grey(0, 0, lossy=True), 2, [0, 0]),
    ],
)
def test_values_that_speak_for_themselves(mask, num_classes, classes):
    rule = settled(None, num_classes, [found_values(mask, "m.png")])
    np.testing.assert_array_equal(rule.classes(mask, "m.png"), [classes])


def test_255_everywhere_has_two_meanings_beside_class_indices():
    found = [found_values(mask, f"{name}.png") for name, mask in (("a", grey(0, 1)), ("b", grey(255, 255)))]
    with pytest.raises(ValueError, match="b.png: is 255 everywhere, and a.png holds 0 and 1, .*say so by mask_values"):
        settled(None, 2, found)
    assert settled({0: 0, 1: 1, 255: 1}, 2, found).num_classes == 2
    told = [*found, found_values(grey(0, 255), "c.png")]  # which says what 255 is
    np.testing.assert_array_equal(settled(None, 2, told).classes(grey(255, 255), "b.png"), [[1, 1]])
    whole = [found_values(mask, "m.png") for mask in (grey(0, 255), grey(255, 255))]
    np.testing.assert_array_equal(settled(None, 2, whole).classes(grey(255, 255), "m.png"), [[1, 1]])


def test_colours_are_found_with_black_as_background():
    masks = [colours((0, 0, 0), RED), grey(0, 0), colours(BLUE, RED)]
    rule = settled(None, 3, [found_values(mask, "m.png") for mask in masks])
    np.testing.assert_array_equal(rule.classes(masks[2], "m.png"), [[1, 2]])  # sorted: blue first
    np.testing.assert_array_equal(rule.classes(masks[1], "m.png"), [[0, 0]])
    assert str(rule) == "(0, 0, 0) -> 0, (0, 0, 200) -> 1, (255, 0, 0) -> 2"
    for num_classes in (2, 4):  # one colour too many, one too few
        rule = settled(None, num_classes, [found_values(mask, "m.png") for mask in masks])
        with pytest.raises(ValueError, match=r"m.png: holds .*say which class a colour is"):
            rule.classes(masks[0], "m.png")


def test_declared_values_colours_and_ranges():
    rule = MaskValues({0: 0, range(128, 256): 1, RED: 2, BLUE: 255}, 3)
    np.testing.assert_array_equal(rule.classes(grey(0, 128, 200), "m.png"), [[0, 1, 1]])
    np.testing.assert_array_equal(rule.classes(colours((0, 0, 0), RED, BLUE), "m.png"), [[0, 2, 255]])
    with pytest.raises(ValueError, match=r"m.png: holds \[7\], which mask_values does not declare"):
        rule.classes(grey(0, 7), "m.png")
    near = colours((9, 3, 0), (250, 8, 20), (20, 0, 190), lossy=True)
    np.testing.assert_array_equal(rule.classes(near, "m.jpg"), [[0, 2, 255]])
    assert settled({0: 0, 9: 4}, None, []).num_classes == 5


@pytest.mark.parametrize(
    ("mask", "num_classes", "message"),
    [
        (grey(0, 7), 2, r"m.png: holds \[7\]; expected classes 0..1 or 255"),
        (grey(0, 100, 255), 2, r"soft edges"),
        (grey(0, 1, lossy=True), 2, "values up to 1 and is lossy"),
        (grey(0, 255, lossy=True), 3, "is lossy"),
        (grey(0, 3), 3, r"\[3\]; expected classes 0..2"),
    ],
)
def test_values_that_do_not_speak_for_themselves(mask, num_classes, message):
    with pytest.raises(ValueError, match=message):
        settled(None, num_classes, [found_values(mask, "m.png")]).classes(mask, "m.png")


def test_255_with_two_meanings_is_refused():
    masks = [grey(0, 255), grey(0, 1, 255)]
    found = [found_values(mask, f"{index}.png") for index, mask in enumerate(masks)]
    with pytest.raises(ValueError, match="0.png: .*1.png .*255 may be the lesion or what is to be ignored"):
        settled(None, 2, found)
    assert settled({0: 0, 1: 1, 255: 255}, 2, found).num_classes == 2


def test_a_picture_is_no_mask():
    with pytest.raises(ValueError, match="m.png: holds 5000 different values"):
        found_values(grey(*range(5000)), "m.png")


@pytest.mark.parametrize(
    ("values", "message"),
    [({}, "is empty"), ({-1: 0}, "no grey value"), ({0: 2}, "is class 2"), ({(1, 2): 0}, "no colour")],
)
def test_wrong_declarations(values, message):
    with pytest.raises(ValueError, match=f"mask_values.*{message}"):
        MaskValues(values, 2)
    with pytest.raises(ValueError, match="7 is class 0 and 1"):
        MaskValues({range(10): 0, 7: 1}, 2)


def test_values_on_the_command_line():
    assert parse_key("255=1") == (255, 1)
    assert parse_key("128..255=1") == (range(128, 256), 1)
    assert parse_key("255,0,0=2") == (RED, 2)
    for text in ("255", "a=1", "1,2=0"):
        with pytest.raises(ValueError, match="is no mask value"):
            parse_key(text)
