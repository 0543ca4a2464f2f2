"""The mixture of two components against its equations in loops, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from sklearn.mixture import GaussianMixture

from keras_semimed.layers import Mixture, fit_mixture, mixture_posterior
from tests.gradients import gradient
from tests.losses.helpers import compiled


def array(value):
    return ops.convert_to_numpy(value)


def scores_by_hand(x, weights, means, variances):
    return np.array([
        np.log(p) - (x - m) ** 2 / (2 * v) - np.log(2 * np.pi * v) / 2
        for p, m, v in zip(weights, means, variances, strict=True)
    ])  # fmt: skip


def nearest_by_hand(x):
    """Hard shares `(2, n)` after twenty rounds from the centres 0 and 1."""
    centres = [0.0, 1.0]
    for _ in range(21):
        first = np.abs(x - centres[0]) <= np.abs(x - centres[1])
        centres = [x[part].mean() if part.any() else old for part, old in zip((first, ~first), centres, strict=True)]
    return np.array([first, ~first], "float64")


def fit_by_hand(x, rounds=50, tolerance=1e-2, floor=5e-4):
    """Weights, means, variances, low mean first, and the number of rounds."""
    x = np.asarray(x, "float64")

    def maximize(shares):
        counts = shares.sum(1) + 10 * np.finfo("float32").eps
        means = shares @ x / counts
        spread = np.array([(s * (x - m) ** 2).sum() / n for s, m, n in zip(shares, means, counts, strict=True)])
        return counts / counts.sum(), means, spread + floor

    parameters, bound, done = maximize(nearest_by_hand(x)), -np.inf, 0
    while done < rounds:
        done += 1
        scores = scores_by_hand(x, *parameters)
        total = np.log(np.exp(scores).sum(0))
        change, bound = abs(total.mean() - bound), total.mean()
        parameters = maximize(np.exp(scores - total))
        if change < tolerance:
            break
    order = np.argsort(parameters[1])
    return [each[order] for each in parameters], done


def losses(seed, count=120, share=0.7, far=0.5):
    """Losses of two kinds, scaled to 0..1."""
    random = np.random.default_rng(seed)
    few = round(share * count)
    x = np.concatenate([random.exponential(0.08, few), far + random.normal(0, 0.15, count - few)])
    random.shuffle(x)
    return ((x - x.min()) / (x.max() - x.min())).astype("float32")


@pytest.mark.parametrize("seed", range(6))
def test_fit_is_that_of_the_equations(seed):
    x = losses(seed, count=(120, 40, 7, 200, 256, 3)[seed], far=(0.5, 0.9, 0.5, 0.3, 0.6, 0.9)[seed])
    valid = np.ones(len(x) + 6, "float32")
    padded = np.concatenate([x[:2], np.full(4, 7.0, "float32"), x[2:], np.full(2, np.nan, "float32")])
    valid[2:6], valid[-2:] = 0, 0
    found = compiled(fit_mixture, padded, valid)
    expected, _ = fit_by_hand(x)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(array(one), two, rtol=2e-4, atol=1e-5)
    assert array(found.means)[0] < array(found.means)[1]


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3])
@pytest.mark.parametrize("seed", range(4))
def test_fit_is_that_of_scikit_learn_from_the_same_start(seed, tolerance):
    x = losses(seed + 10, count=200, far=0.35).astype("float64")
    shares = nearest_by_hand(x)
    counts = shares.sum(1)
    means = shares @ x / counts
    variances = np.array([(s * (x - m) ** 2).sum() / n for s, m, n in zip(shares, means, counts, strict=True)]) + 5e-4
    other = GaussianMixture(
        2, tol=tolerance, reg_covar=5e-4, max_iter=50, weights_init=counts / counts.sum(), means_init=means[:, None],
        precisions_init=1 / variances[:, None, None],
    ).fit(x[:, None])  # fmt: skip
    found = fit_mixture(x, np.ones(len(x)), tolerance=tolerance)
    assert other.converged_ and fit_by_hand(x, tolerance=tolerance)[1] == other.n_iter_ >= 2
    np.testing.assert_allclose(array(found.weights), other.weights_, rtol=1e-3)
    np.testing.assert_allclose(array(found.means), other.means_[:, 0], rtol=1e-3)
    np.testing.assert_allclose(array(found.variances), other.covariances_[:, 0, 0], rtol=1e-3)
    grid = np.linspace(0, 1, 41)
    np.testing.assert_allclose(
        array(mixture_posterior(grid, found)), other.predict_proba(grid[:, None])[:, 0], atol=2e-3
    )


def test_start_takes_the_place_of_the_library_s_random_one():
    x = losses(20, count=240, far=0.8).astype("float64")
    other = GaussianMixture(2, tol=1e-2, reg_covar=5e-4, max_iter=50, random_state=0).fit(x[:, None])
    low = other.means_[:, 0].argmin()
    found = fit_mixture(x, np.ones(len(x)))
    np.testing.assert_allclose(array(found.means), np.sort(other.means_[:, 0]), rtol=1e-3)
    np.testing.assert_allclose(array(found.weights)[0], other.weights_[low], rtol=1e-3)


def test_rounds_stop_it():
    x = losses(30, far=0.35)
    for rounds in (1, 2, 3):
        found = fit_mixture(x, np.ones(len(x)), rounds=rounds, tolerance=1e-7)
        expected, done = fit_by_hand(x, rounds=rounds, tolerance=1e-7)
        assert done == rounds
        np.testing.assert_allclose(array(found.means), expected[1], rtol=1e-5)
    assert fit_by_hand(x, tolerance=1e-7)[1] > 3


def test_the_numbers_of_the_specification():
    mixture = Mixture(np.array([0.5, 0.5]), np.array([0.1, 0.8]), np.array([0.01, 0.01]))
    np.testing.assert_allclose(array(mixture_posterior(np.array([0.45, 0.4]), mixture)), [0.5, 0.970688], atol=2e-6)
    turned = Mixture(*(each[::-1].copy() for each in mixture))
    np.testing.assert_allclose(array(mixture_posterior(np.array([0.45, 0.4]), turned)), [0.5, 0.970688], atol=2e-6)


def test_posterior_is_that_of_the_equation_in_any_shape():
    random = np.random.default_rng(0)
    mixture = Mixture(np.array([0.3, 0.7]), np.array([0.2, 0.5]), np.array([0.02, 0.05]))
    x = random.uniform(size=(2, 3, 4))
    scores = np.exp(scores_by_hand(x, *mixture))
    np.testing.assert_allclose(array(mixture_posterior(x, mixture)), scores[0] / scores.sum(0), rtol=1e-5)
    assert not gradient(lambda v: ops.sum(mixture_posterior(v, mixture)), x.astype("float32")).any()


@pytest.mark.parametrize("case", ["nothing", "one", "all the same", "two kinds of one value"])
def test_degenerate_values_stay_finite(case):
    x, valid = np.zeros(6, "float32"), np.ones(6, "float32")
    if case == "nothing":
        valid[:] = 0
    elif case == "one":
        valid[1:] = 0
    elif case == "two kinds of one value":
        x[3:] = 1
    found = fit_mixture(x, valid)
    assert all(np.isfinite(array(each)).all() for each in found)
    np.testing.assert_allclose(array(found.weights).sum(), 1, rtol=1e-6)
    assert np.isfinite(array(mixture_posterior(np.array([0.0, 0.5, 1.0, 50.0]), found))).all()
    if case == "two kinds of one value":
        np.testing.assert_allclose(array(found.means), [0, 1], atol=1e-6)
        np.testing.assert_allclose(array(found.variances), 5e-4, rtol=1e-3)


def test_no_slope_goes_through_the_fit():
    x = losses(1)
    assert not gradient(lambda v: ops.sum(ops.stack(list(fit_mixture(v, np.ones(len(x)))))), x).any()
