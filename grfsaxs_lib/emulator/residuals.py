r"""What one realisation adds to the mean curve: a scale shift u and a residual r(q), from those of real structures.

The variances of both are proportional to :math:`a^3`, for the modes in a box count as :math:`(L/a)^3`. What remains
after this factor varies slowly with the parameters: the mean of the scale shifts, the *drift*, is a polynomial, and
their variance is the exponential of another.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial import KDTree

from ..parameters import Case
from .coordinates import layer_nanometres, to_coordinates
from .settings import Settings


@dataclass(frozen=True, eq=False)
class Residuals:
    """Scale shifts and residuals of real structures, in units in which they do not depend on the parameters.

    Attributes
    ----------
    case : Case
    settings : Settings
    structures : (n_structure, n_output) ndarray
        Parameters of the real structures.
    drift_coefficients, spread_coefficients : (n_term,) ndarray
        Of `polynomials`: the mean of the scale shifts, and the log variance in units of `usual_sd`.
    shifts : (n_structure,) ndarray
        In units of `scale_shift_sd`.
    residuals : (n_structure, n_q) ndarray
        In units of `usual_sd`.
    """

    case: Case
    settings: Settings
    structures: np.ndarray
    drift_coefficients: np.ndarray
    spread_coefficients: np.ndarray
    shifts: np.ndarray
    residuals: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "_tree", KDTree(neighbour_coordinates(self.case, self.structures, self.settings)))

    def drift(self, theta):
        """(n_sample,) ndarray: mean scale shift at parameters (n_sample, n_output)."""
        return polynomials(self.case, theta, self.settings.drift_degree) @ self.drift_coefficients

    def scale_shift_sd(self, theta):
        """(n_sample,) ndarray: standard deviation of the scale shifts at parameters (n_sample, n_output)."""
        basis = polynomials(self.case, theta, self.settings.spread_degree)
        return usual_sd(theta, self.settings) * np.exp(basis @ self.spread_coefficients / 2)

    def nearest(self, theta, count):
        """Scale shifts (n_sample, count) and residuals (n_sample, count, n_q) of the nearest structures, at theta."""
        rows = self._rows(theta, count)
        shifts = self.shifts[rows] * self.scale_shift_sd(theta)[:, np.newaxis]
        return shifts, self.residuals[rows] * usual_sd(theta, self.settings)[:, np.newaxis, np.newaxis]

    def draw(self, theta, rng):
        """Scale shifts (n_sample,), with the drift, and residuals (n_sample, n_q) of new structures at theta."""
        rows = self._rows(theta, self.settings.neighbours)
        weights = rng.standard_normal(rows.shape)
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        shifts = np.sum(weights * self.shifts[rows], axis=1) * self.scale_shift_sd(theta) + self.drift(theta)
        starts = np.arange(0, rows.size + 1, rows.shape[1])
        combination = csr_array((weights.ravel(), rows.ravel(), starts), shape=(len(rows), len(self.structures)))
        return shifts, combination @ self.residuals * usual_sd(theta, self.settings)[:, np.newaxis]

    def _rows(self, theta, count):
        if not 2 <= count <= len(self.structures):
            raise ValueError(f"count must be from 2 to {len(self.structures)}, the structures learned; got {count}")
        return self._tree.query(neighbour_coordinates(self.case, theta, self.settings), count)[1]


def learn(case, theta, shifts, precision, residuals, settings):
    """What `Residuals` holds of structures.

    Parameters
    ----------
    case : Case
    theta : (n_structure, n_output) ndarray
        Parameters.
    shifts, precision : (n_structure,) ndarray
        Scale shifts, and the precision (inverse variance) with which each is known.
    residuals : (n_structure, n_q) ndarray
        Log intensities less the mean at the shifted scale.
    settings : Settings

    Returns
    -------
    Residuals
    """
    sd = usual_sd(theta, settings)
    basis = polynomials(case, theta, settings.drift_degree) / sd[:, np.newaxis]
    drift = np.linalg.lstsq(basis, shifts / sd)[0]
    leverage = np.sum(np.linalg.qr(basis)[0] ** 2, axis=1)
    scaled = (shifts / sd - basis @ drift) / np.sqrt(1 - leverage)
    scaled *= np.sqrt(1 + np.mean(1 / (precision * sd**2)) / np.mean(scaled**2))  # what the fit leaves open
    basis = polynomials(case, theta, settings.spread_degree)
    spread = log_variance(basis, scaled)
    scaled = scaled / np.exp(basis @ spread / 2)
    return Residuals(case, settings, theta, drift, spread, scaled, residuals / sd[:, np.newaxis])


def usual_sd(theta, settings):
    """(n_sample,) ndarray: standard deviation of scale shifts in the paper's box by a alone."""
    return settings.scale_shift_sd * (theta[:, 0] / 4) ** 1.5


def shifted(theta, shift):
    """(n_sample, n_output) ndarray: effective parameters, with the scale a exp(u)."""
    return np.column_stack([theta[:, 0] * np.exp(shift), theta[:, 1:]])


def polynomials(case, theta, degree):
    """(n_sample, n_term) ndarray: `polynomials_at` the scaled coordinates of parameters (n_sample, n_output)."""
    return polynomials_at(to_coordinates(case, theta), degree)


def polynomials_at(coordinates, degree):
    """(n_sample, n_term) ndarray: products of Legendre polynomials of (n_sample, n_output), the constant first."""
    values = [np.polynomial.legendre.legvander(x, degree).T for x in coordinates.T]
    powers = itertools.product(range(degree + 1), repeat=len(values))
    return np.stack(
        [np.prod([v[k] for v, k in zip(values, ks, strict=True)], 0) for ks in powers if sum(ks) <= degree], 1
    )


def log_variance(basis, values):
    """Coefficients of the log variance of normal values, by maximum likelihood (Fisher scoring)."""
    coefficients = np.append(np.log(np.mean(values**2)), np.zeros(basis.shape[1] - 1))
    for _ in range(20):
        coefficients += np.linalg.lstsq(basis, values**2 / np.exp(basis @ coefficients) - 1)[0]
    return coefficients


def neighbour_coordinates(case, theta, settings):
    """(n_sample, n_output) ndarray: coordinates in which to look for neighbours.

    The thickness of the layer is one, in nm, for residuals are largest in the minima of a curve, which layers of equal
    thickness share.
    """
    coordinates = to_coordinates(case, theta)
    columns = [coordinates[:, 0], coordinates[:, 1] / settings.near_porosity]
    if len(case.outputs) == 3:
        columns.append(layer_nanometres(case, coordinates) / settings.near_thickness)
    return np.column_stack(columns)
