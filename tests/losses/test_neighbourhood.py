from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses.low_resolution import Upsampling
from keras_semimed.losses.neighbourhood import boundary_pixels, boundary_scores, nearest_offsets
from tests.losses import low_contrast_oracle as oracle


def test_nearest_offsets_are_ordered():
    assert nearest_offsets(6).tolist() == [[-1, 0], [0, -1], [0, 1], [1, 0], [-1, -1], [-1, 1]]
    assert nearest_offsets(300).tolist() == [
        list(o)
        for o in sorted(
            ((dy, dx) for dy in range(-30, 31) for dx in range(-30, 31) if dy or dx),
            key=lambda o: (o[0] ** 2 + o[1] ** 2, *o),
        )[:300]
    ]
    # 64 cut the ring of squared distance 20 in half: above only.
    distances = (nearest_offsets(64) ** 2).sum(axis=1)
    assert distances.max() == 20 and (nearest_offsets(64)[distances == 20, 0] < 0).all()


def batch(labels, source, seed=0):
    rng = np.random.default_rng(seed)
    features = ops.convert_to_tensor(rng.normal(size=(len(labels), *source, 8)).astype("float32"))
    return features, Upsampling(source, labels.shape[1:])


@pytest.mark.parametrize("neighbours", [1, 2, 5, 9, 21, 64])
def test_boundary_pixels(neighbours):
    rng = np.random.default_rng(0)
    labels = np.zeros((2, 11, 14), "float32")
    labels[0, 4:7, 5:] = 2
    labels[1] = np.where(rng.random((11, 14)) > 0.97, 1, 0)
    labels[rng.random(labels.shape) > 0.8] = -1
    features, _ = batch(labels, (3, 4))
    z = oracle.embeddings(*np.split(ops.convert_to_numpy(features), 2), (11, 14))
    expected = oracle.boundary_scores(z, labels.ravel(), labels.shape, neighbours)
    result = ops.convert_to_numpy(boundary_pixels(ops.convert_to_tensor(labels), neighbours))
    assert set(np.flatnonzero(result)) == set(expected) and len(expected) > 0


@pytest.mark.parametrize(
    ("source", "neighbours", "chunk"), [((3, 4), 64, 7), ((5, 7), 21, 100), ((11, 14), 5, 4096), ((1, 1), 64, 100)]
)
def test_scores_of_boundaries_everywhere(source, neighbours, chunk):
    labels = np.indices((2, 11, 14)).sum(axis=0) % 2.0  # no pixel is spared
    features, upsampling = batch(labels, source)
    labels = ops.convert_to_tensor(labels.astype("float32"))
    pixels = boundary_pixels(labels, neighbours)
    result = boundary_scores(features, upsampling.inverse_norms(features), pixels, upsampling, neighbours, chunk)
    z = oracle.embeddings(*np.split(ops.convert_to_numpy(features), 2), (11, 14))
    expected = oracle.boundary_scores(z, ops.convert_to_numpy(labels).ravel(), labels.shape, neighbours)
    assert len(expected) == 2 * 11 * 14
    np.testing.assert_allclose(ops.convert_to_numpy(result).ravel(), list(expected.values()), rtol=1e-5, atol=1e-6)


def test_no_boundary_no_scores():
    labels = np.zeros((1, 8, 8), "float32")
    features, upsampling = batch(labels, (2, 2))
    pixels = boundary_pixels(ops.convert_to_tensor(labels), 64)
    result = boundary_scores(features, upsampling.inverse_norms(features), pixels, upsampling, 64)
    np.testing.assert_array_equal(ops.convert_to_numpy(result), 0)
