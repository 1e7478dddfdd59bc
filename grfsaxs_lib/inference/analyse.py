"""Infer the structure of a sample from a measured curve: parameters with intervals, and whether to trust them."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from scipy.signal import savgol_filter
from scipy.special import ndtri

from ..files import moved_into_place, package_version
from ..measurement.curve import Curve
from ..parameters import VARIABLES
from ..physics.spectra import FAMILIES, check_shape, density_of
from . import level_cut, marginal_fit
from .filter_ratio import LARGEST_RATIO
from .level_cut_model import Model, Settings
from .marginal_fit import marginalise

LIMITS = {"scaling_parameter": (0.2, 50.0), "porosity": (0.02, 0.5)}
"""Ranges of the prior by default [nm, 1]."""

_MODEL_ERROR = 3e-4  # of the closed form's table, relative
_LEAST_POINTS = 12
_MISFIT = 1e-4  # probability of a chi-square as large, below which the model does not describe a curve
_STRUCTURED = 4.5  # standard deviations (2/sqrt n) by which the Durbin-Watson statistic may lie below 2
_PATTERN = 0.01  # share of the intensity that a pattern in the residuals may have, if sigma is larger
_SEEN = 30  # by how much chi-square must exceed that of a flat background
_QUANTILES = {"2.5 %": 0.025, "16 %": 0.16, "84 %": 0.84, "97.5 %": 0.975}


class AnalysisWarning(UserWarning):
    """The result of an analysis should not be published as it is; `Analysis.warnings` says why."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """What a curve tells of a sample.

    Attributes
    ----------
    curve : Curve
        The part that was analysed, with the standard deviations that were used.
    settings : Settings
    samples : dict of str to (n,) ndarray
        Draws from the posterior: scaling_parameter [nm], porosity, its mirror image 1 - porosity, free shape
        parameters, and specific_surface [1/nm] of a sharp cut where it is finite.
    prefactor, background : (n,) ndarray
        Draws of what multiplies the intensity on the paper's scale, and of what is added, in the unit of the intensity.
    fit : (n_q,) ndarray
        The most likely curve.
    chi_square : float
        Of this curve.
    degrees_of_freedom : int
    log_evidence : float
        Logarithm of the probability of the curve under the model, but for a constant that all models of the same curve
        and standard deviations share: only differences mean something.
    bic : float
        Bayesian information criterion; smaller is better.
    effective_samples : float
        Number of independent draws that the samples are worth.
    warnings : list of str
        Reasons not to trust the result, each with a remedy, then remarks.
    reliable : bool
        True if there is no such reason.
    """

    curve: Curve
    settings: Settings
    samples: dict
    prefactor: np.ndarray
    background: np.ndarray
    fit: np.ndarray
    chi_square: float
    degrees_of_freedom: int
    log_evidence: float
    bic: float
    effective_samples: float
    warnings: list
    reliable: bool

    @property
    def table(self):
        """DataFrame of median, standard deviation and quantiles, a row for each parameter."""
        rows = {
            name: {"median": np.median(values), "sd": values.std()}
            | {label: np.quantile(values, share) for label, share in _QUANTILES.items()}
            for name, values in self.samples.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")

    def __repr__(self):
        judged = "reliable" if self.reliable else "NOT reliable"
        lines = [repr(self.curve), f"chi-square {self.chi_square:.1f} of {self.degrees_of_freedom} degrees of freedom"]
        return "\n".join([*lines, str(self.table.round(5)), judged, *(f"- {text}" for text in self.warnings)])

    def plot(self, seed=0):
        """Draw the curve and its fit, residuals, and a plane of a structure with the median parameters.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from .report import plot_analysis

        return plot_analysis(self, seed)

    def to_netcdf(self, path, **attributes):
        """Write samples, curve and fit to a NetCDF file, with more attributes; it appears when it is complete."""
        import xarray as xr

        data = xr.Dataset({name: ("draw", values) for name, values in self.samples.items()})
        data["prefactor"], data["background"] = ("draw", self.prefactor), ("draw", self.background)
        for name in ("intensity", "sigma", "dq"):
            if getattr(self.curve, name) is not None:
                data[name] = "q", getattr(self.curve, name)
        data["fit"] = "q", self.fit
        data = data.assign_coords(q=("q", self.curve.q, {"units": "nm-1"}))
        for name in set(data) & set(VARIABLES) - {"intensity"}:
            data[name].attrs["units"] = VARIABLES[name].unit
        if "specific_surface" in data:
            data["specific_surface"].attrs["units"] = "nm-1"
        family = self.settings.spectral_density
        data.attrs = {
            "curve": self.curve.name,
            "notes": "; ".join(self.curve.notes),
            "warnings": "; ".join(self.warnings),
            "reliable": int(self.reliable),
            "chi_square": self.chi_square,
            "degrees_of_freedom": self.degrees_of_freedom,
            "log_evidence": self.log_evidence,
            "spectral_density": family if isinstance(family, str) else repr(family),
            "shape": repr(self.settings.shape),
            "prior_scaling_parameter": self.settings.scaling_parameter,
            "prior_porosity": self.settings.porosity,
            "smoothing_length": self.settings.smoothing_length,
            "slit_length": self.curve.slit_length or 0.0,
            "bic": self.bic,
            "effective_samples": self.effective_samples,
            "grfsaxs_version": package_version(),
        } | attributes
        with moved_into_place(Path(path)) as temporary:
            data.to_netcdf(temporary, engine="netcdf4")

    @property
    def summary(self):
        """Dict of one row of a table of many curves."""
        row = {"curve": self.curve.name, "reliable": self.reliable}
        for name, values in self.table.iterrows():
            row |= {name: values["median"], f"{name} sd": values["sd"]}
        row |= {"prefactor": np.median(self.prefactor), "background": np.median(self.background)}
        row |= {"chi_square": self.chi_square, "degrees_of_freedom": self.degrees_of_freedom}
        return row | {"warnings": "; ".join(self.warnings)}


def analyse(
    curve, *, phases=2, spectral_density="paper", shape=None, smoothing_length=0.0, q_range=None,
    scaling_parameter=LIMITS["scaling_parameter"], porosity=LIMITS["porosity"], relative_error=None, seed=0,
):  # fmt: skip
    """Infer scaling parameter and porosity of a macroscopic sample of two phases.

    The curve is compared at its own q values with the closed form of a level-cut Gaussian field (`level_cut`), smeared
    by the resolution that the curve states, times a prefactor and plus a flat background, both unknown.

    Parameters
    ----------
    curve : Curve
        From `read_curve`, or made of arrays.
    phases : int
        2.
    spectral_density : str or callable
        A family of `physics.spectra` by its name, or a callable of (q, a) that depends on their product alone.
    shape : dict, optional
        Shape parameters of the family: a number fixes one, a pair is a range in which it is fitted.
    smoothing_length : float
        As in `level_cut_intensity`: 0 for a sample, 1 nm for the structures of the paper.
    q_range : (float, float), optional
        Part of the curve to use [nm^-1].
    scaling_parameter : (float, float)
        Range of the prior, uniform in the logarithm [nm].
    porosity : (float, float)
        Range of the prior, uniform, on one side of 1/2. Exchanging the two phases does not change the curve (Babinet):
        the fraction in this range is reported beside its mirror image.
    relative_error : float, optional
        Standard deviation of the intensity over the intensity, in place of the curve's own. Without either it is
        estimated from the roughness of the curve, and a warning says so.
    seed : int

    Returns
    -------
    Analysis

    Raises
    ------
    ValueError
        If an argument is out of range, or fewer than twelve points are left.

    Warns
    -----
    AnalysisWarning
        If the result is not reliable.
    """
    if phases != 2:
        raise ValueError(f"phases must be 2 here; got {phases!r}")
    settings = _settings(spectral_density, shape, scaling_parameter, porosity, smoothing_length)
    used, remarks = _prepare(curve, q_range, relative_error)
    analysis = _infer(used, settings, np.random.default_rng(seed), remarks)
    if not analysis.reliable:
        reasons = " ".join(analysis.warnings)
        warnings.warn(f"{used.name or 'the curve'}: do not trust this result. {reasons}", AnalysisWarning, stacklevel=2)
    return analysis


def _infer(curve, settings, rng, remarks):
    """The analysis of a curve that `_prepare` returns."""
    model, data = Model(curve, settings), (curve.intensity, curve.sigma)
    x, best, log_evidence, effective = marginal_fit.fit(model, *data, rng)
    signal = model(best[np.newaxis])
    linear = marginalise(signal, *data)
    fitted = linear.mean_intensity + linear.prefactor[0] * (signal[0] - linear.mean_signal[0])
    drawn = marginalise(model(x), *data)
    prefactor = drawn.prefactor + drawn.prefactor_sd * rng.standard_normal(len(x))
    level = drawn.mean_intensity + drawn.mean_sd * rng.standard_normal(len(x))
    background = level - prefactor * drawn.mean_signal
    samples = _samples(settings, x)
    chi_square, freedom = float(linear.chi_square[0]), curve.q.size - 2 - best.size
    flat = np.sum(((curve.intensity - linear.mean_intensity) / curve.sigma) ** 2)
    found = {
        "chi_square": chi_square, "freedom": freedom, "residuals": (curve.intensity - fitted) / curve.sigma,
        "drop": flat - chi_square, "effective": effective, "fit": fitted, "background": np.median(background),
        "prefactor": linear.prefactor[0],
    }  # fmt: skip
    severe, mild = _judge(curve, settings, samples, found)
    severe += [note for note in curve.notes if "contradicts" in note]
    bic = chi_square + (best.size + 2) * np.log(curve.q.size)
    return Analysis(
        curve, settings, samples, prefactor / level_cut.PAPER_SCALE, background, fitted, chi_square, freedom,
        log_evidence, bic, effective, severe + mild + remarks, not severe,
    )  # fmt: skip


def compare(curve, models, **arguments):
    """Analyse a curve under several models, side by side.

    Parameters
    ----------
    curve : Curve
    models : dict of str to dict
        Arguments of `analyse` of each model, by a name for it: ``{"peak": {"spectral_density": "peak"}}``.
    **arguments
        Of all of them.

    Returns
    -------
    table : DataFrame
        A row for each model: parameters, chi-square, and differences of the BIC and of the logarithm of the evidence
        from the best. Models with free shapes pay for them in both.
    analyses : dict of str to Analysis
    """
    if not models:
        raise ValueError("models must name at least one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnalysisWarning)
        analyses = {name: analyse(curve, **arguments | model) for name, model in models.items()}
    rows = {
        name: {
            "scaling_parameter": np.median(one.samples["scaling_parameter"]),
            "porosity": np.median(one.samples["porosity"]),
            "chi_square": one.chi_square,
            "degrees_of_freedom": one.degrees_of_freedom,
            "bic": one.bic,
            "log_evidence": one.log_evidence,
            "reliable": one.reliable,
        }
        for name, one in analyses.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    table["bic"] -= table["bic"].min()
    table["log_evidence"] -= table["log_evidence"].max()
    return table, analyses


def _settings(spectral_density, shape, scaling_parameter, porosity, smoothing_length):
    density = density_of(spectral_density)
    shape = dict(shape or {})
    for name, value in shape.items():
        if isinstance(value, list | tuple):
            if len(value) != 2 or not value[0] < value[1]:
                raise ValueError(f"shape[{name!r}] must be a number or a pair (low, high); got {value!r}")
            shape[name] = tuple(float(end) for end in value)
    if isinstance(spectral_density, str):
        ends = [{name: np.max(value) if end else np.min(value) for name, value in shape.items()} for end in (0, 1)]
        checked = [check_shape(spectral_density, end) for end in ends]
        shape = {name: shape.get(name, checked[0][name]) for name in FAMILIES[spectral_density].shape}
    else:
        if shape:
            density_of(spectral_density, shape)  # says why not
        k = np.geomspace(0.05, 5, 20)
        one, other = np.asarray(density(k, 1.0)), np.asarray(density(k / 3, 3.0))
        if not np.allclose(one * other.sum(), other * one.sum(), rtol=1e-6):
            raise ValueError("a spectral density to be fitted must depend on the product of q and a alone")
    least = level_cut.check_smoothing(smoothing_length, spectral_density) / LARGEST_RATIO
    if scaling_parameter == LIMITS["scaling_parameter"]:
        scaling_parameter = max(scaling_parameter[0], least), scaling_parameter[1]
    limits = {"scaling_parameter": scaling_parameter, "porosity": porosity}
    for name, ends in limits.items():
        if np.shape(ends) != (2,):
            raise ValueError(f"{name} must be a range (low, high); got {ends!r}")
        low, high = ends
        top = np.inf if name == "scaling_parameter" else 0.99
        if not 0 < low < high < top or (name == "porosity" and low < 0.01):
            raise ValueError(f"{name} must be a range (low, high) inside its limits; got {limits[name]}")
    if porosity[0] < 0.5 < porosity[1]:
        raise ValueError("porosity must be a range on one side of 1/2: a porosity and 1 - porosity give the same curve")
    if scaling_parameter[0] < least:
        raise ValueError(f"with this smoothing_length scaling_parameter must begin at {least:g} nm or above")
    scaling_parameter, porosity = (tuple(map(float, ends)) for ends in (scaling_parameter, porosity))
    return Settings(spectral_density, shape, scaling_parameter, porosity, float(smoothing_length))


def _prepare(curve, q_range, relative_error):
    """The part of a curve to be used, with standard deviations, and remarks on them."""
    if not isinstance(curve, Curve):
        raise ValueError(
            f"curve must be a Curve, from read_curve or Curve(q, intensity, ...); got {type(curve).__name__}"
        )
    q_range = (0.0, np.inf) if q_range is None else q_range
    if np.shape(q_range) != (2,) or any(end is None for end in q_range):
        raise ValueError(f"q_range must be two numbers (low, high) in nm^-1; got {q_range!r}")
    used = (curve.q >= q_range[0]) & (curve.q <= q_range[1])
    if np.count_nonzero(used) < _LEAST_POINTS:
        raise ValueError(
            f"{np.count_nonzero(used)} points lie in the q range; an analysis needs {_LEAST_POINTS} or more "
            f"(q from {curve.q[0]:.4g} to {curve.q[-1]:.4g} nm^-1)"
        )
    q, intensity = curve.q[used], curve.intensity[used]
    dq = None if curve.dq is None else curve.dq[used]
    remarks = [note for note in curve.notes if "contradicts" not in note]
    if relative_error is not None:
        if not 0 < relative_error < 1:
            raise ValueError(f"relative_error must lie in (0, 1); got {relative_error!r}")
        sigma = relative_error * np.abs(intensity)
    elif curve.sigma is not None:
        sigma = curve.sigma[used]
    else:
        sigma = _roughness(intensity)
        sigma = np.maximum(sigma, _MODEL_ERROR * intensity)
        remarks.append(
            f"The curve has no standard deviations; {100 * np.median(sigma / intensity):.2g} % of the intensity "
            "(median) were estimated from its roughness. Give relative_error= if you know better."
        )
    if not intensity.any():
        raise ValueError("all intensities are zero")
    if dq is None and curve.slit_length is None:
        remarks.append("The curve has no resolution (dq): it is taken for perfect. Give dq= if it is not.")
    sigma = np.hypot(sigma, _MODEL_ERROR * intensity)
    return Curve(q, intensity, sigma, dq, name=curve.name, slit_length=curve.slit_length, notes=curve.notes), remarks


def _roughness(intensity):
    """Standard deviations for a curve without any: its scatter about a local parabola, in logarithms."""
    log, window = np.log(intensity), 7
    rest = log - savgol_filter(log, window, 2)
    rest /= np.sqrt(2 / 3)  # a parabola through seven points leaves so much of white noise in the middle
    width = min(31, intensity.size // 2 * 2 - 1)
    variance = np.convolve(np.pad(rest**2, width // 2, mode="reflect"), np.ones(width) / width, mode="valid")
    return np.sqrt(variance) * intensity


def _samples(settings, x):
    a, porosity = np.exp(x[:, 0]), x[:, 1]
    samples = {"scaling_parameter": a, "porosity": porosity, "mirror_porosity": 1 - porosity}
    samples |= {name: np.exp(x[:, 2 + i]) for i, name in enumerate(settings.free)}
    if not settings.free and settings.spectral_density != "peak" and not settings.smoothing_length:
        slope = level_cut.correlation_slope(settings.spectral_density, settings.shape)
        samples["specific_surface"] = 2 / np.pi * slope * np.exp(-(ndtri(porosity) ** 2) / 2) / a
    return samples


def _judge(curve, settings, samples, found):
    """Reasons not to trust a result, and remarks that leave it valid; each with a remedy."""
    severe, mild = [], []
    reduced = found["chi_square"] / found["freedom"]
    residuals = found["residuals"]
    structure = (2 - np.sum(np.diff(residuals) ** 2) / np.sum(residuals**2)) * np.sqrt(residuals.size) / 2
    alike = structure > _STRUCTURED
    large = np.median(np.abs(residuals) * curve.sigma) > _PATTERN * np.median(np.abs(curve.intensity))
    if stats.chi2.sf(found["chi_square"], found["freedom"]) < _MISFIT or (alike and (reduced > 0.9 or large)):
        severe.append(
            f"This model does not describe the curve: chi-square per degree of freedom is {reduced:.3g}, and "
            f"neighbouring residuals are correlated ({structure:.1f} standard deviations). Look at the plot; try "
            "another spectral_density or a smaller q_range, or give relative_error= if the standard deviations are too "
            "small."
        )
    elif reduced < 0.4 or alike:
        mild.append(
            f"Chi-square per degree of freedom is {reduced:.2g}, and neighbouring residuals are correlated "
            f"({structure:.1f} standard deviations): the stated uncertainties are too large or not independent, and "
            "the intervals are only as good as they are."
        )
    if found["prefactor"] <= 0:
        severe.append("The curve rises with q, so no level cut scatters like it. Look at the curve and its background.")
    if found["drop"] < _SEEN:
        severe.append("The curve does not differ from a flat background. Measure longer, or check the background.")
    for name, limits in settings.limits_by_name.items():
        values, logarithmic = samples[name], name != "porosity"
        low, high = np.log(limits) if logarithmic else limits
        place = np.log(values) if logarithmic else values
        centre, spread = np.median(place), place.std()
        at_low, at_high = centre - low < 2 * spread, high - centre < 2 * spread
        at_half = name == "porosity" and 0.5 in limits and (at_high if limits[1] == 0.5 else at_low)
        if (at_low or at_high) and not at_half:
            severe.append(
                f"{name} is at an end of its prior, {limits[0]:g} to {limits[1]:g}. Give a wider range if such values "
                "are possible; else the model or the q range is wrong."
            )
        elif at_half:
            mild.append(
                "The porosity is close to 1/2, where the curve changes only with (porosity - 1/2)^2: what it gives is "
                f"a bound, {np.quantile(np.abs(values - 0.5), 0.975):.3f} for |porosity - 1/2| (97.5 %)."
            )
    a = np.median(samples["scaling_parameter"])
    if a * curve.q[0] > 1:
        severe.append(
            f"The knee of the curve lies below the measured range (a q_min = {a * curve.q[0]:.2g}, needed: 1 or less). "
            "Measure at smaller angles."
        )
    if a * curve.q[-1] < 2:
        severe.append(
            f"The curve ends before it falls off (a q_max = {a * curve.q[-1]:.2g}, needed: 2 or more). Measure at "
            "larger angles."
        )
    for name, most in (("scaling_parameter", 0.15), ("porosity", 0.3)):
        spread = samples[name].std() / samples[name].mean()
        if spread > most:
            severe.append(f"{name} is not determined: its standard deviation is {100 * spread:.0f} % of it.")
    if found["effective"] < 100:
        severe.append(
            f"The draws are worth only {found['effective']:.0f} independent ones: try another seed or a smaller prior."
        )
    precision = (curve.intensity / curve.sigma) ** 2
    if precision.max() > 0.5 * precision.sum():
        severe.append(
            f"The point at q = {curve.q[precision.argmax()]:.4g} nm^-1 is stated to be so precise that it rules the "
            "fit. Check its sigma."
        )
    share = np.mean(found["background"] > 0.9 * np.abs(found["fit"]))
    if share > 0.9:
        severe.append("The background is nine tenths of nearly all intensities. Subtract what is known of it.")
    if curve.q[-1] > 60 or curve.q[-1] < 0.02:
        severe.append(
            f"q ends at {curve.q[-1]:.3g} nm^-1, which is no range of a small-angle instrument. Check the unit."
        )
    return severe, mild
