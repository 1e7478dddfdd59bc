"""Pictures of an analysis, of a free spectral density, and of a structure that was drawn from one."""

import math
import textwrap
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
_K_LIMITS = 5.0, 0.5  # over the ends of a spectrum, which reaches from 0.1 of the smallest to 3 times the largest q
_ROOM = 3.0  # factor between what the curve tells of a spectrum and the ends of the axis
_NOTHING = 1e-12  # of the lower end of the axis: a bound of zero, which has no logarithm
_LINE = 112  # characters of a title that a page is wide
_NAMES = {
    "scaling_parameter": ("scaling parameter a", " nm"),
    "porosity": ("porosity ε", ""),
    "layer_fraction": ("layer fraction ν", ""),
    "specific_surface": ("specific surface S", " nm⁻¹"),
}


@plotting.house_style()
def plot_analysis(analysis, seed=0):
    """Draw an `Analysis`; returns the matplotlib Figure."""
    figure, axes = _panels(3.7, [["plane"]])
    _draw_fit(axes, analysis)
    a, porosity = (np.median(analysis.samples[name]) for name in ("scaling_parameter", "porosity"))
    _draw_plane(figure, axes["plane"], *_plane(analysis, a, porosity, seed))
    _entitle(figure, analysis, _results(analysis))
    return figure


@plotting.house_style()
def plot_free_analysis(analysis, seed=0):
    """Draw a `FreeAnalysis`; returns the matplotlib Figure."""
    figure, axes = _panels(5.4, [["spectrum"], ["plane"]])
    _draw_fit(axes, analysis)
    draw_spectrum(axes["spectrum"], analysis.spectrum)
    step = _EXTENT / _PLANE * analysis.wavelength
    solid = draw_plane(analysis.loss, step / analysis.unit, analysis.porosity, seed)
    _draw_plane(figure, axes["plane"], np.where(solid, SOLID, PORE), step)
    _entitle(figure, analysis, _results(analysis))
    return figure


@plotting.house_style()
def plot_structure(structure):
    """Draw a `Structure`; returns the matplotlib Figure."""
    analysis, grid = structure.analysis, structure.grid
    figure, axes = _panels(3.7, [["plane"]])
    _draw_measured(axes["curve"], analysis)
    style = {"color": "black", "linewidth": 0.9, "linestyle": "--", "zorder": 4}
    axes["curve"].plot(structure.q, structure.intensity, label="this structure", **style)
    _legend(axes["curve"])
    ratio, far = structure.intensity / structure.fit, structure.q > 4 * grid.q_spacing
    most = 1.3 * np.abs(ratio[far] - 1).max(initial=0)
    axes["lower"].axhline(1, color="0.5", linewidth=0.6)
    axes["lower"].plot(structure.q[~far], ratio[~far], color="0.6", linewidth=0.9)
    axes["lower"].plot(structure.q[far], ratio[far], color="black", linewidth=0.9)
    axes["lower"].set(ylabel="ratio to the fit", ylim=(1 - np.clip(most, 0.05, 1), 1 + np.clip(most, 0.05, 1)))
    size = round(_EXTENT * analysis.wavelength / grid.voxel_size)  # as large as the plane of the analysis, if it can be
    _draw_plane(figure, axes["plane"], structure.phases[0, :size, :size], grid.voxel_size)
    words = f"{grid.size}³ voxels of {grid.voxel_size:.4g} nm, porosity ε = {structure.porosity:.4g}, structure / fit "
    _entitle(figure, analysis, f"{words}within {100 * structure.deviation:.2g} % (median for q > 4 Δq, black)")
    return figure


def draw_spectrum(ax, spectrum):
    """Draw the `spectrum` of a `FreeAnalysis`: grey where it is the prior."""
    k, seen = spectrum["k"].values, spectrum["from_data"].values
    prior = ~seen
    prior[1:] |= ~seen[:-1]  # to the next point, where the two join
    prior[:-1] |= ~seen[1:]
    shown = seen if seen.any() else ~seen
    low, high = spectrum["median"].values[shown].min() / _ROOM, spectrum["upper_95"].values[shown].max() * _ROOM
    low = min(low, spectrum["lower_95"].values[shown & (spectrum["lower_95"] > 0)].min(initial=low))
    for colour, where, label in ((plotting.COLOURS["blue"], seen, "from the curve"), ("0.6", prior, "prior")):
        ax.loglog(k, np.where(where, spectrum["median"], np.nan), color=colour, linewidth=1, label=label)
        for band, alpha in (("68", 0.4), ("95", 0.25)):
            ends = (np.maximum(spectrum[f"{end}_{band}"], _NOTHING * low) for end in ("lower", "upper"))
            label = f"{band} %" if where is seen else None
            ax.fill_between(k, *ends, where=where, color=colour, alpha=alpha, linewidth=0, label=label)
    ax.set(xlabel="k [nm$^{-1}$]", ylabel=r"spectral density $\Gamma$ [nm$^3$]", ylim=(low, high))
    ends = _K_LIMITS[0] * k[0], _K_LIMITS[1] * k[-1]
    ax.set_xlim(ends)
    left = np.clip(np.log(k[shown][0] / ends[0]) / np.log(ends[1] / ends[0]), 0, 1)  # the legend is beside the grey
    ax.legend(loc="best", bbox_to_anchor=(left, 0, 1 - left, 1))


def _panels(height, right):
    """A figure as wide as a page, and its Axes by name: "curve" over "lower", which share q, beside a column."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(plotting.PAGE_WIDTH, height), layout="constrained")
    left = [["curve"]] * 5 + [["lower"]] * 2
    axes = figure.subplot_mosaic([[left, right]], width_ratios=[1.45, 1])
    axes["lower"].sharex(axes["curve"])
    axes["curve"].set(xscale="log")
    axes["curve"].tick_params(labelbottom=False)
    axes["lower"].set(xlabel=plotting.AXES["q"])
    plotting.label_panels([ax for name, ax in axes.items() if name != "lower"])
    for ax in figure.axes:  # said now, because ticks are made when they are drawn, in another style perhaps
        ax.tick_params(which="both", labelsize=7)
    figure.align_ylabels([axes["curve"], axes["lower"]])
    return figure, axes


def _draw_fit(axes, analysis):
    """Draw the curve with its fit into the panel "curve", and what is left into "lower"."""
    curve = analysis.curve
    span = _draw_measured(axes["curve"], analysis)
    background = np.median(analysis.background)
    if background > span.min() / 2:  # else it lies below the axis
        axes["curve"].axhline(background, color="0.6", linewidth=0.7, linestyle=":", label="background")
    _legend(axes["curve"])
    residuals = (curve.intensity - analysis.fit) / curve.sigma
    axes["lower"].axhspan(-2, 2, color="0.92", linewidth=0)
    axes["lower"].axhline(0, color="0.5", linewidth=0.6)
    axes["lower"].plot(curve.q, residuals, ".", markersize=2.5, color=plotting.COLOURS["blue"])
    axes["lower"].set(ylabel=r"residual / $\sigma$")


def _draw_measured(ax, analysis):
    """Draw the measured curve and the fit; returns the measured intensities drawn."""
    curve = analysis.curve
    positive = curve.intensity > 0
    positive |= not positive.any()  # drawn on a linear axis then
    style = {"fmt": ".", "markersize": 2.5, "elinewidth": 0.5, "color": plotting.COLOURS["blue"], "label": "measured"}
    ax.errorbar(curve.q[positive], curve.intensity[positive], curve.sigma[positive], **style)
    ax.plot(curve.q, analysis.fit, color=plotting.COLOURS["vermillion"], linewidth=1, label="fit", zorder=3)
    span = curve.intensity[positive]
    absolute = getattr(analysis.settings, "contrast", None)  # a contrast needs an intensity in this unit
    ax.set(ylabel="intensity [cm$^{-1}$]" if absolute else "intensity [unit of the file]")
    if span.min() > 0:
        ax.set(yscale="log", ylim=(span.min() / 2, span.max() * 2))
    return span


def _legend(ax):
    """A legend that begins with the points, where it covers least of what is drawn."""
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[-1:] + handles[:-1], labels[-1:] + labels[:-1], loc="best")


def _draw_plane(figure, ax, phases, voxel_size):
    plotting.plot_slice(ax, phases, voxel_size=voxel_size)
    ax.set_anchor("N")
    names = [name for phase, name in enumerate(plotting.PHASE_NAMES) if (phases == phase).any()]
    plotting.phase_legend(figure, names, loc="outside lower right", ncols=3)


def _entitle(figure, analysis, results):
    words = [analysis.curve.name] * bool(analysis.curve.name) + ["NOT RELIABLE, see warnings"] * (not analysis.reliable)
    title = "\n".join(textwrap.fill(text, _LINE) for text in (". ".join(words), results) if text)
    colour = "black" if analysis.reliable else plotting.COLOURS["vermillion"]
    figure.suptitle(title, fontsize=8, color=colour, parse_math=False)  # a name may hold a dollar sign


def _results(analysis):
    """The parameters found, or given, and how well they fit."""
    table = analysis.table
    names = [name for name in _NAMES if name in table.index]
    if "scaling_parameter" in names:
        names = [name for name in names if name != "specific_surface"]
    words = []
    for name in names:
        (symbol, unit), median, sd = _NAMES[name], *table.loc[name, ["median", "sd"]]
        digits = max(0, 1 - math.floor(math.log10(sd))) if sd > 0 else 0
        words.append(
            f"{symbol} = " + (f"{median:.{digits}f} ± {sd:.{digits}f}{unit}" if sd > 0 else f"{median:.4g} (given)")
        )
    return ", ".join([*words, f"χ² = {analysis.chi_square:.4g} of {analysis.degrees_of_freedom} degrees of freedom"])


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
    loss = level_cut.correlation_loss(settings.spectral_density, shape)
    solid = draw_plane(loss, _EXTENT / _PLANE, porosity, seed)
    return np.where(solid, SOLID, PORE), _EXTENT * a / _PLANE


def draw_plane(loss, step, porosity, seed):
    """A plane of a random structure, (n, n) ndarray of bool: True in the solid.

    A plane of a Gaussian field is a Gaussian field of two dimensions with the same correlation, here given as 1 - g at
    the distances of `level_cut`; step is the edge of a pixel in their unit.
    """
    offset = np.minimum(np.arange(_PLANE), _PLANE - np.arange(_PLANE)) * step
    distance = np.hypot(offset[:, np.newaxis], offset)
    g = 1 - level_cut.at_distance(loss, distance)
    spectrum = np.maximum(np.fft.fft2(g).real, 0)
    noise = np.random.default_rng(seed).standard_normal((_PLANE, _PLANE))
    field = np.fft.ifft2(np.sqrt(spectrum) * np.fft.fft2(noise)).real
    return field > np.quantile(field, porosity)
