r"""
Definition
----------

Two phases made by a cut through a Gaussian random field: pores of volume fraction *porosity* in a solid, both
continuous over wide ranges of porosity. The field has the spectral density
:math:`\Gamma(q) = (1 + (aq)^8)^{-2}` with the scaling parameter *a*, and the scattering intensity is

.. math::

    I(q) = \text{scale} \cdot (\Delta\rho)^2\, 4\pi \int_0^\infty C(r)\, \frac{\sin qr}{qr}\, r^2\, dr
           + \text{background}, \qquad
    C(r) = \frac{1}{2\pi} \int_0^{\arcsin g(r)} \exp\left(-\frac{t^2}{1 + \sin\varphi}\right) d\varphi

with the correlation g(r) of the field and the threshold :math:`t = \Phi^{-1}(\text{porosity})`. A porosity and one
minus it scatter alike. The specific surface is :math:`0.285\, e^{-t^2/2}/a`. A distribution of the scaling parameter is
one of volume fractions.

To install: copy this file and grfsaxs_level_cut.txt beside it into SasView's folder of plugin models. The table is made
by make_table.py.

References
----------

#. N. F. Berk, *Phys. Rev. Lett.*, 58 (1987) 2718-2721
#. M. Roding, P. Tomaszewski, S. Yu, M. Borg and J. Ronnols, *Front. Mater.*, 9 (2022) 956839
"""

import os
from statistics import NormalDist

import numpy as np
from numpy import inf

name = "grfsaxs_level_cut"
title = "Two-phase material: level cut of a Gaussian random field"
description = "Bicontinuous or porous two-phase material with a length scale and a porosity"
category = "shape-independent"
single = False

#             ["name", "units", default, [lower, upper], "type", "description"]
parameters = [
    ["scaling_parameter", "Ang", 40.0, [0.1, inf], "volume", "length scale a of the field"],
    ["porosity", "", 0.3, [0.011, 0.989], "", "volume fraction of the pores"],
    ["sld", "1e-6/Ang^2", 1.0, [-inf, inf], "sld", "scattering length density of the solid"],
    ["sld_solvent", "1e-6/Ang^2", 6.3, [-inf, inf], "sld", "scattering length density in the pores"],
]

# First row: nothing, then thresholds t. Other rows: ln(a q), then ln of I / (contrast^2 a^3) at each threshold.
_TABLE = np.loadtxt(os.path.join(os.path.dirname(os.path.abspath(__file__)), "grfsaxs_level_cut.txt"))
_T, _LOG_S, _LOG_F = _TABLE[0, 1:], _TABLE[1:, 0], _TABLE[1:, 1:]


def _log_f(porosity):
    """The column of the table at a porosity, by cubic interpolation in t, in which it is even."""
    t = abs(NormalDist().inv_cdf(porosity))
    step = _T[1] - _T[0]
    first = min(int(t / step), len(_T) - 3) - 1
    nodes = first + np.arange(4)
    x = t / step - nodes
    weights = [np.prod(np.delete(x, k) / (nodes[k] - np.delete(nodes, k))) for k in range(4)]
    return _LOG_F[:, np.abs(nodes)] @ weights


def form_volume(scaling_parameter):
    """Each part of a distribution counts by its volume fraction."""
    return 1.0


def Iq(q, scaling_parameter=40.0, porosity=0.3, sld=1.0, sld_solvent=6.3):
    """Intensity [1/cm] at q [1/Ang]."""
    log_s, log_f = np.log(scaling_parameter * np.asarray(q)), _log_f(porosity)
    inside = np.clip(log_s, _LOG_S[0], _LOG_S[-1])
    # Beyond the table: a plateau, and Porod's law.
    f = np.exp(np.interp(inside, _LOG_S, log_f) - 4 * np.maximum(log_s - inside, 0))
    return 1e-4 * (sld - sld_solvent) ** 2 * scaling_parameter**3 * f  # 1e-12 / Ang^4 times Ang^3, in 1/cm


Iq.vectorized = True


def random():
    """Parameters at random."""
    a, porosity = np.random.uniform((1, 0.02), (3, 0.98))  # noqa: NPY002 -- sasmodels seeds the global generator
    return {"scaling_parameter": 10**a, "porosity": porosity}


# What this file gives; tests of grfsaxs compare it with the closed form.
tests = [
    [{"scaling_parameter": 40.0, "porosity": 0.3, "background": 0.0}, 0.01, 1862.8],
    [{"scaling_parameter": 40.0, "porosity": 0.3, "background": 0.0}, 0.1, 1.10646],
    [{"scaling_parameter": 100.0, "porosity": 0.5, "background": 0.0}, 0.05, 8.08514],
]
