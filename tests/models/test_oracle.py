"""The truth of the unlabelled images as pseudo-labels, from the data set to the loss."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.data import ImageSet, SemiSupervisedBatches, as_tf_data
from keras_semimed.models import FixMatch
from tests.models.common import SIZE, arguments, image_set

STILL = {"horizontal_flip": False, "scale": (1.0, 1.0), "shift": 0.0}


def known(changes: dict | None = None, **options) -> SemiSupervisedBatches:
    """Batches with the truth of the unlabelled images, a stripe of which is unknown."""
    labeled, unlabeled = image_set(4, 0), image_set(6, 1)
    unlabeled.masks[:, :3] = 255
    fields = {
        "names": unlabeled.names,
        "images": unlabeled.images,
        "masks": unlabeled.masks,
        "labels": unlabeled.labels,
    }
    unlabeled = ImageSet(**{**fields, **(changes or {})})
    return SemiSupervisedBatches(labeled, unlabeled, 2, 2, steps_per_epoch=2, **options)


def test_batches_bring_the_truth_only_where_it_is_asked_for():
    assert set(known()[0][1]) == {"mask", "label"}
    data = known(unlabeled_targets=True)
    for step in range(4):
        (_, chosen), (inputs, targets) = data.indices(step), data.at(step)
        assert set(targets) == {"mask", "label", "unlabeled_mask", "unlabeled_label"}
        np.testing.assert_array_equal(inputs["unlabeled"], data.unlabeled.images[chosen])
        np.testing.assert_array_equal(targets["unlabeled_mask"], data.unlabeled.masks[chosen])
        np.testing.assert_array_equal(targets["unlabeled_label"], data.unlabeled.labels[chosen])
        assert (targets["unlabeled_mask"][:, :3] == 255).all()
    assert set(known({"labels": None}, unlabeled_targets=True)[0][1]) == {"mask", "label", "unlabeled_mask"}
    with pytest.raises(ValueError, match="unlabeled_targets=True: .* neither masks nor labels"):
        known({"labels": None, "masks": None}, unlabeled_targets=True)


def test_processes_share_the_truth_out():
    whole, shards = known(unlabeled_targets=True), [known(unlabeled_targets=True, shard=(i, 2)) for i in range(2)]
    for name, values in whole[1][1].items():
        np.testing.assert_array_equal(np.concatenate([shard[1][1][name] for shard in shards]), values)


def test_the_pipeline_brings_it_too():
    pytest.importorskip("tensorflow")
    data = known(unlabeled_targets=True)
    for index, (_, targets) in enumerate(as_tf_data(data).as_numpy_iterator()):
        for name, values in data.at(index)[1].items():
            np.testing.assert_array_equal(targets[name], values)


def test_both_halves_bring_the_area_that_is_no_padding():
    def padded(images: ImageSet, side: int) -> ImageSet:
        areas = np.array([[0, i, SIZE, SIZE - side] for i in range(len(images))], "int32")
        return ImageSet(images.names, images.images, images.masks, images.labels, areas=areas)

    data = SemiSupervisedBatches(padded(image_set(4), 1), padded(image_set(5, 1), 2), 2, 3)
    (labeled, unlabeled), (inputs, _) = data.indices(0), data[0]
    np.testing.assert_array_equal(inputs["labeled_area"], [[0, i, SIZE, SIZE - 1] for i in labeled])
    np.testing.assert_array_equal(inputs["unlabeled_area"], [[0, i, SIZE, SIZE - 2] for i in unlabeled])
    model = FixMatch(**arguments(tasks="segmentation", views=STILL))
    view, _ = model.training_views(*({k: ops.convert_to_tensor(v) for k, v in part.items()} for part in data[0]))
    expected = np.zeros((2, SIZE, SIZE))
    for row, index in enumerate(labeled):
        expected[row, :, index : SIZE - 1] = 1
    np.testing.assert_array_equal(ops.convert_to_numpy(view.inside), expected)


def test_a_model_learns_what_is_known_and_nothing_else():
    model = FixMatch(**arguments(pseudo_labels="truth", threshold=1.0, views=STILL))
    model.compile()
    data = known(unlabeled_targets=True)
    history = model.fit(data, verbose=0).history
    assert history["mask_selected"][0] == pytest.approx((SIZE - 3) / SIZE) and history["label_selected"][0] == 1.0
    masks = np.concatenate([data.at(step)[1]["unlabeled_mask"] for step in range(2)])
    assert 0 < (masks == 1).mean() and history["mask_selected_class_1"][0] == 1.0
    assert history["mask_unlabeled"][0] > 0
    with pytest.raises(ValueError, match="SemiSupervisedBatches.*unlabeled_targets=True"):
        model.compute_loss(*({k: ops.convert_to_tensor(v) for k, v in part.items()} for part in known()[0]), {})
