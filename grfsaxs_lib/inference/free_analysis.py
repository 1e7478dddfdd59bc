"""What a curve tells of a two-phase structure whose spectral density is free: bands, correlations, a structure."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits

from . import free_fit, free_spectrum, level_cut
from .judgement import judge
from .result import Analysis

_N = 200  # points of a spectrum, distances of a correlation
_BANDS = {"lower_95": 0.025, "lower_68": 0.16, "upper_68": 0.84, "upper_95": 0.975}
_SEEN = 10  # standard deviations of `sensitivity`, below which it is the smoothness that gives a density
_MOST_SURFACE = 0.15  # relative standard deviation
_MOST_UNSEEN = 0.1  # share of the variance at waves outside the measured q
_MOST_EXTRAPOLATED = 0.05  # share of -g''(0) beyond the last knot
_UNSEEN_ERROR = 0.2  # of ln area, over the share of -g''(0) at waves that the curve does not show: of random spectra
_WALL = 3.0  # standard deviations of the slope at the last knot, towards interfaces of an infinite area
_CONTRADICTION = 3.0, 0.05  # standard deviations, and of the logarithm of the invariant
_SMALLEST_SHARE = 0.98, 0.16  # of the porosities that must be possible: without a remark, and to be reliable
_BOUND = (
    "For {:.0f} % of the porosities that were given there is a spectral density that describes the curve, {:.3g} to "
    "{:.3g}; the others were left out."
)
_REMEDY = (
    "No cut of a Gaussian field of this porosity scatters like it, whatever its spectral density (but for peaks much "
    "narrower than 6 % of their k, which the spline cannot follow); or q ends before the density has fallen off (it is "
    "a power of k from 0.8 of the largest q on); or the standard deviations are too small (relative_error=), or a part "
    "of the curve is not the sample's (q_range=). Look at the plot."
)
_GIVEN = (
    "All intervals hold for the porosity that was given: another one fits as well, with another spectral density and "
    "other interfaces."
)
_PROOF = (
    "A fit does not prove the morphology: structures other than a cut Gaussian field can scatter alike. The "
    "smoothness of the spectrum is the one with the largest evidence, tau = {:.3g}."
)


@dataclass(frozen=True, eq=False, repr=False)
class FreeAnalysis(Analysis):
    """An `Analysis` with a free spectral density; its samples are porosity and what follows from the interfaces.

    Attributes
    ----------
    posterior : Posterior
    x : (n_x,) ndarray
        Its most likely coordinates at the porosity.
    porosity : float
        Median of its distribution.
    draws : Draws
    k, r : (n,) ndarray
        Where the densities and correlations of the draws are given [nm^-1, nm].
    seen : (n,) ndarray of bool
        Whether the curve depends on the density at k.
    smoothness : float
        Standard deviation tau of the curvature, by evidence.
    """

    posterior: free_spectrum.Posterior
    x: np.ndarray
    porosity: float
    draws: free_fit.Draws
    k: np.ndarray
    r: np.ndarray
    seen: np.ndarray
    smoothness: float

    @property
    def spectrum(self):
        r"""xarray Dataset over k [nm^-1]: median and bands of the spectral density [nm^3].

        It is normalised to :math:`\int k^2 \Gamma(k)\, dk = 1`. `from_data` is True where the curve clearly depends on
        the density (`free_fit.sensitivity`); elsewhere it is the prior that shows, the curve at most gives an
        upper bound, and the lower ends of the bands are 0.
        """
        import xarray as xr

        quantiles = {name: np.exp(values) for name, values in _quantiles(self.draws.log_density).items()}
        for name in ("lower_68", "lower_95"):
            quantiles[name] = np.where(self.seen, quantiles[name], 0.0)
        found = xr.Dataset({name: ("k", values, {"units": "nm3"}) for name, values in quantiles.items()})
        found["from_data"] = "k", self.seen
        return found.assign_coords(k=("k", self.k, {"units": "nm-1"}))

    @property
    def correlation(self):
        """xarray Dataset over r [nm]: correlation g of the field and two-point function, medians and bands.

        The two-point function is the probability that two points at a distance r are both in the pores. `from_data` is
        True for r between pi over the largest and pi over the smallest measured q.
        """
        import xarray as xr

        found = xr.Dataset()
        for name, values in (("g", self.draws.correlation), ("two_point", self.draws.two_point)):
            for quantile, line in _quantiles(values).items():
                found[name if quantile == "median" else f"{name}_{quantile}"] = "r", line
        low, high = np.pi / self.curve.q[-1], np.pi / self.curve.q[0]
        found["from_data"] = "r", (self.r >= low) & (self.r <= high)
        return found.assign_coords(r=("r", self.r, {"units": "nm"}))

    def density(self, k):
        """The most likely spectral density [nm^3] at k [nm^-1], (n,) ndarray; see `spectrum`."""
        model, u = self.posterior.model, self.x[: self.posterior.n]
        return np.exp(model.spectrum.basis(k) @ u - model.log_norm(u))

    @cached_property
    def loss(self):
        """1 - g of the most likely density at the distances `level_cut.R` times `unit`."""
        return level_cut.loss_of_weights(self.posterior.weights(self.x))

    @property
    def unit(self):
        """Unit of length of the tables [nm]."""
        return self.posterior.model.unit

    @property
    def wavelength(self):
        """Inverse of the wave number below which half of the field's variance lies [nm]."""
        shares = np.cumsum(self.posterior.weights(self.x))
        return self.unit / level_cut.K[np.searchsorted(shares, 0.5)]

    def structure(self, grid, seed=0, device="cpu"):
        """Draw a structure with the most likely spectral density, cut at the median porosity.

        Parameters
        ----------
        grid : Grid
        seed : int
        device : {"cpu", "gpu"}

        Returns
        -------
        Structure
        """
        from .drawn_structure import draw_structure

        return draw_structure(self, grid, seed, device)

    def plot(self, seed=0):
        """Draw the curve and its fit, residuals, the spectrum with its bands, and a plane of a structure.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from .report import plot_free_analysis

        return plot_free_analysis(self, seed)

    def to_dataset(self):
        """The `Dataset` of an `Analysis`, with spectrum and correlation."""
        found = super().to_dataset()
        found.attrs |= {f"given_{name}": getattr(self.settings, name) or () for name in ("porosity", "contrast")}
        found.attrs["smoothness"] = self.smoothness
        spectrum = self.spectrum.rename({name: f"spectrum_{name}" for name in self.spectrum})
        return found.merge(spectrum).merge(self.correlation.rename(from_data="correlation_from_data"))


def _quantiles(values):
    """Median and ends of the bands of draws, a dict of ndarrays."""
    shares = {"median": 0.5} | _BANDS
    return dict(zip(shares, np.quantile(values, list(shares.values()), axis=0), strict=True))


def infer(curve, settings, rng, remarks):
    """The `FreeAnalysis` of a curve with standard deviations."""
    with threadpool_limits(1, user_api="blas"):  # products of small matrices, on threads of their own
        found = free_fit.find(curve, settings)
        k = np.geomspace(0.1 * curve.q[0], 3 * curve.q[-1], _N)
        r = np.geomspace(0.1 * np.pi / curve.q[-1], 4 * np.pi / curve.q[0], _N)
        draws = free_fit.draw(found, k, r, rng)
    posterior, best = found.posterior, found.central
    seen = (k >= curve.q[0]) & (k <= curve.q[-1]) & (free_fit.sensitivity(posterior, best, k) > _SEEN)
    fit = posterior.fitted(best.x, best.porosity)
    flat = np.average(curve.intensity, weights=curve.sigma**-2.0)
    chi_square, freedom = best.chi_square, free_fit.degrees_of_freedom(curve, best)
    fitted = {
        "chi_square": chi_square, "freedom": freedom, "residuals": (curve.intensity - fit) / curve.sigma, "fit": fit,
        "drop": np.sum(((curve.intensity - flat) / curve.sigma) ** 2) - chi_square, "effective": draws.effective,
        "background": np.median(draws.background), "prefactor": np.median(draws.prefactor),
    }  # fmt: skip
    severe, mild = judge(curve, fitted, _REMEDY)
    last = max(k[seen], default=curve.q[0])
    unseen = _share_beyond(last, posterior, draws.x)
    surface = draws.surface * np.exp(_UNSEEN_ERROR * unseen * rng.standard_normal(unseen.size))
    samples = _samples(draws, settings, surface)
    severe += _doubts(curve, found, seen) + _doubts_of_given(settings, found)
    severe += _doubts_of_surface(posterior, best, surface)
    if not severe and found.possible < _SMALLEST_SHARE[0]:
        mild.append(_BOUND.format(100 * found.possible, draws.porosity.min(), draws.porosity.max()))
    remarks = [*[_GIVEN] * bool(settings.porosity), _PROOF.format(best.smoothness), *remarks]
    bic = chi_square + best.used * np.log(curve.q.size)
    return FreeAnalysis(
        curve, settings, samples, draws.prefactor / level_cut.PAPER_SCALE, draws.background, fit, chi_square, freedom,
        draws.log_evidence, bic, draws.effective, [*severe, *mild, *remarks], not severe, posterior, best.x,
        best.porosity, draws, k, r, seen, best.smoothness,
    )  # fmt: skip


def _share_beyond(k, posterior, x):
    """Share of waves beyond k [nm^-1] in -g''(0), to which the square of the area is proportional; x is (..., n_x)."""
    waves = level_cut.K / posterior.model.unit
    area = posterior.weights(x) * waves**2
    return area[..., waves > k].sum(axis=-1) / area.sum(axis=-1)


def _samples(draws, settings, surface):
    """Dict of name to (n,) ndarray: porosity, and what the interfaces give."""
    found = {"porosity": draws.porosity}  # all the same where it is given without an uncertainty
    if settings.porosity is None:
        found["mirror_porosity"] = 1 - draws.porosity
    return found | {
        "specific_surface": surface,
        "porod_constant": 2 * np.pi * draws.prefactor * surface,
        "pore_chord_length": 4 * draws.porosity / surface,
        "solid_chord_length": 4 * (1 - draws.porosity) / surface,
    }


def _doubts(curve, fit, seen):
    """Reasons not to trust a spectrum."""
    found, posterior = [], fit.posterior
    maxima = [one for group in fit.maxima for one in group]
    weights = np.array([posterior.weights(one.x) for one in maxima])
    below, above = (weights[:, level_cut.K < q * posterior.model.unit].sum(axis=1) for q in curve.q[[0, -1]])
    if not seen.any():
        found.append("The curve determines the spectral density nowhere. Measure longer.")
    if below.max() > _MOST_UNSEEN:
        found.append(
            f"{100 * below.max():.0f} % of the field's variance lie at waves longer than the curve shows, where only "
            "the prior speaks. Measure at smaller angles."
        )
    if 1 - above.min() > _MOST_UNSEEN or min(posterior.prior(one.x, one.smoothness)[-1] for one in maxima) < -_WALL:
        found.append(
            f"{100 * (1 - above.min()):.0f} % of the field's variance lie at waves shorter than the curve shows, or "
            "its density does not fall off. Most likely the porosity is too low (or, beyond 1/2, too high) for this "
            "curve: a density that fits would have to be negative. Else measure at larger angles."
        )
    return found


def _doubts_of_given(settings, fit):
    """Reasons not to trust what was given of the porosity and the contrast."""
    found, best = [], fit.central
    if fit.possible < _SMALLEST_SHARE[1]:
        found.append(
            f"The porosity contradicts the curve: {100 * fit.possible:.0f} % of its distribution, near "
            f"{best.porosity:.3g}, have a spectral density that describes the curve. Check porosity and contrast."
        )
    deviation = np.sqrt(free_fit.contradiction(settings, best, best.porosity))
    if settings.contrast and deviation > _CONTRADICTION[0]:
        change = best.log_prefactor[0] - settings.log_prefactor[0]
        if abs(change) > _CONTRADICTION[1]:
            given = settings.contrast[0]
            found.append(
                f"The absolute intensity contradicts what was given: at a porosity of {best.porosity:.3g} it asks for "
                f"a contrast of {given * np.exp(change / 2):.3g} instead of {given:.3g} 1e10 cm^-2 ({deviation:.1f} "
                "standard deviations). Check contrast and porosity, and whether the intensity is in cm^-1."
            )
    return found


def _doubts_of_surface(posterior, best, surface):
    """Reasons not to trust the area of the interfaces."""
    found = []
    extrapolated = _share_beyond(np.exp(posterior.model.spectrum.knots[-1]), posterior, best.x)
    if extrapolated > _MOST_EXTRAPOLATED:
        found.append(
            f"{100 * extrapolated:.0f} % of the square of specific_surface come from waves beyond the last knot, where "
            "the density is a guess, and its interval is that of the guess. Measure at larger angles, or with less "
            "background."
        )
    if surface.std() > _MOST_SURFACE * surface.mean():
        found.append(
            f"specific_surface is not determined: its standard deviation is "
            f"{100 * surface.std() / surface.mean():.0f} % of it. Measure at larger angles, or give the porosity with "
            "a smaller deviation."
        )
    return found
