r"""
Definition
----------

Pore, layer and solid: a Gaussian random field is cut at a *porosity*, smoothed by a Gaussian filter of the width
*smoothing_length* and cut again, so that a layer coats the solid. Pore and layer together have the volume fraction
*porosity*, and the layer has the share *layer_fraction* of it. With T the layer and the solid together and S the solid
alone, of scattering length densities above that of the pores :math:`\rho_l` and :math:`\rho_s`,

.. math::

    I(q) = \text{scale} \cdot [\rho_l^2 I_{TT} + (\rho_s - \rho_l)^2 I_{SS} + 2\rho_l(\rho_s - \rho_l) I_{TS}]
           + \text{background}.

The three functions are means of simulated structures; see the documentation of grfsaxs. They were learned for scaling
parameters of 0.8 to 8 times the smoothing length, porosities of 0.1 to 0.9, layer fractions of 0.05 to 0.5, and
q times the smoothing length up to 3. Beyond that the edge of the range takes their place.

To install: copy this file, grfsaxs_three_phase.npz and grfsaxs_level_cut.txt into SasView's folder of plugin models.
The tables are made by make_table.py.

References
----------

#. M. Roding, P. Tomaszewski, S. Yu, M. Borg and J. Ronnols, *Front. Mater.*, 9 (2022) 956839
"""

import os
from statistics import NormalDist

import numpy as np
from numpy import inf

name = "grfsaxs_three_phase"
title = "Three-phase material: pores, a layer and a solid from a Gaussian random field"
description = "Porous material with a length scale, a porosity and a layer on the solid"
category = "shape-independent"
single = False

#             ["name", "units", default, [lower, upper], "type", "description"]
parameters = [
    ["scaling_parameter", "Ang", 40.0, [1.0, inf], "volume", "length scale a of the field"],
    ["porosity", "", 0.4, [0.1, 0.9], "", "volume fraction of pores and layer"],
    ["layer_fraction", "", 0.3, [0.05, 0.5], "", "share of the layer in pores and layer"],
    ["smoothing_length", "Ang", 10.0, [0.1, inf], "", "width of the filter that makes the layer"],
    ["sld", "1e-6/Ang^2", 1.0, [-inf, inf], "sld", "scattering length density of the solid"],
    ["sld_layer", "1e-6/Ang^2", 0.65, [-inf, inf], "sld", "scattering length density of the layer"],
    ["sld_solvent", "1e-6/Ang^2", 0.0, [-inf, inf], "sld", "scattering length density in the pores"],
]

# SasView loads each file by itself, so what follows stands in grfsaxs_level_cut.py, too.
_FOLDER = os.path.dirname(os.path.abspath(__file__))
# First row: nothing, then thresholds t. Other rows: ln(a q), then ln of I / (contrast^2 a^3) of a sharp cut.
_TABLE = np.loadtxt(os.path.join(_FOLDER, "grfsaxs_level_cut.txt"))
_T, _LOG_S, _LOG_F = _TABLE[0, 1:], _TABLE[1:, 0], _TABLE[1:, 1:]
with np.load(os.path.join(_FOLDER, "grfsaxs_three_phase.npz")) as _file:
    _LOG_Q, _SPLINES = _file["log_q"], _file["splines"].astype(float)  # (9, 7, 7, 4, n_q)
_LOW, _HIGH = np.array([[np.log(0.8), 0.1, np.sqrt(0.05)], [np.log(8.0), 0.9, np.sqrt(0.5)]])


def _log_f(porosity):
    """The column of the table at a porosity, by cubic interpolation in t, in which it is even."""
    t = abs(NormalDist().inv_cdf(porosity))
    step = _T[1] - _T[0]
    first = min(int(t / step), len(_T) - 3) - 1
    nodes = first + np.arange(4)
    x = t / step - nodes
    weights = [np.prod(np.delete(x, k) / (nodes[k] - np.delete(nodes, k))) for k in range(4)]
    return _LOG_F[:, np.abs(nodes)] @ weights


def _functions(a, porosity, layer_fraction):
    """y of TT and SS, and those that go with cos qd and sin qd, at the nodes of ln q."""
    place = (np.array([np.log(a), porosity, np.sqrt(layer_fraction)]) - _LOW) / (_HIGH - _LOW)
    found = _SPLINES
    for x in np.clip(place, 0, 1):  # uniform cubic B-splines, axis by axis
        n = len(found)
        x = x * (n - 3)
        first = min(int(x), n - 4)
        x -= first
        y = 1 - x
        weights = np.array([y**3, 4 - 6 * x**2 + 3 * x**3, 4 - 6 * y**2 + 3 * y**3, x**3]) / 6
        found = np.tensordot(weights, found[first : first + 4], axes=1)
    return found


def _thickness(porosity, layer_fraction):
    """Thickness of the layer over a."""
    target, x = -np.log1p(-layer_fraction), (porosity - 0.5) / 0.4
    first = 0.2867 * np.exp(-(NormalDist().inv_cdf(porosity) ** 2) / 2) / porosity
    second, third = 0.1649 - 0.0953 * x, 0.0258 + 0.0165 * x - 0.0283 * x**2
    d = (np.sqrt(first**2 + 4 * second * target) - first) / (2 * second)
    for _ in range(6):
        d -= (d * (first + d * (second + d * third)) - target) / (first + d * (2 * second + d * 3 * third))
    return d


def form_volume(scaling_parameter):
    """Each part of a distribution counts by its volume fraction."""
    return 1.0


def Iq(
    q, scaling_parameter=40.0, porosity=0.4, layer_fraction=0.3, smoothing_length=10.0, sld=1.0, sld_layer=0.65,
    sld_solvent=0.0,
):  # fmt: skip
    """Intensity [1/cm] at q [1/Ang]."""
    q = np.asarray(q)
    log_s, log_q = np.log(scaling_parameter * q), np.log(q * smoothing_length)
    inside = np.clip(log_s, _LOG_S[0], _LOG_S[-1])
    beyond = 4 * np.maximum(log_s - inside, 0)
    both, solid = (
        np.exp(np.interp(inside, _LOG_S, _log_f(one)) - beyond) for one in (porosity * (1 - layer_fraction), porosity)
    )
    y = _functions(scaling_parameter / smoothing_length, porosity, layer_fraction)
    y_both, y_solid, y_cosine, y_sine = (np.interp(log_q, _LOG_Q, one) for one in y)
    y_both, y_solid = np.maximum(y_both, 0.01), np.maximum(y_solid, 0.01)
    phase = q * scaling_parameter * _thickness(porosity, layer_fraction)
    cross = np.sqrt(both * solid) * (y_cosine * np.cos(phase) + y_sine * np.sin(phase))
    both, solid = y_both * both, y_solid * solid
    bound = 0.995 * np.sqrt(both * solid)  # of Cauchy and Schwarz
    layer, rest = sld_layer - sld_solvent, sld - sld_layer
    total = layer**2 * both + rest**2 * solid + 2 * layer * rest * np.clip(cross, -bound, bound)
    return 1e-4 * scaling_parameter**3 * total  # 1e-12 / Ang^4 times Ang^3, in 1/cm


Iq.vectorized = True


def random():
    """Parameters at random."""
    a, porosity, layer_fraction = np.random.uniform((1, 0.1, 0.05), (1.9, 0.9, 0.5))  # noqa: NPY002 -- see sasmodels
    return {"scaling_parameter": 10**a, "porosity": porosity, "layer_fraction": layer_fraction}


# What this file gives; tests of grfsaxs compare its curves with simulated structures.
tests = [
    [{"scaling_parameter": 40.0, "porosity": 0.4, "layer_fraction": 0.3, "background": 0.0}, 0.01, 67.9042],
    [{"scaling_parameter": 60.0, "porosity": 0.35, "layer_fraction": 0.3, "background": 0.0}, 0.1, 0.00439316],
]
