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

    figure = Figure(figsize=(plotting.PAGE_WIDTH, 3.2), layout="constrained")
    axes = figure.subplot_mosaic(
        [["curve", "plane"], ["residuals", "plane"]], height_ratios=[2.2, 1], width_ratios=[1.35, 1]
    )
    _draw_fit(axes, analysis)
    a, porosity = (np.median(analysis.samples[name]) for name in ("scaling_parameter", "porosity"))
    _draw_plane(figure, axes["plane"], *_plane(analysis, a, porosity, seed))
    _entitle(figure, analysis)
    return figure


def plot_free_analysis(analysis, seed=0):
    """Draw a `FreeAnalysis`; returns the matplotlib Figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(plotting.PAGE_WIDTH, 5.2), layout="constrained")
    axes = figure.subplot_mosaic([["curve", "spectrum"], ["residuals", "plane"]], height_ratios=[1.2, 1])
    _draw_fit(axes, analysis)
    draw_spectrum(axes["spectrum"], analysis.spectrum)
    step = _EXTENT / _PLANE * analysis.wavelength
    solid = draw_plane(analysis.loss, step / analysis.unit, analysis.porosity, seed)
    _draw_plane(figure, axes["plane"], np.where(solid, SOLID, PORE), step)
    _entitle(figure, analysis)
    return figure


def plot_structure(structure):
    """Draw a `Structure`; returns the matplotlib Figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(plotting.PAGE_WIDTH, 3.0), layout="constrained")
    curve_axes, plane_axes = figure.subplots(1, 2, width_ratios=[1.35, 1])
    _draw_measured(curve_axes, structure.curve)
    style = {"color": plotting.COLOURS["vermillion"], "linewidth": 1, "zorder": 3}
    curve_axes.plot(structure.q, structure.intensity, label="this structure", **style)
    curve_axes.set(xlabel=plotting.AXES["q"])
    curve_axes.legend(loc="lower left")
    _draw_plane(figure, plane_axes, structure.phases[0], structure.grid.voxel_size)
    return figure


def draw_spectrum(ax, spectrum):
    """Draw the `spectrum` of a `FreeAnalysis`: grey where it is the prior."""
    k, seen = spectrum["k"].values, spectrum["from_data"].values
    floor = 1e-3 * spectrum["median"].values[seen].min()
    blue = plotting.COLOURS["blue"]
    for colour, where, label in ((blue, seen, "from the curve"), ("0.5", ~seen, "prior")):
        for band, alpha in (("95", 0.25), ("68", 0.4)):
            low, high = (np.maximum(spectrum[f"{end}_{band}"], floor) for end in ("lower", "upper"))
            ax.fill_between(k, low, high, where=where, color=colour, alpha=alpha, linewidth=0)
        ax.loglog(k, np.where(where, spectrum["median"], np.nan), color=colour, linewidth=1, label=label)
    ax.set(xlabel="k [nm$^{-1}$]", ylabel=r"spectral density $\Gamma$ [nm$^3$]")
    ax.set_ylim(floor, 3 * spectrum["upper_95"].values[seen].max())
    ax.legend(loc="lower left")


def _draw_fit(axes, analysis):
    """Draw the curve with its fit into the panel "curve", and what is left into "residuals"."""
    curve = analysis.curve
    span = _draw_measured(axes["curve"], curve)
    red = plotting.COLOURS["vermillion"]
    axes["curve"].plot(curve.q, analysis.fit, color=red, linewidth=1, label="fit", zorder=3)
    background = np.median(analysis.background)
    if background > span.min() / 2:  # else it lies below the axis
        axes["curve"].axhline(background, color="0.6", linewidth=0.7, linestyle=":", label="background")
    axes["curve"].set(xticklabels=[])
    # The curve falls, so the lower left is free. White behind the words: the line of the background may cross them.
    frame = {"frameon": True, "edgecolor": "none", "framealpha": 0.8, "fontsize": 8, "title_fontsize": 8}
    axes["curve"].legend(loc="lower left", title=_results(analysis.table), alignment="left", **frame)
    residuals = (curve.intensity - analysis.fit) / curve.sigma
    axes["residuals"].axhspan(-2, 2, color="0.92")
    axes["residuals"].semilogx(curve.q, residuals, ".", markersize=2.5, color=plotting.COLOURS["blue"])
    axes["residuals"].set(xlabel=plotting.AXES["q"], ylabel=r"residual / $\sigma$", xlim=axes["curve"].get_xlim())


def _draw_measured(ax, curve):
    """Draw a measured curve; returns the intensities drawn."""
    positive = curve.intensity > 0
    positive |= not positive.any()  # drawn on a linear axis then
    style = {"fmt": ".", "markersize": 2.5, "elinewidth": 0.5, "color": plotting.COLOURS["blue"], "label": "measured"}
    ax.errorbar(curve.q[positive], curve.intensity[positive], curve.sigma[positive], **style)
    span = curve.intensity[positive]
    ax.set(ylabel="intensity", xscale="log")
    if span.min() > 0:
        ax.set(yscale="log", ylim=(span.min() / 2, span.max() * 2))
    return span


def _draw_plane(figure, ax, phases, voxel_size):
    plotting.plot_slice(ax, phases, voxel_size=voxel_size)
    names = [name for phase, name in enumerate(plotting.PHASE_NAMES) if (phases == phase).any()]
    plotting.phase_legend(figure, names, loc="outside lower right", ncols=3)


def _entitle(figure, analysis):
    words = [analysis.curve.name] * bool(analysis.curve.name) + ["NOT RELIABLE, see warnings"] * (not analysis.reliable)
    colour = "black" if analysis.reliable else plotting.COLOURS["vermillion"]
    figure.suptitle(". ".join(words), fontsize=8, color=colour)


def _results(table):
    """The parameters found, a line each."""
    symbols = {"scaling_parameter": ("a", " nm"), "porosity": ("ε", ""), "layer_fraction": ("ν", "")}
    if "scaling_parameter" not in table.index:
        symbols["specific_surface"] = ("S", " nm$^{-1}$")
    return "\n".join(
        f"{symbol} = {table.loc[name, 'median']:.4g} ± {table.loc[name, 'sd']:.2g}{unit}"
        for name, (symbol, unit) in symbols.items()
        if name in table.index and table.loc[name, "sd"] > 0
    )


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
