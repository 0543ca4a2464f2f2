"""A mixture of two normal distributions, fitted with static shapes (PEFAT)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from keras import ops

_EPSILON = 1.1920929e-07  # of float32
_CENTRING = 20


class Mixture(NamedTuple):
    """Two components on a line, that of the smaller mean first.

    Attributes:
        weights: share of each, adding up to 1. Shape: `(2,)`, float32.
        means: Shape: `(2,)`, float32.
        variances: Shape: `(2,)`, float32.
    """

    weights: Any
    means: Any
    variances: Any


def fit_mixture(values: Any, valid: Any, rounds: int = 50, tolerance: float = 1e-2, floor: float = 5e-4) -> Mixture:
    """Fits two components by expectation and maximization, from two nearest means around 0 and 1.

    The start takes the place of a random one: centres 0 and 1, twenty times moved to the mean of what is nearest to
    each. Then rounds of shares by the components and of weights, means and variances by the shares, until the mean log
    likelihood changes by less than the tolerance (Zeng et al., CVPR 2023; as scikit-learn's `GaussianMixture`).

    Args:
        values: about 0..1, any float dtype. Shape: `(Q,)`.
        valid: 1 where a value counts, else 0. Shape: `(Q,)`.
        rounds: most rounds.
        tolerance: of the mean log likelihood.
        floor: what is added to each variance.

    Returns:
        `Mixture`, without gradient; always finite.
    """
    valid = ops.stop_gradient(ops.cast(valid, "float32"))
    values = ops.where(valid > 0, ops.stop_gradient(ops.cast(values, "float32")), 0.0)

    def nearest(centres: Any) -> Any:
        first = ops.cast(ops.abs(values - centres[0]) <= ops.abs(values - centres[1]), "float32")
        return valid * ops.stack([first, 1.0 - first])  # (2, Q)

    def centre(_: Any, centres: Any) -> Any:
        shares = nearest(centres)
        counts = ops.sum(shares, axis=1)
        return ops.where(counts > 0, ops.sum(shares * values, axis=1) / ops.maximum(counts, 1.0), centres)

    def maximize(shares: Any) -> tuple[Any, Any, Any]:
        counts = ops.sum(shares, axis=1) + 10 * _EPSILON
        means = ops.sum(shares * values, axis=1) / counts
        squares = ops.square(values - means[:, None])
        return counts / ops.sum(counts), means, ops.sum(shares * squares, axis=1) / counts + floor

    def unfinished(done: Any, bound: Any, change: Any, *_: Any) -> Any:
        del bound
        return ops.logical_and(done < rounds, change >= tolerance)

    def improve(done: Any, bound: Any, change: Any, *parameters: Any) -> tuple[Any, ...]:
        del change
        scores = _scores(values, Mixture(*parameters))  # (2, Q)
        total = ops.sum(valid * ops.logsumexp(scores, axis=0)) / ops.maximum(ops.sum(valid), 1.0)
        return done + 1, total, ops.abs(total - bound), *maximize(valid * ops.softmax(scores, axis=0))

    centres = ops.fori_loop(0, _CENTRING, centre, ops.convert_to_tensor([0.0, 1.0], "float32"))
    far = ops.convert_to_tensor(1e30, "float32")  # no round before the first one
    start = (ops.convert_to_tensor(0, "int32"), -far, far, *maximize(nearest(centres)))
    _, _, _, weights, means, variances = ops.while_loop(unfinished, improve, start)
    order = ops.argsort(means)
    return Mixture(*(ops.take(each, order) for each in (weights, means, variances)))


def mixture_posterior(values: Any, mixture: Mixture) -> Any:
    """Probability that a value belongs to the component of the smaller mean.

    Args:
        values: any float dtype. Shape: `(...)`.
        mixture: in either order.

    Returns:
        `(...)` float32, without gradient.
    """
    values = ops.stop_gradient(ops.cast(values, "float32"))
    mixture = Mixture(*(ops.stop_gradient(ops.cast(each, "float32")) for each in mixture))
    posteriors = ops.softmax(_scores(values, mixture), axis=0)  # (2, ...)
    return ops.where(mixture.means[0] <= mixture.means[1], posteriors[0], posteriors[1])


def _scores(values: Any, mixture: Mixture) -> Any:
    """Logarithm of each component's share of the density: `(2, ...)`."""

    def score(weight: Any, mean: Any, variance: Any) -> Any:
        norm = ops.log(ops.maximum(weight, 1e-37)) - ops.log(2 * math.pi * variance) / 2
        return norm - ops.square(values - mean) / (2 * variance)

    return ops.stack([score(*(part[index] for part in mixture)) for index in range(2)])
