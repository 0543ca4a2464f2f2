"""Noise on the teacher's input: clipped at two deviations, in grey levels."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import add_clipped_noise
from tests.gradients import gradient


def test_noise_is_clipped_and_the_sum_is_not():
    images = np.array([0.0, 100.0, 200.0, 250.0], "float32").reshape(1, 2, 2, 1)
    noise = np.array([-3.0, 0.5, 1.0, 4.0], "float32").reshape(1, 2, 2, 1)
    added = ops.convert_to_numpy(add_clipped_noise(images, noise)) - images
    np.testing.assert_allclose(added.ravel(), [-51, 12.75, 25.5, 51], rtol=1e-6)
    random = np.random.default_rng(0)
    images, noise = random.uniform(0, 255, (2, 3, 4, 3)), random.normal(size=(2, 3, 4, 3))
    found = ops.convert_to_numpy(add_clipped_noise(images.astype("float32"), noise.astype("float32"), 7.0))
    np.testing.assert_allclose(found, images + 7 * np.minimum(np.maximum(noise, -2), 2), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16"])
def test_any_dtype_of_images_gives_float32_without_gradient(dtype):
    images = ops.cast(np.full((1, 2, 2, 3), 200.0, "float32"), dtype)
    found = add_clipped_noise(images, np.ones((1, 2, 2, 3), "float32"))
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(found), 225.5)
    plain = np.full((1, 2, 2, 3), 200.0, "float32")
    np.testing.assert_array_equal(gradient(lambda x: ops.sum(add_clipped_noise(x, plain)), plain), 0)
