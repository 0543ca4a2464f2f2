"""The separable maps against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from keras_semimed.layers.resampling import (
    apply_matrices,
    at_cells,
    bilinear_matrix,
    gaussian_matrix,
    inside,
    nearest_matrix,
)


def _places(centre: float, step: float, count: int) -> np.ndarray:
    return (centre + step * (np.arange(count) - (count - 1) / 2)).astype("float32")[None]


def _sample_by_hand(line: np.ndarray, places: np.ndarray) -> np.ndarray:
    step = abs(places[1] - places[0])
    result = np.zeros(len(places))
    for s, place in enumerate(places):
        if not -0.5 <= place < len(line) - 0.5:
            continue
        weights = [max(0.0, 1.0 - abs(place - p) / max(step, 1.0)) for p in range(len(line))]
        result[s] = np.dot(weights, line) / np.sum(weights)
    return result


@pytest.mark.parametrize("step", [0.5, 1.0, 1.37, 3.0, -0.8, -2.5])
def test_bilinear_matrix_is_a_normalised_triangle_kernel(step):
    line = np.random.default_rng(0).uniform(0, 255, 11)
    places = _places(5.3, step, 7)
    matrix = ops.convert_to_numpy(bilinear_matrix(ops.convert_to_tensor(places), 11))[0]
    np.testing.assert_allclose(matrix @ line, _sample_by_hand(line, places[0]), atol=1e-3)


@pytest.mark.parametrize("factor", [2, 3])
def test_shrinking_is_antialiased(factor):
    size = 12 * factor
    checkerboard = (np.indices((size, size)).sum(0) % 2 * 255).astype("float32")[None, :, :, None]
    places = ops.convert_to_tensor(_places((size - 1) / 2, factor, 12))
    matrix = bilinear_matrix(places, size)
    small = ops.convert_to_numpy(apply_matrices(ops.convert_to_tensor(checkerboard), matrix, matrix))
    np.testing.assert_allclose(small[0, 2:-2, 2:-2], 127.5, atol=6)
    constant = apply_matrices(ops.full((1, size, size, 1), 90.0), matrix, matrix)
    np.testing.assert_allclose(ops.convert_to_numpy(constant), 90.0, rtol=1e-5)


def test_nearest_matrix_picks_one_pixel_and_none_outside():
    places = np.array([[-0.6, -0.5, 0.4, 0.6, 2.49, 2.5, 3.0]], "float32")
    matrix = ops.convert_to_numpy(nearest_matrix(ops.convert_to_tensor(places), 3))[0]
    expected = np.zeros((7, 3))
    for row, pixel in ((1, 0), (2, 0), (3, 1), (4, 2)):
        expected[row, pixel] = 1
    np.testing.assert_array_equal(matrix, expected)
    known = ops.convert_to_numpy(inside(ops.convert_to_tensor(places), 3))[0]
    np.testing.assert_array_equal(known, expected.any(axis=1))


@pytest.mark.parametrize("sigma", [0.3, 0.8, 2.0])
def test_gaussian_matrix_is_the_gaussian_filter_with_weights_normalised_at_the_border(sigma):
    image = np.random.default_rng(0).uniform(0, 255, (9, 13))
    blur = {"sigma": sigma, "mode": "constant", "truncate": 20.0}
    expected = ndimage.gaussian_filter(image, **blur) / ndimage.gaussian_filter(np.ones_like(image), **blur)
    sigmas = ops.convert_to_tensor(np.array([sigma], "float32"))
    result = apply_matrices(
        ops.convert_to_tensor(image.astype("float32")[None, :, :, None]),
        gaussian_matrix(sigmas, 9),
        gaussian_matrix(sigmas, 13),
    )
    np.testing.assert_allclose(ops.convert_to_numpy(result)[0, :, :, 0], expected, rtol=1e-4)


def test_gaussian_of_width_zero_is_the_identity():
    matrix = ops.convert_to_numpy(gaussian_matrix(ops.zeros((2,)), 5))
    np.testing.assert_array_equal(matrix, np.tile(np.eye(5), (2, 1, 1)))


@pytest.mark.parametrize(("size", "cells"), [(8, 2), (9, 3), (10, 3), (33, 9), (6, 6)])
def test_what_stands_at_the_centres_of_cells(size, cells):
    values = np.arange(2 * size * size, dtype="int32").reshape(2, size, size)
    found = ops.convert_to_numpy(at_cells(ops.convert_to_tensor(values), cells, size))
    centres = [int((cell + 0.5) * size / cells) for cell in range(cells)]
    np.testing.assert_array_equal(found, values[:, centres])
    found = ops.convert_to_numpy(at_cells(ops.convert_to_tensor(values), cells, cells))
    np.testing.assert_array_equal(found, values[:, centres][:, :, centres])
