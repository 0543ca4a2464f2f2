"""The tf.data pipeline gives the batches of the PyDataset, epoch after epoch, and takes host-side policies."""

import sys

import keras
import numpy as np
import pytest

from keras_semimed.data import SemiSupervisedBatches, as_tf_data, from_arrays, rand_augment
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


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_changes_colours_and_moves_nothing(channels):
    pytest.importorskip("keras_cv")
    images = np.full((8, 16, 16, channels), 60, "uint8")
    images[:, 4:, :7] = 200  # one region of one colour, which stays one wherever its pixels stay
    masks = (images[..., 0] > 100).astype("uint8")
    inputs, _ = next(as_tf_data(from_arrays(images, masks, batch_size=8), rand_augment(seed=1)).as_numpy_iterator())
    strong = inputs["unlabeled_strong"]
    assert strong.dtype == np.uint8 and strong.shape == images.shape
    assert np.abs(strong.astype("int32") - inputs["unlabeled"]).max() > 10
    assert len(np.unique(strong[:, 10, 3], axis=0)) > 2  # each image for itself
    for region in (masks[0] == 0, masks[0] == 1):
        pixels = strong[:, region]  # (N, pixels, C)
        np.testing.assert_array_equal(pixels, np.broadcast_to(pixels[:, :1], pixels.shape))


def test_without_keras_cv_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv.layers", None)
    with pytest.raises(ImportError, match="rand_augment needs keras-cv .*pip install keras-cv tensorflow"):
        rand_augment()
