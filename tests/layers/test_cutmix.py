"""CutMix: boxes of the stated size, one box for whatever belongs to an image."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import CutMix
from keras_semimed.layers.cutmix import neighbour
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


def test_the_stream_goes_on_after_loading(tmp_path):
    layer = CutMix(seed=5)
    drawn(layer)
    again = CutMix.from_config(layer.get_config())
    again.random_state.assign(layer.random_state)
    np.testing.assert_array_equal(drawn(again), drawn(layer))
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer)).seed == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"probability": 2}, "probability"), ({"area": (0.5, 0.2)}, "area"), ({"aspect": (0, 1)}, "aspect")],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        CutMix(**arguments)
