"""Separable linear maps of images: a matrix for the rows and one for the columns of each image."""

from __future__ import annotations

from typing import Any

from keras import ops

_OFF_SIGMA = 1e-3  # a Gaussian this narrow has exactly one non-zero weight in float32


def _distances(coordinates: Any, source_size: Any) -> Any:
    """Returns `coordinates[n, s] - pixel[p]` as `(N, S, P)`."""
    pixels = ops.arange(source_size, dtype="float32")
    return coordinates[:, :, None] - pixels[None, None, :]


def inside(coordinates: Any, source_size: Any) -> Any:
    """Tells which source coordinates lie on a pixel's area, as booleans of the same shape."""
    return ops.logical_and(coordinates >= -0.5, coordinates < ops.cast(source_size, "float32") - 0.5)


def bilinear_matrix(coordinates: Any, source_size: Any) -> Any:
    """Builds the matrices that sample lines of pixels at the given places.

    Weights are a triangle kernel, widened to the sampling step where the image shrinks (antialias), and
    add up to 1. Places outside the image get a row of zeros.

    Args:
        coordinates: `(N, S)` float32, evenly spaced along S, in source pixels; pixel centres are integers.
        source_size: number of source pixels P.

    Returns:
        `(N, S, P)` float32.
    """
    last = coordinates.shape[1] - 1
    step = ops.abs(coordinates[:, -1] - coordinates[:, 0]) / max(last, 1)
    radius = ops.maximum(step, 1.0)[:, None, None]
    weights = ops.maximum(1.0 - ops.abs(_distances(coordinates, source_size)) / radius, 0.0)  # (N, S, P)
    weights = weights / ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1e-6)
    return weights * ops.cast(inside(coordinates, source_size), "float32")[:, :, None]


def nearest_matrix(coordinates: Any, source_size: Any) -> Any:
    """Builds the 0/1 matrices that pick the nearest pixel; all zeros outside. Shapes as `bilinear_matrix`."""
    distances = _distances(coordinates, source_size)
    return ops.cast(ops.logical_and(distances >= -0.5, distances < 0.5), "float32")


def gaussian_matrix(sigma: Any, size: Any) -> Any:
    """Builds the matrices of a Gaussian blur; each row adds up to 1, so borders do not darken.

    Args:
        sigma: `(N,)` float32 standard deviation in pixels; 0 gives the identity.
        size: number of pixels P.

    Returns:
        `(N, P, P)` float32.
    """
    pixels = ops.arange(size, dtype="float32")
    squares = ops.square(pixels[:, None] - pixels[None, :])[None]  # (1, P, P)
    sigma = ops.maximum(sigma, _OFF_SIGMA)[:, None, None]
    weights = ops.exp(-0.5 * squares / ops.square(sigma))
    return weights / ops.sum(weights, axis=-1, keepdims=True)


def apply_matrices(images: Any, rows: Any, columns: Any) -> Any:
    """Applies one matrix to the rows and one to the columns of each image.

    Args:
        images: `(N, H, W, C)` float32.
        rows: `(N, S, H)` float32.
        columns: `(N, T, W)` float32.

    Returns:
        `(N, S, T, C)` float32.
    """
    images = ops.einsum("nsh,nhwc->nswc", rows, images)
    return ops.einsum("ntw,nswc->nstc", columns, images)


def at_cells(values: Any, height: int, width: int) -> Any:
    """What stands at the centres of the cells of a coarser grid: `(N, H, W)` to `(N, height, width)`, any dtype."""
    for axis, cells in ((1, height), (2, width)):
        size = values.shape[axis]
        if cells != size:
            values = ops.take(values, [(2 * cell + 1) * size // (2 * cells) for cell in range(cells)], axis=axis)
    return values
