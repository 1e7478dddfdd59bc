"""Coordinates in which the curves of a case are smooth: ln a, porosity, thickness of the layer.

A Gaussian process learns in them, and tables have even steps in them.
"""

import numpy as np
from scipy.special import ndtri

from ..grid import PAPER_GRID

_MARGIN = 0.06  # of ln a beyond the prior, for scale shifts: 2.5 to 4 standard deviations of those at a = 8 nm
_NEWTON_STEPS = 6  # from the root without C


def layer_thickness(porosity, layer_fraction):
    r"""Thickness of the layer in units of a, roughly: a coordinate, not a measurement.

    A layer that fills the share :math:`\nu` of the pores reaches as far from the solid as a share :math:`\nu` of them
    lies. Distances d to the solid follow :math:`-\ln(1-\nu) = A d + B d^2 + C d^3` with :math:`A \propto
    e^{-\Phi^{-1}(\epsilon)^2/2}/\epsilon`, the specific surface of a level set. The constants are those that make waves
    of phase sd most likely: Gaussian processes at nine s = aq from 2.6 to 20, each of 400 reference curves, for both
    three-phase cases. Distances in level sets of 192³ voxels, a = 8 voxels, are the same within half a voxel and 3 %.

    Parameters
    ----------
    porosity, layer_fraction : array_like

    Returns
    -------
    ndarray of float64
    """
    target = -np.log1p(-np.asarray(layer_fraction))
    A, B, C = _distances(np.asarray(porosity))
    d = (np.sqrt(A**2 + 4 * B * target) - A) / (2 * B)
    for _ in range(_NEWTON_STEPS):
        d = d - (d * (A + d * (B + d * C)) - target) / (A + d * (2 * B + d * 3 * C))
    return d


def _distances(porosity):
    """A, B and C of `layer_thickness`."""
    x = (porosity - 0.5) / 0.4
    A = 0.2867 * np.exp(-(ndtri(porosity) ** 2) / 2) / porosity
    return A, 0.1649 - 0.0953 * x, 0.0258 + 0.0165 * x - 0.0283 * x**2


def prior_limits(case):
    """(2, n_output) ndarray: smallest and largest parameters."""
    return np.transpose([case.ranges[name] for name in case.outputs])


def _coordinates(theta):
    """ln a, porosity and, in three phases, the thickness of the layer."""
    thickness = [layer_thickness(theta[:, 1], layer_fraction) for layer_fraction in theta[:, 2:].T]
    return np.column_stack([np.log(theta[:, 0]), theta[:, 1], *thickness])


def coordinate_ends(case):
    """(2, n_coordinate) ndarray: smallest and largest coordinates, those of corners of the prior, and a margin."""
    corners = _coordinates(np.stack(np.meshgrid(*prior_limits(case).T), axis=-1).reshape(-1, len(case.outputs)))
    ends = np.stack([corners.min(axis=0), corners.max(axis=0)])
    ends[:, 0] += -_MARGIN, _MARGIN
    return ends


def to_coordinates(case, theta):
    """(n_sample, n_output) ndarray: ln a, porosity and thickness of the layer, from -1 to 1 where structures lie."""
    low, high = coordinate_ends(case)
    return 2 * (_coordinates(theta) - low) / (high - low) - 1


def from_coordinates(case, coordinates):
    """(..., n_output) ndarray: the parameters that `to_coordinates` was given."""
    low, high = coordinate_ends(case)
    logarithm, porosity, *thickness = np.moveaxis(low + (np.asarray(coordinates) + 1) / 2 * (high - low), -1, 0)
    A, B, C = _distances(porosity)
    fractions = [-np.expm1(-d * (A + d * (B + d * C))) for d in thickness]
    return np.stack([np.exp(logarithm), porosity, *fractions], axis=-1)


def layer_nanometres(case, coordinates):
    """(n_sample,) ndarray: thickness of the layer [nm], at coordinates of three phases."""
    low, high = coordinate_ends(case)
    logarithm, _, thickness = np.transpose(low + (coordinates + 1) / 2 * (high - low))
    return np.exp(logarithm) * thickness


def layer_voxels(case, coordinates):
    """(n_sample,) ndarray: thickness of the layer in voxels of the paper's grid, at coordinates of three phases."""
    return layer_nanometres(case, coordinates) / PAPER_GRID.voxel_size
