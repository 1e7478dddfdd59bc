r"""The explorer of notebook 00: sliders for a structure, its slice and its curve, and a measurement with an estimate.

`simulate_box` makes what the sliders ask for in a small box, `measure` a measurement of a sample of this material,
`draw` the picture of both, and `show` the sliders in a notebook. The measured sample is macroscopic. In two phases its
curve has a closed form (`inference.level_cut`). With a layer it has none, and the mean of a few boxes takes its place.
The estimate is that of `inference.analyse` for two phases; `judge` says what this means for a layer.

The drawings that explain an experiment, a curve and the ruler of lengths stand at the end.
"""

import re
import warnings
from dataclasses import dataclass

import numpy as np

from . import plotting
from .grid import Grid
from .inference.analyse import Analysis, AnalysisWarning, analyse
from .inference.level_cut import level_cut_intensity
from .measurement.curve import Curve
from .physics.field import gaussian_random_field
from .physics.scattering import scattering_intensity
from .physics.structure import phase_map

GRID = Grid(128, 0.75)
"""The box: small enough for a picture in a fraction of a second, and four waves of 2 pi a wide at the largest a."""

Q = np.geomspace(0.1, 2.0, 60)
"""Scattering vectors [nm^-1]; beyond, the steps of the voxels would add more than a tenth to the intensity."""

RELATIVE_ERROR = 0.05
"""Standard deviation of a measured intensity over the intensity."""

N_BOX = 8
"""Boxes whose mean curve stands for that of a sample with a layer."""

SMOOTHING_LENGTH = 1.0
"""Width of the filter between the two cuts, that of the paper [nm]."""

_INTENSITY_LIMITS = (3e5, 3e12)  # hold the curves of all settings, so that a curve moves and its axes do not


@dataclass(frozen=True)
class Slider:
    """What one slider sets: its whole label, its range, its step and where it stands at first."""

    label: str
    low: float
    high: float
    step: float
    value: float


SLIDERS = {
    "scaling_parameter": Slider("scaling parameter a [nm]", 1.2, 3.8, 0.1, 2.0),
    "porosity": Slider("porosity ε", 0.1, 0.9, 0.01, 0.3),
    "layer_fraction": Slider("layer fraction ν of the pores", 0.0, 0.5, 0.01, 0.0),
    "layer_density": Slider("electron density of the layer", 0.0, 1.0, 0.05, 0.65),
}
"""Pores have the electron density 0 and the solid has 1."""

START = {name: slider.value for name, slider in SLIDERS.items()}
"""The settings at first."""


@dataclass(frozen=True)
class Measurement:
    """A simulated measurement, and what it is compared with.

    Attributes
    ----------
    curve : Curve
        As measured.
    expected : (n_q,) ndarray of float64
        The curve without noise.
    analysis : Analysis
        The two-phase estimate.
    """

    curve: Curve
    expected: np.ndarray
    analysis: Analysis


def simulate_box(*, scaling_parameter, porosity, layer_fraction, layer_density, seed):
    """Make one structure and its curve.

    Parameters
    ----------
    scaling_parameter, porosity, layer_fraction : float
        As in `simulate`.
    layer_density : float
        Electron density of the layer; pores have 0, the solid has 1.
    seed : int

    Returns
    -------
    plane : (N, N) ndarray of uint8
        Phases of one slice: 0 pore, 1 layer, 2 solid.
    intensity : (n_q,) ndarray of float64
        At `Q`.
    """
    field = gaussian_random_field(GRID, scaling_parameter=scaling_parameter, seed=seed)
    cut = {"porosity": porosity, "layer_fraction": layer_fraction}
    phases = phase_map(field, **cut, smoothing_sigma=SMOOTHING_LENGTH / GRID.voxel_size, overwrite_field=True)
    intensity = scattering_intensity(phases, GRID, q=Q, densities=(0.0, layer_density, 1.0))
    return phases[0].copy(), intensity  # a view would keep the whole cube


def is_layer_seen(settings):
    """Whether X-rays see three phases: a layer of the density of the pores is none."""
    return settings["layer_fraction"] > 0 and settings["layer_density"] > 0


def measure(settings, *, seed, number=0):
    """Measure a macroscopic sample of the material, and estimate its parameters as if it had two phases.

    Parameters
    ----------
    settings : dict of str to float
        A value for each of `SLIDERS`.
    seed : int
        Of the structures.
    number : int
        Of the measurement: each has noise of its own.

    Returns
    -------
    Measurement
    """
    if not is_layer_seen(settings):
        sample = {name: settings[name] for name in ("scaling_parameter", "porosity")}
        expected = level_cut_intensity(Q, **sample, smoothing_length=SMOOTHING_LENGTH)
        relative = np.full(Q.size, RELATIVE_ERROR)
    else:
        expected = np.mean([simulate_box(**settings, seed=seed + box)[1] for box in range(N_BOX)], axis=0)
        # N_BOX boxes are no sample yet: their mean has the scatter of independent modes, too (notebook 04).
        scatter = GRID.q_spacing / Q / np.sqrt(2 * np.pi**1.5 * N_BOX)
        relative = np.hypot(RELATIVE_ERROR, scatter)
    noise = 1 + RELATIVE_ERROR * np.random.default_rng([seed, number]).standard_normal(Q.size)
    curve = Curve(Q, expected * noise, relative * expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnalysisWarning)  # `judge` says it in the picture
        return Measurement(curve, expected, analyse(curve, smoothing_length=SMOOTHING_LENGTH))


def judge(settings, analysis):
    """Say in a sentence or two whether the two-phase estimate can be believed.

    Parameters
    ----------
    settings : dict of str to float
    analysis : Analysis

    Returns
    -------
    str
    """
    fit = f"reduced chi-square {analysis.chi_square / analysis.degrees_of_freedom:.2g}"
    if is_layer_seen(settings) and analysis.reliable:
        return f"Beware, three phases: this two-phase fit looks good ({fit}), but its numbers can be wrong."
    if is_layer_seen(settings):
        return f"Wrong model, three phases: no two phases make this curve ({fit})."
    first = re.sub(r" \(.*?\)", "", analysis.warnings[0]).replace("scaling_parameter", "scaling parameter")
    if not analysis.reliable:
        return f"Not reliable: {re.split(r'[:.] ', first)[0].rstrip('.')}."
    if first.startswith("The porosity is close to 1/2"):
        return f"The model fits ({fit}). Near a porosity of 1/2 a curve gives no more than a bound."
    other = 1 - np.median(analysis.samples["mirror_porosity" if settings["porosity"] > 0.5 else "porosity"])
    if settings["layer_fraction"] > 0:
        return f"The layer has the density of the pores: X-rays do not see it. The model fits ({fit})."
    return f"The model fits ({fit}). With pore and solid exchanged, {other:.2f} fits as well."


def redraw(settings, *, seed, measurement=None):
    """Simulate the box of these settings and draw it: what a slider does.

    Returns
    -------
    matplotlib.figure.Figure
    """
    return draw(settings, *simulate_box(**settings, seed=seed), measurement)


def draw(settings, plane, intensity, measurement=None):
    """Draw a slice, its curve, and a measurement with its estimates if there is one.

    Parameters
    ----------
    settings : dict of str to float
    plane, intensity
        As `simulate_box` returns them.
    measurement : Measurement, optional

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(plotting.PAGE_WIDTH, 3.2), dpi=120, layout="none")
    # A layout of fixed places: to search for one would take longer than all the rest.
    grid = figure.add_gridspec(1, 2, wspace=0.36, left=0.065, right=0.715, bottom=0.22, top=0.9)
    slice_axes, curve_axes = (figure.add_subplot(grid[column]) for column in range(2))
    plotting.plot_slice(slice_axes, plane, voxel_size=GRID.voxel_size)
    slice_axes.set_anchor("N")
    look = {"ncols": 3, "columnspacing": 1.0, "handlelength": 1.5}
    plotting.phase_legend(slice_axes, loc="lower center", bbox_to_anchor=(0.55, 0.98), **look)
    _draw_curves(curve_axes, settings, intensity, measurement)
    if measurement is None:
        figure.text(0.875, 0.56, "not measured yet", ha="center", color="0.4")
    else:
        places = figure.add_gridspec(2, 1, hspace=1.5, left=0.78, right=0.97, bottom=0.24, top=0.8)
        axes = [figure.add_subplot(place) for place in places]
        _draw_estimates(axes, settings, measurement.analysis)
        colour = _colour_of(settings, measurement.analysis)
        figure.text(0.5, 0.03, judge(settings, measurement.analysis), ha="center", color=colour)
    plotting.label_panels([slice_axes, curve_axes])
    return figure


def _draw_curves(axes, settings, intensity, measurement):
    """The curve of the box and the position of its knee; the measured points and what they scatter about."""
    if measurement is not None:
        curve = measurement.curve
        dots = {"fmt": ".", "markersize": 3, "elinewidth": 0.6, "color": plotting.COLOURS["vermillion"]}
        axes.errorbar(curve.q, curve.intensity, curve.sigma, **dots, label="measured")
        mean = f"mean of {N_BOX} boxes" if is_layer_seen(settings) else "infinite sample"
        plotting.plot_curves(axes, Q, measurement.expected, color="black", linewidth=0.8, linestyle="--", label=mean)
    plotting.plot_curves(axes, Q, intensity, color=plotting.COLOURS["blue"], linewidth=1, label="this box")
    axes.axvline(1 / settings["scaling_parameter"], 0.42, color="0.4", linewidth=0.8, linestyle=":", label="$q = 1/a$")
    ticks = (0.1, 0.2, 0.5, 1, 2)
    axes.set(xlim=(Q[0], Q[-1]), ylim=_INTENSITY_LIMITS, xticks=ticks, xticklabels=map(str, ticks))
    axes.minorticks_off()
    axes.legend(loc="lower left")


def _draw_estimates(axes, settings, analysis):
    """The intervals of a and of the porosity, beside the true values."""
    # A curve has two answers for the porosity; the one on the side of the truth is drawn.
    side = "mirror_porosity" if settings["porosity"] > 0.5 else "porosity"
    rows = (("scaling_parameter", "scaling_parameter", "a", " nm"), ("porosity", side, "ε", ""))
    for ax, (name, drawn, symbol, unit) in zip(axes, rows, strict=True):
        median, low, high = analysis.table.loc[drawn, ["median", "2.5 %", "97.5 %"]]
        truth, style = settings[name], {"fmt": "o", "capsize": 3, "color": _colour_of(settings, analysis)}
        ax.errorbar(median, 0, xerr=[[median - low], [high - median]], **style)
        ax.axvline(truth, color="black", linewidth=1)
        reach = 1.3 * max(high - truth, truth - low)
        ax.set(xlim=(truth - reach, truth + reach), ylim=(-1, 1), yticks=[])
        ax.set_xticks([truth - reach / 1.3, truth, truth + reach / 1.3])
        ax.xaxis.set_major_formatter("{x:.3f}")
        ax.spines["left"].set_visible(False)
        ax.set_title(f"{symbol} = {median:.3f}{unit} (true: {truth:g})\n95 %: {low:.3f} to {high:.3f}", fontsize=7)


def _colour_of(settings, analysis):
    """Green if the two-phase estimate can be believed."""
    good = analysis.reliable and not is_layer_seen(settings)
    return plotting.COLOURS["green" if good else "vermillion"]


def show(seed=7):
    """Show the explorer below a cell of a notebook: sliders, a button and the picture.

    Without a kernel, as in an executed copy, the picture stays as it is.

    Parameters
    ----------
    seed : int
        Of the structure.

    Returns
    -------
    matplotlib.figure.Figure
        The first picture.
    """
    from IPython.display import display

    box, figure = open_panel(lambda changed: picture.update(_image(changed)), seed=seed)
    bundle = box._repr_mimebundle_()
    bundle["text/plain"] = "The sliders need a running kernel: open this notebook in JupyterLab and run it."
    display(bundle, raw=True)
    picture = display(_image(figure), display_id=True)
    return figure


def open_panel(refresh, *, seed):
    """Make the sliders and the button.

    Parameters
    ----------
    refresh : callable
        Called with the new Figure after each change.
    seed : int

    Returns
    -------
    box : ipywidgets.VBox
        Four sliders and a button.
    figure : matplotlib.figure.Figure
        The first one, with a measurement.
    """
    import ipywidgets

    look = {"style": {"description_width": "16em"}, "layout": {"width": "40em"}}
    sliders = {
        name: ipywidgets.FloatSlider(
            description=one.label, min=one.low, max=one.high, step=one.step, value=one.value, **look
        )
        for name, one in SLIDERS.items()
    }
    button = ipywidgets.Button(
        description="measure", tooltip="simulate a measurement with noise, and estimate the parameters from it"
    )
    presses = iter(range(1, 2**31))

    def settings():
        return {name: slider.value for name, slider in sliders.items()}

    def on_slider(_):
        refresh(redraw(settings(), seed=seed))

    def on_button(_):
        now = settings()
        refresh(redraw(now, seed=seed, measurement=measure(now, seed=seed, number=next(presses))))

    for slider in sliders.values():
        slider.observe(on_slider, names="value")
    button.on_click(on_button)
    first = redraw(START, seed=seed, measurement=measure(START, seed=seed))
    return ipywidgets.VBox([*sliders.values(), button]), first


def _image(figure):
    """The figure as a PNG that a notebook shows at its size."""
    from io import BytesIO

    from IPython.display import Image
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    data = BytesIO()
    FigureCanvasAgg(figure).print_png(data)  # `savefig` would set a layout engine
    return Image(data.getvalue(), format="png")


def draw_experiment(side, front):
    """Draw source, sample and detector with the angle, and the detector as the sample sees it.

    Parameters
    ----------
    side : matplotlib.axes.Axes
        Wide: 11 by 6.
    front : matplotlib.axes.Axes
    """
    from matplotlib.patches import Arc, Rectangle

    side.set(xlim=(0, 11), ylim=(-0.4, 5.7), aspect="equal", anchor="W")
    side.set_axis_off()
    beam, dark = plotting.COLOURS["vermillion"], {"facecolor": "0.3", "edgecolor": "none"}
    sky = {"facecolor": plotting.COLOURS["sky"], "edgecolor": "black", "linewidth": 0.6}
    boxes = ((0.1, 1.7, 1.5, 1.0, {"facecolor": "0.85", "edgecolor": "black"}), (3.6, 1.6, 0.3, 1.2, sky))
    stops = ((2.4, 2.35, 0.12, 0.6), (2.4, 1.45, 0.12, 0.6), (9.2, 1.9, 0.2, 0.6))
    for x, y, width, height, look in (*boxes, *((*stop, dark) for stop in stops), (9.7, 0.4, 0.25, 4.9, sky)):
        side.add_patch(Rectangle((x, y), width, height, **look))
    side.plot((1.6, 9.2), (2.2, 2.2), color=beam, linewidth=1.2)
    _arrow(side, (3.75, 2.2), (9.7, 4.6), color=beam)
    side.add_patch(Arc((3.75, 2.2), 5.0, 5.0, theta1=0, theta2=22, linewidth=0.8))
    words = (
        (0.85, 2.08, "source"), (2.46, 0.95, "slits"), (3.75, 0.95, "sample"), (8.6, 1.35, "beam stop"),
        (9.82, -0.15, "detector"), (6.7, 2.62, r"$2\theta$"), (3.05, 2.45, r"$\lambda$"),
    )  # fmt: skip
    for x, y, text in words:
        side.text(x, y, text, ha="center")
    _draw_wave_vectors(side, (0.7, 4.0))
    _draw_detector(front)
    plotting.label_panels([side, front])


def _arrow(axes, start, end, **look):
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "linewidth": 1.0} | look)


def _draw_wave_vectors(axes, origin):
    """The waves before and after, and the difference q."""
    (x, y), angle = origin, np.radians(22)
    before, after = (x + 2.6, y), (x + 2.6 * np.cos(angle), y + 2.6 * np.sin(angle))
    for start, end, colour in ((origin, before, "black"), (origin, after, "black"), (before, after, "blue")):
        _arrow(axes, start, end, color=plotting.COLOURS[colour])
    axes.text(x + 1.4, y - 0.5, r"$\mathbf{k}$, before", ha="center")
    axes.text(x + 0.9, y + 0.75, r"$\mathbf{k}'$, after", ha="center")
    axes.text(x + 2.7, y + 0.4, r"$\mathbf{q}$", color=plotting.COLOURS["blue"])
    axes.text(x + 3.3, y + 1.15, r"$q = |\mathbf{k}' - \mathbf{k}| = (4\pi/\lambda)\,\sin\theta$")


def _draw_detector(axes):
    """What the detector records of one box: the intensity on a plane, and a ring of one q."""
    field = gaussian_random_field(GRID, scaling_parameter=START["scaling_parameter"], seed=7)
    density = phase_map(field, porosity=START["porosity"], smoothing_sigma=SMOOTHING_LENGTH / GRID.voxel_size) / 2
    shadow = density.sum(axis=0)  # at small angles a pattern is that of the projection
    power = np.log10(np.abs(np.fft.fftshift(np.fft.fft2(shadow - shadow.mean()))) ** 2 + 1)
    edge = GRID.q_nyquist
    axes.imshow(power, extent=(-edge, edge, -edge, edge), vmin=power.max() - 5, cmap="cividis")
    ring = 0.8
    angle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(ring * np.cos(angle), ring * np.sin(angle), color="white", linewidth=0.8)
    _arrow(axes, (0, 0), (ring * np.cos(0.6), ring * np.sin(0.6)), color="white")
    axes.text(0.75, 0.6, "$q$", color="white")
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), xlabel="$q_x$ [nm$^{-1}$]", ylabel="$q_y$ [nm$^{-1}$]")


def draw_parts_of_a_curve(axes):
    """Draw a curve of an infinite two-phase sample with its plateau, its knee and Porod's law.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    """
    q, a = np.geomspace(0.03, 6, 300), START["scaling_parameter"]
    intensity = level_cut_intensity(q, scaling_parameter=a, porosity=START["porosity"])
    intensity /= intensity[0]
    parts = (
        (q[0], 0.3, "sky", "plateau", "contrast\nand volume"),
        (0.3, 0.9, "yellow", "knee", "size"),
        (0.9, q[-1], "green", "Porod's law", "area of the\ninterfaces"),
    )
    for low, high, colour, name, meaning in parts:
        axes.axvspan(low, high, color=plotting.COLOURS[colour], alpha=0.2, linewidth=0)
        axes.text(np.sqrt(low * high), 30, name, ha="center", weight="bold")
        axes.text(np.sqrt(low * high), 20, meaning, ha="center", va="top")
    axes.loglog(q, intensity, color=plotting.COLOURS["blue"], linewidth=1.5)
    tail = q > 1.1
    axes.loglog(q[tail], 5 * intensity[-1] * (q[tail] / q[-1]) ** -4, "k--", linewidth=0.8)
    axes.text(2.6, 1.2e-3, r"$\propto q^{-4}$")
    axes.plot((1 / a,) * 2, (1e-6, np.interp(1 / a, q, intensity)), color="black", linewidth=0.8, linestyle=":")
    axes.text(1 / a, 2e-6, " $1/a$")
    axes.set(xlim=(q[0], q[-1]), ylim=(1e-6, 100), xlabel=plotting.AXES["q"], ylabel="$I(q)$ over the plateau")
    axes.minorticks_off()


def draw_ruler(axes):
    """Draw q and the length 2 pi / q on one ruler, with what has such a size and what sees it.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    """
    bars = (
        (0.001, 0.03, "vermillion", "light, ultra-small angles"),
        (0.03, 6.0, "blue", "small-angle X-ray scattering"),
        (6.0, 60.0, "purple", "diffraction of crystals"),
    )
    for low, high, colour, name in bars:
        axes.barh(2, high - low, left=low, height=0.7, color=plotting.COLOURS[colour], alpha=0.35)
        axes.text(np.sqrt(low * high), 2, name, ha="center", va="center")
    axes.barh(1, 2.96, left=0.04, height=0.7, color=plotting.COLOURS["green"], alpha=0.35)
    axes.text(np.sqrt(0.04 * 3.0), 1, "curves of the paper", ha="center", va="center")
    sizes = ((2000, "bacterium"), (100, "virus"), (10, "pores of a gel"), (1, "sugar"), (0.25, "atoms"))
    for length, name in sizes:
        q = 2 * np.pi / length
        axes.plot(q, 0.2, "v", color="black", markersize=4)
        axes.text(q, -0.15, f"{name}, {length:g} nm", ha="center", va="top", fontsize=7)
    axes.set(xscale="log", xlim=(0.001, 60), ylim=(-0.9, 2.5), yticks=[], xlabel="$q$ [nm$^{-1}$]")
    axes.spines["left"].set_visible(False)
    top = axes.secondary_xaxis("top", functions=(_invert, _invert))
    top.set_xlabel("length $2\\pi/q$ [nm]")
    for axis, powers in ((axes, range(-3, 2)), (top, range(-1, 4))):
        axis.set_xticks([10.0**power for power in powers], [f"{10.0**power:g}" for power in powers])
        axis.minorticks_off()


def _invert(values):
    """Length [nm] to q [nm^-1], and back."""
    return 2 * np.pi / np.maximum(values, 1e-9)
