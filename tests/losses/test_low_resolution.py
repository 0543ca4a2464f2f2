from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses.low_resolution import Upsampling, enlargement_matrix
from tests.losses import low_contrast_oracle as oracle

SIZES = [((8, 8), (32, 32)), ((5, 6), (33, 41)), ((4, 3), (4, 3)), ((1, 2), (3, 5)), ((1, 1), (2, 2))]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_enlarges_as_keras_resizes(source, target):
    maps = np.random.default_rng(0).normal(size=(2, *source)).astype("float32")
    result = ops.convert_to_numpy(Upsampling(source, target).enlarge(maps))
    resized = ops.image.resize(maps[..., None], target, "bilinear", data_format="channels_last")
    np.testing.assert_allclose(result, ops.convert_to_numpy(resized)[..., 0], rtol=1e-5, atol=1e-6)
    expected = oracle.upsampling_matrix(source, target) @ maps.reshape(2, -1).T
    np.testing.assert_allclose(result.reshape(2, -1).T, expected, rtol=1e-5, atol=1e-6)


def test_weights():
    np.testing.assert_allclose(enlargement_matrix(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    assert (enlargement_matrix(6, 41) > 0).sum(axis=1).max() == 2
    np.testing.assert_allclose(enlargement_matrix(6, 41).sum(axis=1), 1)


def test_gather_is_the_adjoint():
    rng, upsampling = np.random.default_rng(0), Upsampling((5, 6), (33, 41))
    small, large = rng.normal(size=(3, 5, 6)).astype("float32"), rng.normal(size=(3, 33, 41)).astype("float32")
    gathered, enlarged = (ops.convert_to_numpy(x) for x in (upsampling.gather(large), upsampling.enlarge(small)))
    assert gathered.shape == small.shape
    np.testing.assert_allclose((gathered * small).sum(), (large * enlarged).sum(), rtol=1e-4)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_inverse_norms(source, target):
    features = np.random.default_rng(0).normal(size=(2, *source, 16)).astype("float32")
    result = ops.convert_to_numpy(Upsampling(source, target).inverse_norms(ops.convert_to_tensor(features)))
    z = oracle.embeddings(features[:1], features[1:], target)
    np.testing.assert_allclose(result.ravel(), 1 / np.linalg.norm(z, axis=1), rtol=1e-5)


def test_inverse_norms_of_zeros_and_of_opposites():
    upsampling = Upsampling((1, 2), (1, 3))
    zeros = ops.convert_to_numpy(upsampling.inverse_norms(ops.zeros((1, 1, 2, 4))))
    np.testing.assert_array_equal(zeros, 0)
    opposites = np.array([[[[1, 0], [-1, 0]]]], "float32")
    result = ops.convert_to_numpy(upsampling.inverse_norms(ops.convert_to_tensor(opposites)))
    # The middle embedding is 0: the limit stands in, a thousandth of the features' length.
    np.testing.assert_allclose(result, [[[1, 1000, 1]]], rtol=1e-5)
