"""CutMix: boxes of the stated size, one box for whatever belongs to an image."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import CutMix, clipped_boxes, neighbour
from tests.layers.compiled import compiled


def drawn(layer, count=64, height=40, width=30):
    step = compiled(lambda x: layer.boxes(ops.shape(x)[0], height, width), layer.variables)
    return ops.convert_to_numpy(step(ops.zeros((count, 1))))


def test_boxes_are_rectangles_of_the_stated_area_inside_the_image():
    boxes = drawn(CutMix(probability=1.0, area=(0.1, 0.3)))
    for box in boxes:
        rows, columns = box.any(1), box.any(0)
        np.testing.assert_array_equal(box, rows[:, None] * columns[None, :])
        assert (np.diff(np.flatnonzero(rows)) == 1).all() and (np.diff(np.flatnonzero(columns)) == 1).all()
    shares = boxes.mean((1, 2))
    assert 0.07 < shares.min() < 0.15 and 0.25 < shares.max() < 0.34
    assert drawn(CutMix(probability=1.0), 3000, 16, 16).any(0).all()  # no place that no box reaches


def test_probability_is_the_share_of_images_with_a_box():
    share = drawn(CutMix(probability=0.5, seed=3), 2000, 16, 16).any((1, 2)).mean()
    assert abs(share - 0.5) < 0.05
    assert not drawn(CutMix(probability=0.0)).any()


def test_the_same_box_for_images_and_labels():
    random = np.random.default_rng(0)
    images = random.uniform(size=(4, 8, 8, 3)).astype("float32")
    labels = random.integers(0, 3, (4, 8, 8)).astype("int32")
    layer = CutMix(probability=1.0, area=(0.2, 0.5))
    boxes = layer.boxes(4, 8, 8)
    mixed = ops.convert_to_numpy(
        layer.mix(ops.convert_to_tensor(images), neighbour(ops.convert_to_tensor(images)), boxes)
    )
    mixed_labels = ops.convert_to_numpy(
        layer.mix(ops.convert_to_tensor(labels), neighbour(ops.convert_to_tensor(labels)), boxes)
    )
    boxes = ops.convert_to_numpy(boxes)
    for n, y, x in np.ndindex(4, 8, 8):
        source = n - 1 if boxes[n, y, x] else n
        np.testing.assert_array_equal(mixed[n, y, x], images[source, y, x])
        assert mixed_labels[n, y, x] == labels[source, y, x]
    assert mixed_labels.dtype == np.int32


def box_by_hand(area, centre, height, width):
    box = np.zeros((height, width), "float32")
    halves = [int(np.floor(side * np.sqrt(area))) // 2 for side in (height, width)]
    top, left = (max(middle - half, 0) for middle, half in zip(centre, halves, strict=True))
    box[top : max(centre[0] + halves[0], 0), left : max(centre[1] + halves[1], 0)] = 1
    return box


@pytest.mark.parametrize(
    ("height", "width", "area", "centre", "rows", "columns"),
    [(64, 64, 0.25, (8, 40), (0, 23), (24, 55)), (20, 24, 0.25, (0, 12), (0, 4), (6, 17))],
)
def test_the_clipped_boxes_of_the_specifications(height, width, area, centre, rows, columns):
    (box,) = ops.convert_to_numpy(clipped_boxes(area, np.array([centre], "int32"), height, width))
    expected = np.zeros((height, width))
    expected[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = 1
    np.testing.assert_array_equal(box, expected)


@pytest.mark.parametrize("one_area", [False, True])
def test_clipped_boxes(one_area):
    random = np.random.default_rng(0)
    height, width = 17, 30
    areas = random.uniform(0, 1, 40).astype("float32")
    areas[:2] = 0, 1
    areas = areas[7] if one_area else areas
    centres = random.integers(0, [height, width], (40, 2)).astype("int32")
    found = compiled(lambda a, c: clipped_boxes(a, c, height, width), [])(
        ops.convert_to_tensor(areas), ops.convert_to_tensor(centres)
    )
    each = np.broadcast_to(areas, 40)
    expected = np.stack([box_by_hand(a, c, height, width) for a, c in zip(each, centres, strict=True)])
    np.testing.assert_array_equal(ops.convert_to_numpy(found), expected)


def test_clipped_placement_centres_boxes_anywhere():
    boxes = drawn(CutMix(probability=1.0, area=(0.25, 0.25), aspect=(1, 1), placement="clipped"), 500, 40, 30)
    half_height, half_width = 10, 7
    centres = set()
    for box in boxes:
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        middle = [
            values[-1] + 1 - half if values[0] == 0 else values[0] + half
            for values, half in ((rows, half_height), (columns, half_width))
        ]
        np.testing.assert_array_equal(box, box_by_hand(0.25, middle, 40, 30))
        centres.add(tuple(middle))
    rows, columns = zip(*centres, strict=True)
    assert set(rows) == set(range(40)) and set(columns) == set(range(30))
    tall = drawn(CutMix(probability=1.0, area=(0.04, 0.04), aspect=(4, 4), placement="clipped"), 50, 40, 40)
    assert tall.any(2).sum(1).max() == 16 and tall.any(1).sum(1).max() == 4


def test_per_batch_all_images_get_boxes_or_none():
    layer = CutMix(probability=0.5, per_batch=True, seed=1)
    step = compiled(lambda x: layer.boxes(ops.shape(x)[0], 16, 16), layer.variables)
    batches = [ops.convert_to_numpy(step(ops.zeros((6, 1)))) for _ in range(40)]
    shares = [boxes.any((1, 2)).mean() for boxes in batches]
    assert set(shares) == {0.0, 1.0} and 0.25 < np.mean(shares) < 0.75
    mixed = batches[shares.index(1.0)]
    assert any((box != mixed[0]).any() for box in mixed)


def test_the_stream_goes_on_after_loading(tmp_path):
    layer = CutMix(seed=5)
    drawn(layer)
    again = CutMix.from_config(layer.get_config())
    again.random_state.assign(layer.random_state)
    np.testing.assert_array_equal(drawn(again), drawn(layer))
    layer = CutMix(0.2, (0.1, 0.3), (0.5, 2), seed=5, placement="clipped", per_batch=True)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config() and copy.seed == 5 and copy.per_batch


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probability": 2}, "probability"),
        ({"area": (0.5, 0.2)}, "area"),
        ({"aspect": (0, 1)}, "aspect"),
        ({"placement": "centre"}, "placement"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        CutMix(**arguments)
