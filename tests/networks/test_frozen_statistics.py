"""Passes that use the statistics of the batch and leave the moving ones alone."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_semimed.backend import input_gradient
from keras_semimed.networks import UNet, frozen_statistics
from tests.gradients import gradient
from tests.layers.compiled import compiled
from tests.models.common import UNET_WIDTHS, tiny_encoder

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def network():
    return UNet(tiny_encoder(), 3, decoder_filters=UNET_WIDTHS)


def test_batch_statistics_are_used_and_nothing_moves():
    unet = network()
    before = [numpy(variable.value) for variable in unet.variables]

    def passed(x):
        with frozen_statistics(unet):
            return unet(x, training=True)

    found = numpy(compiled(passed, unet.variables)(ops.convert_to_tensor(IMAGES)))
    for old, variable in zip(before, unet.variables, strict=True):
        np.testing.assert_array_equal(old, numpy(variable.value), err_msg=variable.path)
    moving = numpy(unet(IMAGES, training=False))
    np.testing.assert_allclose(found, numpy(unet(IMAGES, training=True)), atol=1e-4)
    assert np.abs(found - moving).max() > 1e-2
    assert any((old != numpy(v.value)).any() for old, v in zip(before, unet.variables, strict=True))


def test_slopes_reach_images_and_weights_inside_a_compiled_gradient():
    unet = network()
    kernel = unet.head.kernel
    weights = ops.convert_to_tensor(np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype("float32"))

    def score(x):
        return ops.sum(unet(x, training=True) * weights)

    def loss(values, frozen=True):
        """As a step: weights given from outside, the direction first, then the loss."""
        outside = [(v, v.value) for v in unet.variables if v is not kernel]
        with keras.StatelessScope(state_mapping=[(kernel, values), *outside]):
            if not frozen:
                return ops.mean(ops.square(unet(images, training=True)))
            with frozen_statistics(unet):
                shown = ops.convert_to_tensor(IMAGES)
                return ops.mean(ops.square(unet(shown + input_gradient(score, shown), training=True)))

    slope = gradient(loss, numpy(kernel))
    with frozen_statistics(unet):
        images = IMAGES + numpy(input_gradient(score, ops.convert_to_tensor(IMAGES)))
    np.testing.assert_allclose(slope, gradient(lambda k: loss(k, frozen=False), numpy(kernel)), rtol=1e-3, atol=1e-5)
    assert np.abs(slope).max() > 1e-2 and np.abs(images - IMAGES).max() > 1e-3


def test_other_layers_are_seen_as_around_it():
    unet, other = network(), keras.layers.Dense(2)
    other.build((None, 3))
    with keras.StatelessScope(state_mapping=[(other.kernel, np.full((3, 2), 7, "float32"))]):
        with frozen_statistics(unet):
            assert (numpy(other.kernel.value) == 7).all()
            assert not numpy(other.bias.value).any()
        assert (numpy(other.kernel.value) == 7).all()
    assert not (numpy(other.kernel.value) == 7).any()
