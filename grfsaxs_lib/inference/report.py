"""The picture of an analysis: curve and fit, residuals, and a plane of a structure with the parameters found."""

import warnings

import numpy as np

from .. import plotting
from ..grid import Grid
from ..physics.simulation import plane_and_curve
from ..physics.structure import PORE, SOLID
from . import level_cut

_PLANE = 256  # pixels along an edge
_LAYERED = 128  # voxels along an edge of a structure of three phases
_EXTENT = 40  # edge over the scaling parameter


def plot_analysis(analysis, seed=0):
    """Draw an `Analysis`; returns the matplotlib Figure."""
    from matplotlib.figure import Figure

    curve = analysis.curve
    figure = Figure(figsize=(plotting.PAGE_WIDTH, 3.2), layout="constrained")
    axes = figure.subplot_mosaic(
        [["curve", "plane"], ["residuals", "plane"]], height_ratios=[2.2, 1], width_ratios=[1.35, 1]
    )
    positive = curve.intensity > 0
    positive |= not positive.any()  # drawn on a linear axis then
    style = {"fmt": ".", "markersize": 2.5, "elinewidth": 0.5, "color": plotting.COLOURS["blue"], "label": "measured"}
    axes["curve"].errorbar(curve.q[positive], curve.intensity[positive], curve.sigma[positive], **style)
    red = plotting.COLOURS["vermillion"]
    axes["curve"].loglog(curve.q, analysis.fit, color=red, linewidth=1, label="fit", zorder=3)
    span, background = curve.intensity[positive], np.median(analysis.background)
    if background > span.min() / 2:  # else it lies below the axis
        axes["curve"].axhline(background, color="0.6", linewidth=0.7, linestyle=":", label="background")
    axes["curve"].set(ylabel="intensity", xticklabels=[])
    if span.min() > 0:
        axes["curve"].set_ylim(span.min() / 2, span.max() * 2)
    else:
        axes["curve"].set_yscale("linear")
    axes["curve"].legend(loc="lower left")
    residuals = (curve.intensity - analysis.fit) / curve.sigma
    axes["residuals"].axhspan(-2, 2, color="0.92")
    axes["residuals"].semilogx(curve.q, residuals, ".", markersize=2.5, color=plotting.COLOURS["blue"])
    axes["residuals"].set(xlabel=plotting.AXES["q"], ylabel=r"residual / $\sigma$", xlim=axes["curve"].get_xlim())
    a, porosity = (np.median(analysis.samples[name]) for name in ("scaling_parameter", "porosity"))
    phases, voxel_size = _plane(analysis, a, porosity, seed)
    plotting.plot_slice(axes["plane"], phases, voxel_size=voxel_size)
    names = [name for phase, name in enumerate(plotting.PHASE_NAMES) if (phases == phase).any()]
    plotting.phase_legend(figure, names, loc="outside lower right", ncols=3)
    table = analysis.table
    words = f"{curve.name}\na = {a:.4g} ± {table.loc['scaling_parameter', 'sd']:.2g} nm, "
    words += f"ε = {porosity:.4g} ± {table.loc['porosity', 'sd']:.2g}"
    if "layer_fraction" in table.index:
        words += ", ν = {median:.4g} ± {sd:.2g}".format(**table.loc["layer_fraction"])
    if not analysis.reliable:
        words += ". NOT RELIABLE, see warnings"
    figure.suptitle(words.lstrip(), fontsize=8, color="black" if analysis.reliable else red)
    return figure


def _plane(analysis, a, porosity, seed):
    """Phases of a plane of a structure with the parameters found, and the edge of a voxel [nm]."""
    settings = analysis.settings
    if "layer_fraction" in analysis.samples:
        grid = Grid(_LAYERED, _EXTENT * a / 2 / _LAYERED)
        given = {"scaling_parameter": a, "porosity": porosity, "seed": seed, "q": [4 * grid.q_spacing]}
        given["layer_fraction"] = np.median(analysis.samples["layer_fraction"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the box is small, and large enough for a picture
            plane, _ = plane_and_curve(grid, smoothing_sigma=settings.smoothing_length / grid.voxel_size, **given)
        return plane, grid.voxel_size
    shape = {name: np.median(analysis.samples[name]) for name in settings.free}
    shape = {name: shape.get(name, value) for name, value in settings.shape.items()}
    solid = draw_plane(settings.spectral_density, shape, porosity, seed)
    return np.where(solid, SOLID, PORE), _EXTENT * a / _PLANE


def draw_plane(spectral_density, shape, porosity, seed):
    """A plane of a random structure, (n, n) ndarray of bool: True in the solid.

    A plane of a Gaussian field is a Gaussian field of two dimensions with the same correlation.
    """
    step = _EXTENT / _PLANE
    offset = np.minimum(np.arange(_PLANE), _PLANE - np.arange(_PLANE)) * step
    distance = np.hypot(offset[:, np.newaxis], offset)
    loss = level_cut.correlation_loss(spectral_density, shape)
    g = 1 - level_cut.at_distance(loss, distance)
    spectrum = np.maximum(np.fft.fft2(g).real, 0)
    noise = np.random.default_rng(seed).standard_normal((_PLANE, _PLANE))
    field = np.fft.ifft2(np.sqrt(spectrum) * np.fft.fft2(noise)).real
    return field > np.quantile(field, porosity)
