"""Infer the structure of a sample from a measured curve: parameters with intervals, and whether to trust them."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.signal import savgol_filter

from ..measurement.curve import Curve
from . import level_cut, level_cut_model, marginal_fit, three_phase_model
from .judgement import judge, judge_parameters
from .marginal_fit import marginalise
from .result import Analysis, AnalysisWarning

LAYER_CONTRAST = 0.65
"""Density of the layer, where the pore's is 0 and the solid's 1: that of the paper."""

_MODEL_ERROR = 3e-4  # of the closed form's table, relative
_LEAST_POINTS = 12


def analyse(
    curve, *, phases=2, spectral_density="paper", shape=None, smoothing_length=None, q_range=None,
    scaling_parameter=None, porosity=None, layer_fraction=None, layer_contrast=None, contrast=None,
    relative_error=None, seed=0,
):  # fmt: skip
    """Infer scaling parameter and porosity of a macroscopic sample of two phases.

    The curve is compared at its own q values with the closed form of a level-cut Gaussian field (`level_cut`), smeared
    by the resolution that the curve states, times a prefactor and plus a flat background, both unknown.

    Parameters
    ----------
    curve : Curve
        From `read_curve`, or made of arrays.
    phases : {2, 3, "auto"}
        Pore and solid, or pore, layer and solid, known for the paper's spectral density alone. "auto" analyses the
        curve as both, and returns the likelier result with a remark on the other.
    spectral_density : str or callable
        A family of `physics.spectra` by its name, or a callable of (q, a) that depends on their product alone; or
        "free", a density of any form (`free_spectrum`), which needs `porosity` or `contrast`.
    shape : dict, optional
        Shape parameters of the family: a number fixes one, a pair is a range in which it is fitted.
    smoothing_length : float, optional
        Width of the Gaussian filter between the two cuts [nm]. In two phases 0, a sharp cut, is the default, and 1 nm
        are the structures of the paper; in three phases, which have none without a filter, 1 nm is the default.
    q_range : (float, float), optional
        Part of the curve to use [nm^-1].
    scaling_parameter : (float, float), optional
        Range of the prior, uniform in the logarithm [nm]: 0.2 to 50 in two phases, 0.8 to 8 times the filter in three.
    porosity : (float, float), optional
        Range of the prior, uniform. In two phases 0.02 to 0.5, on one side of 1/2: exchanging the two does not change
        the curve (Babinet), and the fraction in this range is reported beside its mirror image. In three phases the
        volume of pore and layer, 0.1 to 0.9. With a free spectral density it is no range but what is known of the
        porosity: a number, or its mean and standard deviation.
    layer_fraction : (float, float), optional
        Range of the prior in three phases, uniform: the share of the layer in pore and layer, 0.05 to 0.5.
    layer_contrast : float or (float, float), optional
        Density of the layer in three phases, where the pore's is 0 and the solid's 1: 0.65 by default, as in the
        paper; a pair is the range of a uniform prior.
    contrast : float or (float, float), optional
        Difference of the scattering length densities of the two phases, or its mean and standard deviation
        [1e10 cm^-2]. With a free spectral density and an absolute intensity [cm^-1] it tells the porosity by the
        invariant.
    relative_error : float, optional
        Standard deviation of the intensity over the intensity, in place of the curve's own. Without either it is
        estimated from the roughness of the curve, and a warning says so.
    seed : int

    Returns
    -------
    Analysis
        A `FreeAnalysis`, with spectrum, correlation and structure, where the spectral density is free.

    Raises
    ------
    ValueError
        If an argument is out of range, or fewer than twelve points are left.

    Warns
    -----
    AnalysisWarning
        If the result is not reliable.
    """
    q_range = _check_q_range(q_range)
    limits = {"scaling_parameter": scaling_parameter, "porosity": porosity, "layer_fraction": layer_fraction}
    density_of_layer = LAYER_CONTRAST if layer_contrast is None else layer_contrast
    _check_phases(phases, limits, layer_contrast, smoothing_length, spectral_density != "paper" or shape)
    free = isinstance(spectral_density, str) and spectral_density == "free"
    if contrast is not None and not free:
        raise ValueError('contrast is of a free spectral density alone: give spectral_density="free"')
    if phases == "auto":
        common = {"q_range": q_range, "relative_error": relative_error, "seed": seed}
        analysis = _likelier(curve, common, density_of_layer)
    elif free:
        from . import free_analysis, free_spectrum

        if shape or smoothing_length or scaling_parameter:
            raise ValueError("a free spectral density has no shape, smoothing_length or scaling_parameter")
        settings = free_spectrum.settings_of(porosity, contrast)
        used, remarks = _prepare(curve, q_range, relative_error)
        analysis = free_analysis.infer(used, settings, np.random.default_rng(seed), remarks)
    else:
        if phases == 2:
            ends = [known if limits[name] is None else limits[name] for name, known in level_cut_model.LIMITS.items()]
            settings = level_cut_model.settings_of(spectral_density, shape, *ends, smoothing_length or 0.0)
        else:
            settings = three_phase_model.settings_of(limits, density_of_layer, smoothing_length)
            curve, q_range = _inside(curve, q_range, settings.smoothing_length)
        used, remarks = _prepare(curve, q_range, relative_error)
        analysis = _infer(used, settings, np.random.default_rng(seed), remarks)
    if not analysis.reliable:
        reasons, name = " ".join(analysis.warnings), analysis.curve.name or "the curve"
        warnings.warn(f"{name}: do not trust this result. {reasons}", AnalysisWarning, stacklevel=2)
    return analysis


def _check_phases(phases, limits, layer_contrast, smoothing_length, other_density):
    """Raise unless the number of phases and the arguments that depend on it go together."""
    if phases not in (2, 3, "auto"):
        raise ValueError(f"phases must be 2, 3 or 'auto'; got {phases!r}")
    if phases != 2 and other_density:
        raise ValueError("three phases are known for the paper's spectral density alone")
    if phases == 2 and not (limits["layer_fraction"] is None and layer_contrast is None):
        raise ValueError("layer_fraction and layer_contrast are of three phases: give phases=3")
    if phases == "auto" and any(given is not None for given in (smoothing_length, *limits.values())):
        raise ValueError("leave smoothing_length and priors out with phases='auto': they differ for two and three")


def _likelier(curve, common, layer_contrast):
    """The likelier of the analyses as two phases and as three, of the same points, with a remark on the other."""
    models = {"two phases": {"phases": 2}, "three phases": {"phases": 3, "layer_contrast": layer_contrast}}
    curve, q_range = _inside(curve, common["q_range"], three_phase_model.PAPER_LENGTH)
    _, analyses = compare(curve, models, **common | {"q_range": q_range})
    (name, best), (other_name, other) = sorted(analyses.items(), key=lambda item: -item[1].log_evidence)
    better = best.log_evidence - other.log_evidence
    remark = (
        f"Analysed as {name}, chi-square {best.chi_square:.4g} of {best.degrees_of_freedom}. As {other_name} it is "
        f"{other.chi_square:.4g} of {other.degrees_of_freedom}; the logarithm of the evidence is {better:.1f} lower "
        "(5 is decisive)."
    )
    if better < 5:
        return replace(
            best, warnings=[f"The number of phases is not decided. {remark}", *best.warnings], reliable=False
        )
    return replace(best, warnings=[*best.warnings, remark])


def _infer(curve, settings, rng, remarks):
    """The analysis of a curve that `_prepare` returns."""
    model = settings.model(curve)
    x, best, log_evidence, effective, noise = marginal_fit.fit(model, curve.intensity, curve.sigma, rng)
    data = curve.intensity, noise
    signal = model(best[np.newaxis])
    linear = marginalise(signal, *data)
    fitted = linear.mean_intensity + linear.prefactor[0] * (signal[0] - linear.mean_signal[0])
    drawn = marginalise(model(x), *data)
    prefactor = drawn.prefactor + drawn.prefactor_sd * rng.standard_normal(len(x))
    level = drawn.mean_intensity + drawn.mean_sd * rng.standard_normal(len(x))
    background = level - prefactor * drawn.mean_signal
    samples = settings.samples(x)
    chi_square, freedom = float(linear.chi_square[0]), curve.q.size - 2 - best.size
    flat = np.sum(noise.whiten(curve.intensity - linear.mean_intensity) ** 2)
    found = {
        "chi_square": chi_square, "freedom": freedom, "residuals": noise.whiten(curve.intensity - fitted),
        "drop": flat - chi_square, "effective": effective, "fit": fitted, "background": np.median(background),
        "prefactor": linear.prefactor[0],
    }  # fmt: skip
    severe, mild = judge(curve, found)
    for reasons, more in zip((severe, mild), judge_parameters(curve, settings, samples), strict=True):
        reasons += more
    bic = chi_square + noise.log_determinant + (best.size + 2) * np.log(curve.q.size)
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
            "scaling_parameter": np.median(one.samples.get("scaling_parameter", np.nan)),
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


def _check_q_range(q_range):
    q_range = (0.0, np.inf) if q_range is None else q_range
    if np.shape(q_range) != (2,) or any(end is None for end in q_range):
        raise ValueError(f"q_range must be two numbers (low, high) in nm^-1; got {q_range!r}")
    return tuple(q_range)


def _inside(curve, q_range, smoothing_length):
    """A curve and the range of q that the simulations of three phases reach; a note says if that leaves points out."""
    if not isinstance(curve, Curve):
        return curve, q_range  # `_prepare` says what is wrong
    low, high = (end / smoothing_length for end in three_phase_model.Q_LIMITS)
    asked = (curve.q >= q_range[0]) & (curve.q <= q_range[1])
    if (asked & ((curve.q < low) | (curve.q > high))).any():
        note = f"Points outside q = {low:.3g} to {high:.3g} nm^-1 were left out: the simulations end there."
        curve = replace(curve, notes=[*curve.notes, note])
    return curve, (max(q_range[0], low), min(q_range[1], high))


def _prepare(curve, q_range, relative_error):
    """The part of a curve to be used, with standard deviations, and remarks on them."""
    if not isinstance(curve, Curve):
        raise ValueError(
            f"curve must be a Curve, from read_curve or Curve(q, intensity, ...); got {type(curve).__name__}"
        )
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
