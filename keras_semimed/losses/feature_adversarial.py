"""Adversarial noise on the features before a linear head (PEFAT).

The head is linear, `head(f) = f W + b`, so that the gradients which noise follows are written out: no second
differentiation. Noise is a constant, and is added to constant features.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_semimed.losses.cross_entropy import masked_cross_entropy
from keras_semimed.losses.reductions import one_hot_and_valid, safe_divide


def trusted_directions(
    features: Any, labels: Any, weights: Any, kernel: Any, bias: Any, noise: Any, iterations: int = 8
) -> Any:
    """Noise for images with a label: `d <- 1/n (softmax(head(f + d)) - onehot(label)) W^T`, again and again.

    It starts at the noise of length 1 and is the raw gradient of the mean cross-entropy over the n images that count:
    at most `sqrt(2) |W| / n` long (Zeng et al., CVPR 2023, as published in code).

    Args:
        features: f, any float dtype. Shape: `(M, D)`.
        labels: 255 leaves an image out. Shape: `(M,)`, integers.
        weights: of each image, 0 leaves it out. Shape: `(M,)`.
        kernel: W. Shape: `(D, C)`.
        bias: b. Shape: `(C,)`.
        noise: standard normal numbers. Shape: `(M, D)`.
        iterations: how often the direction is improved.

    Returns:
        `(M, D)` float32, without gradient; 0 for an image that is left out.
    """
    features, kernel, bias, noise, weights = _constant(features, kernel, bias, noise, weights)
    targets, known = one_hot_and_valid(labels, kernel.shape[-1])
    shares = _shares(weights * known)[:, None]
    direction = _unit(noise)
    for _ in range(iterations):
        predicted = ops.softmax(_head(features + direction, kernel, bias), axis=-1)
        direction = ops.matmul(shares * (predicted - targets), ops.transpose(kernel))
    return ops.where(shares > 0, direction, 0.0)


def uncertain_directions(
    features: Any,
    weights: Any,
    kernel: Any,
    bias: Any,
    noise: Any,
    iterations: int = 8,
    xi: float = 1e-3,
) -> Any:
    """Noise of length 1 for both views of images without a label: what moves a view most from the other's prediction.

    `u = 1/n (softmax(head(f_v + xi d_v)) - p_other) W^T` and `d_v <- u / (|u| + 1e-8)`, again and again, where n is the
    number of images that count; d_v starts at the noise as it is.

    Args:
        features: f of both views, any float dtype. Shape: `(2, U, D)`.
        weights: of each image, 0 leaves it out. Shape: `(U,)`.
        kernel: W. Shape: `(D, C)`.
        bias: b. Shape: `(C,)`.
        noise: standard normal numbers. Shape: `(2, U, D)`.
        iterations: how often the direction is improved.
        xi: how far along the direction the gradient is taken.

    Returns:
        `(2, U, D)` float32, without gradient; 0 for an image that is left out.
    """
    features, kernel, bias, direction, weights = _constant(features, kernel, bias, noise, weights)
    other = ops.flip(ops.softmax(_head(features, kernel, bias), axis=-1), axis=0)
    shares = _shares(weights)[None, :, None]
    for _ in range(iterations):
        predicted = ops.softmax(_head(features + xi * direction, kernel, bias), axis=-1)
        direction = _unit(ops.matmul(shares * (predicted - other), ops.transpose(kernel)))
    return ops.where(shares > 0, direction, 0.0)


def trusted_adversarial_loss(features: Any, labels: Any, weights: Any, kernel: Any, bias: Any, directions: Any) -> Any:
    """Mean cross-entropy of `head(f + d)` over the images that count; gradient flows into W and b alone.

    Args:
        features: f, any float dtype. Shape: `(M, D)`.
        labels: 255 leaves an image out. Shape: `(M,)`, integers.
        weights: of each image. Shape: `(M,)`.
        kernel: W. Shape: `(D, C)`.
        bias: b. Shape: `(C,)`.
        directions: d, such as `trusted_directions` gives. Shape: `(M, D)`.

    Returns:
        Scalar float32; 0 where nothing counts.
    """
    features, directions, weights = _constant(features, directions, weights)
    return masked_cross_entropy(labels, _head(features + directions, kernel, bias), weights)


def uncertain_loss(features: Any, weights: Any, kernel: Any, bias: Any, directions: Any) -> Any:
    """Mean over the images that count of `KL(p_1 || q_2) + KL(p_2 || q_1)`.

    p_v is the prediction of view v, q_v that of its features with noise. q trains W and b, the clean p W, b and what
    the features come from (Zeng et al., CVPR 2023, as published in code).

    Args:
        features: f of both views, any float dtype. Shape: `(2, U, D)`.
        weights: of each image. Shape: `(U,)`.
        kernel: W. Shape: `(D, C)`.
        bias: b. Shape: `(C,)`.
        directions: d of both views, such as `uncertain_directions` gives. Shape: `(2, U, D)`.

    Returns:
        Scalar float32; 0 where nothing counts.
    """
    constant, directions, weights = _constant(features, directions, weights)
    clean = ops.log_softmax(_head(ops.cast(features, "float32"), kernel, bias), axis=-1)  # log p
    moved = ops.log_softmax(_head(constant + directions, kernel, bias), axis=-1)  # log q
    divergences = ops.sum(ops.exp(clean) * (clean - ops.flip(moved, axis=0)), axis=(0, 2))  # (U,)
    return safe_divide(ops.sum(weights * divergences), ops.sum(weights))


def _constant(*values: Any) -> tuple[Any, ...]:
    return tuple(ops.stop_gradient(ops.cast(value, "float32")) for value in values)


def _head(features: Any, kernel: Any, bias: Any) -> Any:
    return ops.matmul(features, ops.cast(kernel, "float32")) + ops.cast(bias, "float32")


def _shares(weights: Any) -> Any:
    """Of each image in a mean; all 0 where nothing counts."""
    return safe_divide(weights, ops.sum(weights))


def _unit(values: Any) -> Any:
    return values / (ops.sqrt(ops.sum(ops.square(values), axis=-1, keepdims=True)) + 1e-8)
