r"""Infer structure parameters from curves, through an emulator: maximum-likelihood fits and posteriors.

The fit that the paper set out to beat needs a simulation for each step. With an emulated mean a step takes
microseconds. `curve_model` has the likelihood. The *effective* scale :math:`a e^u` of the box, porosity and layer
fraction are fitted by Levenberg-Marquardt steps (`optimise`). The scale shift u of the box is not in the curve; it
widens the result. Draws from the posterior come from importance sampling (`posterior`).
"""

import warnings
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ..emulator.coordinates import coordinate_ends, from_coordinates, prior_limits
from ..grid import PAPER_Q
from ..measurement.noise import estimate_noise_level, is_noise_strange
from ..measurement.preprocess import average, log_intensity
from ..parameters import as_numbers, check
from . import curve_model, posterior
from .optimise import StartingGrid, closest_starts, find_maxima, starting_grid
from .posterior import Draws
from .settings import DEFAULT

_AT_A_TIME = 256  # curves


class MisfitWarning(UserWarning):
    """Curves that the model does not describe, or only beyond its prior; results for them mean little."""


class Fit(NamedTuple):
    """Most likely parameters of measured curves, from `Likelihood.fit`.

    Attributes
    ----------
    estimates, errors : dict of str to (n_sample,) ndarray of float64
        For each output, inside the prior; and standard errors, from the curvature of the likelihood.
    chi_square : (n_sample,) ndarray of float64
        Per degree of freedom, under the noise and the scatter that the likelihood states: about 1 where it is right.
    """

    estimates: dict
    errors: dict
    chi_square: np.ndarray


@dataclass(frozen=True, eq=False)
class Likelihood:
    """What fits need of an emulator, from `prepare`.

    Attributes
    ----------
    model : curve_model.CurveModel
    """

    model: curve_model.CurveModel
    _grid: StartingGrid

    @property
    def emulator(self):
        """The emulator that it was prepared from."""
        return self.model.emulator

    def fit(self, intensity):
        """Most likely parameters of measured curves.

        Parameters
        ----------
        intensity : (n_sample, n_q) array_like
            Measured intensity on the paper's scale, at the emulator's q.

        Returns
        -------
        Fit

        Raises
        ------
        ValueError
            If an intensity is not positive and finite, or the shape does not fit.

        Warns
        -----
        MisfitWarning
            If curves do not fit, or fit better beyond the prior, or have a noise that no level explains.
        """
        curves, variance, _ = self.average(intensity)
        theta, error, chi_square, beyond = self._fit(curves, variance)
        self._warn(chi_square, beyond, is_noise_strange(intensity, PAPER_Q))
        outputs = self.model.case.outputs
        return Fit(dict(zip(outputs, theta.T, strict=True)), dict(zip(outputs, error.T, strict=True)), chi_square)

    def inputs(self, intensity):
        """What a regression can learn from: the fit, its errors, the noise, and the averaged log intensity.

        Parameters and errors are those of `fit`.

        Returns
        -------
        (n_sample, n_input) ndarray of float32
        """
        curves, variance, noise_level = self.average(intensity)
        theta, error, _, _ = self._fit(curves, variance)
        return np.column_stack([theta, error, np.log(noise_level), curves]).astype(np.float32)

    def average(self, intensity):
        """Reduce measured curves to what the likelihood compares.

        Parameters and errors are those of `fit`.

        Returns
        -------
        curves, variance : (n_sample, n_bin) ndarray of float64
            Averages of the normalised log intensity, and their variance by measurement noise before normalisation.
        noise_level : (n_sample,) ndarray of float64
        """
        intensity = check("intensity", intensity)
        if intensity.ndim != 2 or intensity.shape[1] != PAPER_Q.size:
            raise ValueError(f"intensity must have shape (n_sample, {PAPER_Q.size}), got {intensity.shape}")
        noise_level = estimate_noise_level(intensity, PAPER_Q)
        # The logarithm of a lognormal variable lies half its variance below that of its mean.
        variance = np.log1p(noise_level[:, np.newaxis] / intensity)
        curves = average(log_intensity(intensity, PAPER_Q) + variance / 2, self.model.edges)
        return curves, self.model.average_variance(variance), noise_level

    def draw(self, parameters, noise_level, rng):
        """Draw averaged curves from the model of the likelihood itself.

        Parameters
        ----------
        parameters : dict of str to (n_sample,) array_like
        noise_level : (n_sample,) array_like
            0 for none, if the box is finite.
        rng : numpy.random.Generator

        Returns
        -------
        curves, variance : (n_sample, n_bin) ndarray of float64
            As from `average`, with the true noise level.
        """
        return self.model.draw(parameters, noise_level, rng)

    def posterior(self, curves, variance, rng, n_draws=256):
        """Draw from the posterior under the uniform prior, see the module `posterior`.

        Parameters
        ----------
        curves, variance : (n_sample, n_bin) array_like
            From `average` or `draw`.
        rng : numpy.random.Generator
        n_draws : int
            A curve.

        Returns
        -------
        Draws
            In random order.

        Raises
        ------
        ValueError
            If the shapes do not fit, a value is not finite, a variance is negative, or `n_draws` is not a positive
            integer.

        Warns
        -----
        MisfitWarning
            As `fit`, but for the noise.
        """
        curves, variance = self._checked(curves, variance)
        if not isinstance(n_draws, int | np.integer) or n_draws < 1:
            raise ValueError(f"n_draws must be a positive integer; got {n_draws!r}")
        draws, chi_square = np.empty((len(curves), n_draws, self.model.n_output)), np.empty(len(curves))
        beyond = np.empty(len(curves))
        with threadpool_limits(1, user_api="blas"):
            for start in range(0, len(curves), _AT_A_TIME):
                rows = slice(start, start + _AT_A_TIME)
                measured = curves[rows], variance[rows]
                maxima, _ = self._maxima(*measured, None)
                maxima, factors = find_maxima(self.model, *measured, maxima.points, maxima.best().points)
                chi_square[rows], beyond[rows] = self._goodness(maxima.best())
                draws[rows] = posterior.sample(self.model, *measured, maxima, factors, rng, n_draws)
        self._warn(chi_square, beyond)
        return Draws(zip(self.model.case.outputs, np.moveaxis(draws, -1, 0), strict=True), chi_square)

    def calibrated(self, intensity, parameters, rng):
        """This likelihood with the errors of the emulated mean, learned from curves that the emulator has not seen.

        Without them, posteriors of porosity and layer fraction are too narrow, see `curve_model`.

        Parameters
        ----------
        intensity : (n_sample, n_q) array_like
            Measured intensity of real structures on the paper's scale, at the emulator's q; a thousand for results.
        parameters : dict of str to (n_sample,) array_like
            True ones, for each output; more are ignored.
        rng : numpy.random.Generator

        Returns
        -------
        Likelihood

        Raises
        ------
        ValueError
            If an intensity is not positive and finite, or the shape does not fit.

        Warns
        -----
        MisfitWarning
            As `posterior`.
        """
        plain = replace(self, model=replace(self.model, offsets=None))
        curves, variance, _ = self.average(intensity)
        draws = plain.posterior(curves, variance, rng)
        truth, drawn = (
            np.stack([check(name, values[name]) for name in self.model.case.outputs], axis=-1)
            for values in (parameters, draws)
        )
        return replace(self, model=curve_model.calibrated(plain.model, truth, drawn))

    def in_volume(self, volume):
        """The likelihood of curves of another box.

        Parameters
        ----------
        volume : float
            In units of that of the emulated curves, 1 or more: structures of a smaller box leave the tables. What a
            finite box scatters has a variance in inverse proportion. ``inf`` leaves the measurement noise alone.

        Returns
        -------
        Likelihood

        Raises
        ------
        ValueError
            If the volume is less than 1.
        """
        if not volume >= 1:
            raise ValueError(f"volume must be 1 or more, in units of that of the emulated curves; got {volume}")
        return replace(self, model=self.model.in_volume(volume))

    def _checked(self, curves, variance):
        curves, variance = as_numbers("curves", curves), as_numbers("variance", variance)
        if curves.shape != (len(curves), self.model.edges.size) or variance.shape != curves.shape:
            raise ValueError(
                f"curves and variance must have shape (n_sample, {self.model.edges.size}), as average() returns them; "
                f"got {curves.shape} and {variance.shape}"
            )
        bad = ~(np.isfinite(curves) & np.isfinite(variance) & (variance >= 0)).all(axis=1)
        if bad.any():
            raise ValueError(f"curves must be finite and variance finite and not negative; curve {bad.argmax()} is not")
        return curves, variance

    def _maxima(self, curves, variance, count):
        """Maxima from the closest starts at `count` porosities (None: all), with the covariance at the closest."""
        starts = closest_starts(self._grid, self.model, curves, variance, count)
        return find_maxima(self.model, curves, variance, starts, starts[:, 0])

    def _fit(self, curves, variance):
        """(n_sample, n_output) ndarrays: estimates and standard errors; (n_sample,): what `_goodness` says of them."""
        theta, error = np.empty((2, len(curves), self.model.n_output))
        chi_square, beyond = np.empty((2, len(curves)))
        for start in range(0, len(curves), _AT_A_TIME):
            rows = slice(start, start + _AT_A_TIME)
            measured = curves[rows], variance[rows]
            found, _ = self._maxima(*measured, self.model.settings.starts)
            best = found.best().points
            found, _ = find_maxima(self.model, *measured, best[:, np.newaxis], best)
            theta[rows], error[rows] = self._describe(found.best())
            chi_square[rows], beyond[rows] = self._goodness(found.best())
        return theta, error, chi_square, beyond

    def _describe(self, maximum):
        """Parameters of maxima, inside the prior, and their standard errors."""
        case, n = self.model.case, self.model.n_output
        points, information = maximum.points[:, :n], maximum.information[:, :n, :n]
        low, high = prior_limits(case)
        theta = from_coordinates(case, points)
        jacobian = np.empty((len(theta), n, n))
        for i in range(n):
            shift = 1e-4 * np.eye(n)[i]
            jacobian[:, :, i] = (from_coordinates(case, points + shift) - from_coordinates(case, points - shift)) / 2e-4
        inverse = np.linalg.inv(jacobian)
        information = np.swapaxes(inverse, 1, 2) @ information @ inverse
        theta = np.clip(theta, low, high)
        covariance = np.linalg.inv(information + np.diag(12 / (high - low) ** 2))  # the precision of the prior
        covariance[:, 0, 0] += (theta[:, 0] * self.model.scale_shift_sd(theta)) ** 2
        return theta, np.minimum(np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)), (high - low) / np.sqrt(12))

    def _goodness(self, maximum):
        """(n_sample,) ndarrays: chi-square per degree of freedom, and how many deviations beyond the prior the best is.

        Beyond a bound at which the optimisation ended lies what the score statistic says: the chi-square that one
        more step without bounds would take off. Effective scales may leave the prior of a a little; what that is in
        deviations tells the rest.
        """
        case, n = self.model.case, self.model.n_output
        information = maximum.information[:, :n, :n] + 3 * np.eye(n)  # 3: of the range from -1 to 1
        slope = maximum.gradients[:, :n]
        pull = np.einsum("ni,ni->n", slope, np.linalg.solve(information, slope[..., np.newaxis])[..., 0])
        low, high = coordinate_ends(case)[:, 0]
        scale = low + (maximum.points[:, 0] + 1) / 2 * (high - low)
        ends = np.log(case.ranges["scaling_parameter"])
        theta = np.clip(from_coordinates(case, maximum.points[:, :n]), *prior_limits(case))
        variance = self.model.scale_shift_sd(theta) ** 2
        variance += np.linalg.inv(information)[:, 0, 0] * ((high - low) / 2) ** 2
        outside = np.maximum(0, np.maximum(ends[0] - scale, scale - ends[1]))
        chi_square = -2 * maximum.values / (self.model.edges.size - n)
        return chi_square, np.sqrt(np.maximum(pull, outside**2 / variance))

    def _warn(self, chi_square, beyond, strange=False):
        """Warn of curves that do not fit, of those that fit better beyond the prior, and of a strange noise."""
        (low, high), most = self.model.settings.chi_square, self.model.settings.beyond
        reasons = {
            f"do not fit: chi-square per degree of freedom is outside [{low:g}, {high:g}]": (chi_square > high)
            | (chi_square < low),
            f"fit better beyond the prior, by {most:g} deviations or more": beyond > most,
            "have a noise that the model does not know: single values that are off, or another scale": strange,
        }
        for what, bad in reasons.items():
            if np.any(bad):
                first = ", ".join(map(str, np.flatnonzero(bad)[:5])) + (", ..." if np.sum(bad) > 5 else "")
                warnings.warn(
                    f"{np.sum(bad)} of {bad.size} curves (index {first}) {what}. Do not trust the results for them "
                    f"as {self.model.case.name}; check the case, the unit of q, the scale of the intensity "
                    "(Grid.intensity_scale), background and hot pixels",
                    MisfitWarning,
                    stacklevel=3,
                )


def prepare(emulator, settings=DEFAULT):
    """Prepare fits of the curves of an emulator.

    Parameters
    ----------
    emulator : Emulator
    settings : Settings

    Returns
    -------
    Likelihood
        After about 25 s on one core; it takes 80 MB for three phases.
    """
    model = curve_model.build(emulator, settings)
    return Likelihood(model, starting_grid(model))
