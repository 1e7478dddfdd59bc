"""Curves that a formula makes, for the tests of what learns from them."""

import numpy as np

Q = np.linspace(0.04, 3.0, 40)


def curves(n, seed, lower=0.8, upper=8.0):
    """Plateau, knee at q = 1/a, Porod tail, some speckle: curves that tell a well."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(lower, upper, n)
    smooth = 1e9 * a[:, np.newaxis] ** 3 / (1 + (a[:, np.newaxis] * Q) ** 4)
    return smooth * np.exp(0.1 * rng.standard_normal(smooth.shape)), a
