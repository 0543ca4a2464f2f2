"""What follows from bilinear upsampling being linear: facts about full-resolution embeddings that never exist."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops


def enlargement_matrix(source: int, target: int) -> np.ndarray:
    """Weights that resize a line of `source` values to `target` values: bilinear, half-pixel centres, as Keras resizes.

    Returns:
        Shape: `(target, source)`, float64; each row holds one or two neighbouring weights that add up to 1.
    """
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    lower = np.floor(centres).astype(int)
    matrix = np.zeros((target, source))
    for taps, weights in ((lower, lower + 1 - centres), (lower + 1, centres - lower)):
        np.add.at(matrix, (np.arange(target), np.clip(taps, 0, source - 1)), weights)
    return matrix


class Upsampling:
    """Bilinear upsampling of maps, and what it makes of the lengths of embeddings, without upsampling embeddings.

    Two small matrices, one for the rows and one for the columns of an image, stand for any factor, integer or not.

    Args:
        source: height and width `(h, w)` of the features.
        target: height and width `(H, W)` of the image.
    """

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        self.source = source
        self.target = target
        self._matrices = [enlargement_matrix(*sizes) for sizes in zip(source, target, strict=True)]
        self._rows, self._columns = (matrix.astype("float32") for matrix in self._matrices)
        self._pair_rows, self._pair_columns = (_pair_matrix(matrix) for matrix in self._matrices)

    def enlarge(self, maps: Any) -> Any:
        """Upsamples maps: `(..., h, w)` to `(..., H, W)`, float32."""
        return ops.matmul(self._rows, ops.matmul(maps, self._columns.T))

    def gather(self, maps: Any) -> Any:
        """The adjoint of `enlarge`, so `sum(gather(a) * b) == sum(a * enlarge(b))`: `(..., H, W)` to `(..., h, w)`."""
        return ops.matmul(self._rows.T, ops.matmul(maps, self._columns))

    def inverse_norms(self, features: Any) -> Any:
        """`1 / |z|` of every upsampled embedding z; 0 where z is made of zeros.

        `|z|^2` is a quadratic form of the 2 x 2 interpolation weights in the dot products of neighbouring features.
        Where neighbours all but cancel (`|z|` below a thousandth of what the features around it are long), float32
        cannot tell `|z|`, and this lower limit takes its place.

        Args:
            features: float32. Shape: `(N, h, w, D)`.

        Returns:
            Shape: `(N, H, W)`, float32.
        """
        right, below = ops.roll(features, -1, axis=2), ops.roll(features, -1, axis=1)
        own = ops.sum(ops.square(features), axis=-1)  # (N, h, w)
        diagonals = (_dot(features, ops.roll(right, -1, axis=1)) + _dot(right, below)) / 2
        products = ops.concatenate(
            [
                ops.concatenate([own, _dot(features, right)], axis=2),
                ops.concatenate([_dot(features, below), diagonals], axis=2),
            ],
            axis=1,
        )  # (N, 2h, 2w)
        squares = ops.matmul(self._pair_rows, ops.matmul(products, self._pair_columns.T))  # (N, H, W)
        scale = self.enlarge(ops.stop_gradient(own))  # at least |z|^2
        positive = scale > 1e-24
        limit = ops.where(positive, 1e-6 * scale, 1.0)
        inverse = ops.rsqrt(ops.where(squares > limit, squares, limit))
        return ops.where(positive, inverse, 0.0)


def _pair_matrix(matrix: np.ndarray) -> np.ndarray:
    """Squares of the weights, then twice the products of each with the next: `(target, 2 * source)`, float32.

    The last weight has no next one, so what a shifted map holds there does not matter.
    """
    following = np.pad(matrix[:, 1:], [(0, 0), (0, 1)])
    return np.concatenate([matrix**2, 2 * matrix * following], axis=1).astype("float32")


def _dot(a: Any, b: Any) -> Any:
    return ops.sum(a * b, axis=-1)
