"""When not to trust the result of an analysis."""

import numpy as np
from scipy import stats

from . import three_phase_model

_MISFIT = 1e-4  # probability of a chi-square as large, below which the model does not describe a curve
_STRUCTURED = 4.5  # standard deviations (2/sqrt n) by which the Durbin-Watson statistic may lie below 2
_PATTERN = 0.01  # share of the intensity that a pattern in the residuals may have, if sigma is larger
_OUTLIER = 5  # standard deviations that a point may lie off a fit without a remark
_FEW = 6  # degrees of freedom
_SEEN = 30  # by how much chi-square must exceed that of a flat background
_LINEAR = {"porosity", "layer_fraction", "layer_contrast"}  # parameters whose prior is uniform, not in the logarithm
_MOST = {"scaling_parameter": 0.15, "porosity": 0.3, "layer_fraction": 0.5}  # relative standard deviation of a result


REMEDY = (
    "Look at the plot; try another spectral_density or a smaller q_range, or give relative_error= if the standard "
    "deviations are too small."
)


def is_misfit(chi_square, freedom):
    """Whether a chi-square is too large for a model that describes a curve."""
    return stats.chi2.sf(chi_square, freedom) < _MISFIT


def judge(curve, found, remedy=REMEDY):
    """Reasons not to trust a fit, and remarks that leave it valid; two lists of str, each with a remedy."""
    severe, mild = [], []
    reduced = found["chi_square"] / found["freedom"]
    residuals = found["residuals"]
    structure = (2 - np.sum(np.diff(residuals) ** 2) / max(np.sum(residuals**2), 1e-300)) * np.sqrt(residuals.size) / 2
    alike = structure > _STRUCTURED
    pattern = np.median(np.abs(residuals) * curve.sigma) / np.median(np.abs(curve.intensity))
    if is_misfit(found["chi_square"], found["freedom"]) or (alike and reduced > 0.9):
        severe.append(
            f"This model does not describe the curve: chi-square per degree of freedom is {reduced:.3g}, and "
            f"neighbouring residuals are correlated ({structure:.1f} standard deviations). {remedy}"
        )
    elif alike and pattern > _PATTERN:
        severe.append(
            f"The residuals have a pattern of about {100 * pattern:.2g} % of the intensity: neighbouring ones are "
            f"correlated ({structure:.1f} standard deviations). Chi-square per degree of freedom, {reduced:.2g}, does "
            "not show it, for the standard deviations are too large. Give relative_error=, and look at the plot."
        )
    elif reduced < 0.4 or alike:
        mild.append(
            f"Chi-square per degree of freedom is {reduced:.2g}, and neighbouring residuals are correlated "
            f"({structure:.1f} standard deviations): the stated uncertainties are too large or not independent, and "
            "the intervals are only as good as they are."
        )
    far = np.abs(residuals).argmax()
    rest = found["chi_square"] - residuals[far] ** 2
    if abs(residuals[far]) > _OUTLIER and not is_misfit(rest, found["freedom"]):
        mild.append(
            f"The point at q = {curve.q[far]:.4g} nm^-1 lies {abs(residuals[far]):.1f} standard deviations off the "
            "fit. Check it."
        )
    if found["freedom"] < _FEW:
        mild.append(
            f"{curve.q.size} points leave {found['freedom']} degrees of freedom: nearly any curve would fit as well."
        )
    if found["prefactor"] <= 0:
        severe.append("The curve rises with q, so no level cut scatters like it. Look at the curve and its background.")
    if found["drop"] < _SEEN:
        severe.append("The curve does not differ from a flat background. Measure longer, or check the background.")
    if found["effective"] < 100:
        severe.append(
            f"The draws are worth only {found['effective']:.0f} independent ones: try another seed or a smaller prior."
        )
    precision = (curve.intensity / curve.sigma) ** 2
    if precision.max() > 0.5 * precision.sum():
        severe.append(
            f"The point at q = {curve.q[precision.argmax()]:.4g} nm^-1 is stated to be so precise that it decides the "
            "fit. Check its sigma."
        )
    share = np.mean(found["background"] > 0.9 * np.abs(found["fit"]))
    if share > 0.9:
        severe.append("The background is nine tenths of nearly all intensities. Subtract what is known of it.")
    if curve.q[-1] > 60 or curve.q[-1] < 0.02:
        severe.append(
            f"q ends at {curve.q[-1]:.3g} nm^-1, which is no range of a small-angle instrument. Check the unit."
        )
    severe += [note for note in curve.notes if "contradicts" in note]
    return severe, mild


def judge_parameters(curve, settings, samples):
    """Reasons not to trust the parameters of a fit, and remarks, as `judge` returns them."""
    severe, mild = _at_ends(settings, samples)
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
    for name, most in _MOST.items():
        spread = samples[name].std() / samples[name].mean() if name in samples else 0.0
        if spread > most:
            severe.append(f"{name} is not determined: its standard deviation is {100 * spread:.0f} % of it.")
    if "layer_fraction" in samples and a < (least := three_phase_model.CALIBRATED * settings.smoothing_length):
        severe.append(
            f"Below a = {least:g} nm the mean curve of three phases is not known well: errors are up to four times the "
            "stated ones. Take the result for a first guess."
        )
    return severe, mild


def _at_ends(settings, samples):
    """Reasons and remarks on parameters that are at an end of their prior."""
    severe, mild, two_phases = [], [], "layer_fraction" not in settings.limits_by_name
    for name, limits in settings.limits_by_name.items():
        values, logarithmic = samples[name], name not in _LINEAR
        low, high = np.log(limits) if logarithmic else limits
        place = np.log(values) if logarithmic else values
        centre, spread = np.median(place), place.std()
        at_low, at_high = centre - low < 2 * spread, high - centre < 2 * spread
        at_half = two_phases and name == "porosity" and 0.5 in limits and (at_high if limits[1] == 0.5 else at_low)
        if (at_low or at_high) and name == "layer_contrast":
            mild.append(
                f"layer_contrast is at an end of its prior, {limits[0]:g} to {limits[1]:g}. The curve hardly narrows "
                "it, or its best value lies beyond."
            )
        elif (at_low or at_high) and not at_half:
            severe.append(f"{name} is at an end of its prior, {limits[0]:g} to {limits[1]:g}. {settings.beyond_prior}")
        elif at_half:
            mild.append(
                "The porosity is close to 1/2, where the curve changes only with (porosity - 1/2)^2: what it gives is "
                f"a bound, {np.quantile(np.abs(values - 0.5), 0.975):.3f} for |porosity - 1/2| (97.5 %)."
            )
    return severe, mild
