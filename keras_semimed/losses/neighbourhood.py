"""Boundary pixels and how much they resemble their neighbourhood (LoCo Eq. 13)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_semimed.losses.low_resolution import Upsampling, enlargement_matrix
from keras_semimed.losses.selection import first_reaching

NOT_COUNTED = -1.0  # label of a pixel that is ignored or filtered

# Pixels that are scored at a time: a bound on memory, however many boundary pixels a batch has.
_CHUNK = 2048


@functools.cache
def nearest_offsets(count: int) -> np.ndarray:
    """The `count` nearest pixels of a pixel, itself left out, by squared distance, then dy, then dx.

    Returns:
        `(dy, dx)` of each. Shape: `(count, 2)`, int64.
    """
    radius = int(np.sqrt(count)) + 2
    dy, dx = (axis.ravel() for axis in np.mgrid[-radius : radius + 1, -radius : radius + 1])
    order = np.lexsort((dx, dy, dy**2 + dx**2))[1 : count + 1]
    return np.stack([dy[order], dx[order]], axis=1)


def boundary_pixels(labels: Any, neighbours: int) -> Any:
    """Tells which pixels have a pixel of another class among their nearest ones.

    Pixels outside the image and pixels that do not count are nobody's evidence and no boundary pixels themselves.

    Args:
        labels: class of each pixel, `NOT_COUNTED` where there is none. Shape: `(N, H, W)`, float32.
        neighbours: h, the number of nearest pixels.

    Returns:
        Shape: `(N, H, W)`, bool.
    """
    offsets = nearest_offsets(neighbours)
    height, width = labels.shape[1:]
    radius = int(np.abs(offsets).max())
    counted = labels > NOT_COUNTED
    # Another class is around if the largest label is above one's own or the smallest below; the latter as a maximum
    # too. A neighbourhood's rows are intervals, so each is built from a narrower one.
    nothing = -1e9
    extremes = ops.where(counted, ops.stack([labels, -labels]), nothing)  # (2, N, H, W)
    padded = ops.pad(extremes, [(0, 0), (0, 0), (radius, radius), (radius, radius)], constant_values=nothing)

    @functools.cache
    def row_maximum(first: int, last: int) -> Any:
        if last > first and last >= -first:
            inner, edge = row_maximum(first, last - 1), last
        elif last > first:
            inner, edge = row_maximum(first + 1, last), first
        else:
            inner, edge = None, first
        at_edge = padded[..., radius + edge : radius + edge + width]
        return at_edge if inner is None else ops.maximum(inner, at_edge)

    around = extremes
    for dy in np.unique(offsets[:, 0]):
        dx = offsets[offsets[:, 0] == dy, 1]
        row = row_maximum(int(dx.min()), int(dx.max()))
        around = ops.maximum(around, row[:, :, radius + dy : radius + dy + height])
    return ops.logical_and(counted, ops.any(around > extremes, axis=0))


def boundary_scores(
    features: Any, inverse_norms: Any, pixels: Any, upsampling: Upsampling, neighbours: int, chunk: int = _CHUNK
) -> Any:
    """Minimum cosine between a pixel's embedding and those of its nearest pixels (Eq. 13), without gradient.

    Embeddings are upsampled features. A neighbourhood spans only a few features, so a pixel takes one dot product with
    each of these, and the products with all its neighbours are interpolated from them. The chosen pixels go through a
    loop, `chunk` at a time: time follows their number, memory does not, and no number is too large.

    Args:
        features: float32. Shape: `(N, h, w, D)`.
        inverse_norms: `1 / |z|` of the upsampled embeddings. Shape: `(N, H, W)`.
        pixels: which to score. Shape: `(N, H, W)`, bool.
        upsampling: from `(h, w)` to `(H, W)`.
        neighbours: h, the number of nearest pixels; those outside the image are left out.
        chunk: pixels scored at a time.

    Returns:
        Scores where `pixels`, 0 elsewhere. Shape: `(N, H, W)`, float32.
    """
    score = _pixel_scorer(ops.stop_gradient(features), ops.stop_gradient(inverse_norms), upsampling, neighbours)
    ranks = ops.cumsum(ops.cast(ops.reshape(pixels, (-1,)), "float32"))  # float32 counts exactly to 2^24
    size = ops.shape(ranks)[0]
    total = ranks[-1]
    slots = ops.arange(1, chunk + 1, dtype="float32")

    def body(done: Any, scores: Any) -> tuple[Any, Any]:
        indices = first_reaching(ranks, done + slots)  # the r-th pixel; behind the last one, the spare entry
        values = score(ops.minimum(indices, size - 1))
        return done + chunk, ops.scatter_update(scores, indices[:, None], values)

    empty = ops.concatenate([ops.zeros_like(ranks), ops.zeros((1,), "float32")])
    _, scores = ops.while_loop(lambda done, _: done < total, body, (ops.zeros((), "float32"), empty))
    return ops.stop_gradient(ops.reshape(scores[:-1], ops.shape(pixels)))


def _pixel_scorer(features: Any, inverse_norms: Any, upsampling: Upsampling, neighbours: int) -> Callable[[Any], Any]:
    """Returns a function that maps flat pixel indices `(P,)` into `(N, H, W)` to the pixels' scores `(P,)`."""
    (height, width), (rows, columns) = upsampling.target, upsampling.source
    depth = features.shape[-1]
    offsets = nearest_offsets(neighbours)
    radius = int(np.abs(offsets).max())
    reach = np.arange(-radius, radius + 1)
    near = np.zeros((len(reach), len(reach)), bool)
    near[offsets[:, 0] + radius, offsets[:, 1] + radius] = True
    near = ops.convert_to_tensor(near)
    tops, row_weights, row_inside = map(ops.convert_to_tensor, _window_tables(rows, height, radius))
    lefts, column_weights, column_inside = map(ops.convert_to_tensor, _window_tables(columns, width, radius))
    window_rows, window_columns = row_weights.shape[2], column_weights.shape[2]
    feature_steps = np.arange(window_rows)[:, None] * columns + np.arange(window_columns)
    feature_steps = ops.convert_to_tensor(feature_steps.astype("int32"))
    pixel_steps = ops.convert_to_tensor((reach[:, None] * width + reach).astype("int32"))
    features = ops.reshape(features, (-1, depth))
    inverse_norms = ops.reshape(inverse_norms, (-1,))
    last = ops.shape(inverse_norms)[0] - 1

    def score(pixels: Any) -> Any:
        image, y, x = pixels // (height * width), pixels // width % height, pixels % width
        by_row, by_column = ops.take(row_weights, y, axis=0), ops.take(column_weights, x, axis=0)
        corner = (image * rows + ops.take(tops, y)) * columns + ops.take(lefts, x)
        window = ops.take(features, corner[:, None, None] + feature_steps, axis=0)  # (P, m, n, D)
        window = ops.reshape(window, (-1, window_rows * window_columns, depth))
        own = ops.reshape(by_row[:, radius, :, None] * by_column[:, radius, None, :], (-1, 1, window.shape[1]))
        own = ops.matmul(own, window)  # the pixel's embedding, (P, 1, D)
        products = ops.matmul(own, ops.transpose(window, (0, 2, 1)))
        products = ops.reshape(products, (-1, window_rows, window_columns))
        products = ops.matmul(ops.matmul(by_row, products), ops.transpose(by_column, (0, 2, 1)))  # (P, 2r + 1, 2r + 1)
        around = ops.clip(pixels[:, None, None] + pixel_steps, 0, last)
        cosines = products * ops.take(inverse_norms, around) * ops.take(inverse_norms, pixels)[:, None, None]
        inside_rows, inside_columns = ops.take(row_inside, y, axis=0), ops.take(column_inside, x, axis=0)
        inside = ops.logical_and(inside_rows[:, :, None], inside_columns[:, None, :])
        return ops.min(ops.where(ops.logical_and(inside, near), cosines, 2.0), axis=(1, 2))

    return score


def _window_tables(source: int, target: int, radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along one axis: where the window of features around each pixel starts, and its weights for the pixels nearby.

    Returns:
        First feature of each pixel's window, `(target,)` int32; weights of the window's features for the pixels
        `radius` before to `radius` behind, `(target, 2 * radius + 1, window)` float32; and whether these pixels lie
        inside the image, `(target, 2 * radius + 1)` bool.
    """
    matrix = enlargement_matrix(source, target)
    places = np.arange(target)[:, None] + np.arange(-radius, radius + 1)
    inside = (places >= 0) & (places < target)
    places = np.clip(places, 0, target - 1)
    first = (matrix > 0).argmax(axis=1)[places[:, 0]]
    last = source - 1 - (matrix[:, ::-1] > 0).argmax(axis=1)[places[:, -1]]
    window = int((last - first).max()) + 1
    first = np.minimum(first, source - window)
    features = first[:, None] + np.arange(window)
    weights = matrix[places[:, :, None], features[:, None, :]]
    return first.astype("int32"), weights.astype("float32"), inside
