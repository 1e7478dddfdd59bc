"""Gaussian processes of the emulator against dense linear algebra and refits."""

from types import SimpleNamespace

import numpy as np
import pytest

from grfsaxs_lib import CASES
from grfsaxs_lib.emulator import gaussian_process
from grfsaxs_lib.emulator.settings import DEFAULT

COUNT = 30
RNG = 4


def made_up(n, wave_number=6.0):
    """What `_interpolate_node` needs of one node: positions, values, variances, wave number."""
    rng = np.random.default_rng(RNG)
    x = rng.uniform(-1, 1, (COUNT, n))
    z = np.sin(3 * x[:, -1]) + x[:, 0] ** 2 + 0.05 * rng.standard_normal(COUNT)
    variances = np.stack([rng.uniform(0.5, 2, COUNT), np.ones(COUNT)])

    class Data(SimpleNamespace):
        def __call__(self, j):
            return np.arange(COUNT), x, z, variances

        def wave_number(self, j):
            return wave_number if n == 3 else 0.0

        def logarithms(self, j, values, smallest):
            return values

    return Data(), x, z, variances


def hyperparameters(n):
    return np.random.default_rng(RNG).normal(-0.5, 0.5, 5 if n == 2 else 11)


def covariance(logarithms, x, y, wave_number=6.0):
    """Of the signal, written out."""
    p, n = np.exp(logarithms), x.shape[1]
    apart = x[:, np.newaxis] - y
    result = p[2] * np.exp(-np.sum((apart / p[3 : 3 + n]) ** 2, axis=-1) / 2)
    if n == 3:
        envelope = np.exp(-np.sum((apart / p[8:]) ** 2, axis=-1) / 2)
        phase = wave_number * apart[..., 2]
        result += envelope * (p[6] * np.cos(phase) + p[7] * np.cos(2 * phase))
    return result


@pytest.mark.parametrize("n", [2, 3])
def test_likelihood_and_its_gradient(n):
    data, x, z, variances = made_up(n)
    p = hyperparameters(n)
    arguments = z, variances, x, data.wave_number(0)
    value, gradient = gaussian_process._negative_log_likelihood(p, *arguments)
    K = covariance(p, x, x) + np.diag(np.exp(p[:2]) @ variances)
    assert value == pytest.approx(z @ np.linalg.solve(K, z) / 2 + np.linalg.slogdet(K)[1] / 2, rel=1e-10)
    steps = 1e-5 * np.eye(len(p))
    values = [
        [gaussian_process._negative_log_likelihood(p + sign * step, *arguments)[0] for sign in (1, -1)]
        for step in steps
    ]
    np.testing.assert_allclose(gradient, [(above - below) / 2e-5 for above, below in values], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("n", [2, 3])
def test_tables_are_those_of_dense_algebra(n):
    data, x, z, variances = made_up(n)
    p = hyperparameters(n)
    axes = [np.linspace(-1, 1, m) for m in (3, 4, 5)[:n]]
    inflation = np.full((COUNT, 1), np.nan)
    table = gaussian_process._interpolate_node(data, 0, np.exp(p), axes, inflation)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, n)
    K, scaled = covariance(p, x, x) + np.diag(np.exp(p[:2]) @ variances), (z - z.mean()) / z.std()
    expected = z.mean() + z.std() * covariance(p, grid, x) @ np.linalg.solve(K, scaled)
    np.testing.assert_allclose(table.ravel(), expected, rtol=1e-8)
    # Residuals of processes that have not seen the value, over those of the process that has.
    signal = covariance(p, x, x)
    for i in (0, 7, COUNT - 1):
        others = np.delete(np.arange(COUNT), i)
        predicted = signal[i, others] @ np.linalg.solve(K[np.ix_(others, others)], scaled[others])
        fitted = signal[i] @ np.linalg.solve(K, scaled)
        assert inflation[i, 0] == pytest.approx((scaled[i] - predicted) / (scaled[i] - fitted), rel=1e-6)


@pytest.mark.parametrize("q", [np.linspace(0.04, 3, 60), np.linspace(0.04, 3, 500), np.geomspace(0.04, 3, 200)])
def test_curves_on_nodes_whatever_the_spacing_of_q(q):
    case = CASES["three_phase_high"]
    nodes, s = gaussian_process.node_positions(case, q)
    a = np.linspace(*case.ranges["scaling_parameter"], 50)
    theta = np.column_stack([a, np.full((50, 2), 0.3)])
    curves = 3 * np.log(theta[:, :1]) - np.log1p((theta[:, :1] * q) ** 2)
    found = gaussian_process._on_nodes(curves, theta, q, nodes, DEFAULT.node_step)
    there = (s >= a[:, np.newaxis] * q[0]) & (s <= a[:, np.newaxis] * q[-1])
    assert (np.isfinite(found) == there).all()
    np.testing.assert_allclose(found[there], np.broadcast_to(-np.log1p(s**2), found.shape)[there], atol=0.02)
