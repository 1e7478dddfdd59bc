"""Structures to time, drawn from the paper's prior."""

import numpy as np
import pandas as pd

import grfsaxs_lib as gx


def draw_prior(n, seed):
    """Draw structures from the paper's prior, section 2.3: n/4 of each case, stratified in every parameter.

    Returns
    -------
    pandas.DataFrame
        Columns case, scaling_parameter [nm], porosity, layer_fraction and seed.
    """
    if n < 4 or n % 4:
        raise ValueError(f"the number of structures must be a positive multiple of 4, the cases; got {n}")
    rng = np.random.default_rng(seed)
    cases = []
    for name, case in gx.CASES.items():
        rows = {"case": name, "scaling_parameter": 0.0, "porosity": 0.0, "layer_fraction": np.zeros(n // 4)}
        for output, (lower, upper) in case.ranges.items():
            strata = (rng.permutation(n // 4) + rng.random(n // 4)) / (n // 4)
            rows[output] = lower + (upper - lower) * strata
        cases.append(pd.DataFrame(rows))
    sample = pd.concat(cases, ignore_index=True)
    sample["seed"] = np.arange(n) + 1000 * seed
    return sample
