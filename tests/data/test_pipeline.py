"""The tf.data pipeline gives the batches of the PyDataset, epoch after epoch, and takes host-side policies."""

import keras
import numpy as np
import pytest

from keras_semimed.data import SemiSupervisedBatches, as_tf_data, from_arrays
from keras_semimed.models import LoCo
from tests.data.test_arrays import numbered_set

pytest.importorskip("tensorflow")


def test_order_epoch_and_cardinality():
    batches = SemiSupervisedBatches(numbered_set(3), numbered_set(5), 2, 3, seed=1)
    dataset = as_tf_data(batches)
    assert int(dataset.cardinality()) == len(batches) == 2
    for epoch in (0, 2):
        batches.epoch = epoch
        for index, (inputs, targets) in enumerate(dataset.as_numpy_iterator()):
            expected = batches.at(2 * epoch + index)
            for found, wanted in zip((inputs, targets), expected, strict=True):
                assert found.keys() == wanted.keys()
                for name in wanted:
                    np.testing.assert_array_equal(found[name], wanted[name])


def test_fit_takes_the_policys_images_in_the_epochs_order(monkeypatch):
    images = np.random.default_rng(0).integers(0, 200, (6, 32, 32, 3)).astype("uint8")
    batches = from_arrays(images, (images[..., 0] > 100).astype("uint8"), batch_size=2, seed=2)
    batches.epoch = 1
    steps = []
    monkeypatch.setattr(batches, "at", lambda step, at=batches.at: steps.append(step) or at(step))
    model = LoCo(image_size=32, encoder="resnet_tiny", decoder_filters=8, total_steps=6)
    model.compile()
    model.fit(as_tf_data(batches, lambda pixels: pixels + 300.0), epochs=2, initial_epoch=1, verbose=0)
    assert {3, 4, 5} <= set(steps) and int(keras.ops.convert_to_numpy(model.step)) == 3

    inputs, _ = next(as_tf_data(batches, lambda pixels: 0.5 * pixels).as_numpy_iterator())
    np.testing.assert_array_equal(inputs["unlabeled_strong"], np.round(0.5 * inputs["unlabeled"]).astype("uint8"))
    made = {"labeled": inputs["labeled"], "unlabeled": inputs["unlabeled"], "unlabeled_strong": inputs["unlabeled"]}
    _, weak = model.training_views(made, {"mask": np.zeros((2, 32, 32), "int32")})
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(view.images) for view in (model.strong(weak), weak)))
    assert np.abs(keras.ops.convert_to_numpy(model.strong(weak, host=False).images - weak.images)).max() > 1


def test_rand_augment_of_keras_cv():
    keras_cv = pytest.importorskip("keras_cv")
    policy = keras_cv.layers.RandAugment(value_range=(0, 255), geometric=False, seed=1)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype("uint8")
    colour = from_arrays(images, (images[..., 0] > 100).astype("uint8"), batch_size=2)
    inputs, _ = next(as_tf_data(colour, policy).as_numpy_iterator())
    changed = np.abs(inputs["unlabeled_strong"].astype("int32") - inputs["unlabeled"])
    assert inputs["unlabeled_strong"].dtype == np.uint8 and changed.max() > 10
