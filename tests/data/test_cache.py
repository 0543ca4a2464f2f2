"""Images kept on disk give the same batches as images in memory."""

import os

import numpy as np
import pytest

from keras_semimed.data import ImageSet, SemiSupervisedBatches, load_image_set
from keras_semimed.data.cache import Stack, memory_limit


def made_rows(count=7):
    return np.random.default_rng(0).integers(0, 256, (count, 4, 5, 3)).astype("uint8")


@pytest.mark.parametrize("limit, place", [(7 * 60, "in memory"), (3 * 60, "on disk"), (-1, "on disk")])
def test_stack_gives_its_rows_in_the_order_asked_for(tmp_path, limit, place):
    rows, order = made_rows(), [3, 1, 6, 0, 2, 5, 4]
    stack = Stack(limit, tmp_path)
    for row in rows:
        stack.append(row)
    assert stack.place.startswith(place) and stack.nbytes == rows.nbytes
    kept = stack.rows(order)
    assert kept.shape == rows.shape and kept.dtype == np.uint8
    np.testing.assert_array_equal(np.asarray(kept), rows[order])
    np.testing.assert_array_equal(kept[2:5], rows[order][2:5])
    np.testing.assert_array_equal(kept[np.array([6, 0])], rows[[4, 3]])
    np.testing.assert_array_equal(kept[1], rows[1])
    assert os.listdir(tmp_path) == []  # the file is the process' own: nothing to clear away


def test_batches_from_disk_are_those_from_memory(tmp_path):
    rows = made_rows()
    stack = Stack(-1, tmp_path)
    for row in rows:
        stack.append(row)
    names, labels = list("abcdefg"), np.arange(7, dtype="int32")
    sets = [ImageSet(names, images, labels=labels) for images in (rows, stack.rows(range(7)))]
    batches = [SemiSupervisedBatches(images.select("bdf"), images.select("aceg"), 2, 3, seed=4) for images in sets]
    for step in range(4):
        for part in ("labeled", "unlabeled"):
            np.testing.assert_array_equal(*(dataset.at(step)[0][part] for dataset in batches))


def test_load_image_set_says_where_the_images_are(monkeypatch, capsys):
    from keras_semimed.data.readers import examples

    monkeypatch.setattr("keras_semimed.data.tfds.available", lambda: False)
    monkeypatch.setattr(examples, "PHANTOMS", 4)
    memory, disk = (load_image_set("phantom_ultrasound", 32, cache=cache) for cache in ("memory", "disk"))
    said = capsys.readouterr().out
    assert "4 images of 32 x 32 kept in memory" in said and "kept on disk" in said
    np.testing.assert_array_equal(memory.images, np.asarray(disk.images))
    with pytest.raises(ValueError, match="cache='tape'"):
        memory_limit("tape")
