"""House style, and the plots that several notebooks draw; no files are read or written here.

Every plot function draws on the Axes that it is given, and returns the artist if it draws a single one. The colours
are those of Okabe and Ito, which readers with any common colour vision can tell apart. A figure is as wide as a column
or a page of the paper, so that nothing shrinks in print. Matplotlib is imported on first use, not with the package.
"""

from contextlib import contextmanager

import numpy as np

from .parameters import CASES, VARIABLES

AXES = {name: variable.label for name, variable in VARIABLES.items()}
"""Axis label of each variable of the model."""

COLUMN_WIDTH = 3.4  # inch
PAGE_WIDTH = 7.0  # inch

COLOURS = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
}
"""The palette of Okabe and Ito, in the order in which lines take them."""

CASE_COLOURS = dict(zip(CASES, COLOURS.values(), strict=False))
"""One colour for each case, the same in every figure."""

PHASE_NAMES = ("pore", "layer", "solid")
PHASE_COLOURS = ("#000000", COLOURS["sky"], "#F0E2BE")
"""Pore black, layer (water) blue, solid of the colour of sand, in slices and in three dimensions."""

RECONSTRUCTION = {
    "mosaic": "ABC;DBC",
    "figsize": (PAGE_WIDTH, 2.9),
    "width_ratios": (1.25, 1, 1),
    "height_ratios": (2.2, 1),
}
"""Arguments of `pyplot.subplot_mosaic` for `plot_reconstruction`."""


def use_style():
    """Set Matplotlib's defaults to the house style, for the whole session."""
    import matplotlib as mpl

    mpl.rcParams.update(_style())


@contextmanager
def house_style():
    """Draw what is inside, or a decorated function, in the house style; Matplotlib's defaults stay as they are."""
    import matplotlib as mpl

    with mpl.rc_context(_style()):
        yield


def _style():
    from matplotlib import cycler

    return {
        "figure.figsize": (COLUMN_WIDTH, 2.6),
        "figure.dpi": 120,
        "figure.constrained_layout.use": True,
        "savefig.dpi": 300,
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.prop_cycle": cycler(color=list(COLOURS.values())),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "lines.linewidth": 1.2,
        "lines.markersize": 3,
        "image.cmap": "cividis",
        "image.interpolation": "nearest",
        # Text stays text in the PDF, and hashes in SVG the same from run to run.
        "pdf.fonttype": 42,
        "svg.hashsalt": "grfsaxs",
    }


def label_panels(axes):
    """Write **A**, **B**, ... at the upper left of each Axes, as the paper does.

    Parameters
    ----------
    axes : Axes or array of Axes
    """
    axes = np.ravel(np.asarray(axes, dtype=object))
    for letter, ax in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", axes, strict=False):
        ax.set_title(letter, loc="left", fontweight="bold")


def label_log_axis(axis, subs=(1, 2, 5)):
    """Label a logarithmic axis of a few decades with plain numbers: 0.1, 0.2, 0.5, 1, ...

    Parameters
    ----------
    axis : matplotlib.axis.Axis
        ``ax.xaxis`` or ``ax.yaxis``.
    subs : sequence of float
        First digits that have a label.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def plot_curves(ax, q, intensity, *, label=None, **style):
    r"""Plot scattering curves on logarithmic axes.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    q : (n_q,) array_like
        Scattering vector [nm\ :sup:`-1`].
    intensity : (n_q,) or (n_curve, n_q) array_like
        Positive intensities.
    label : str or sequence of str, optional
        One for each curve.
    **style
        Passed to `Axes.loglog`.

    Returns
    -------
    list of matplotlib.lines.Line2D
    """
    intensity = np.atleast_2d(intensity)
    labels = [label] * len(intensity) if label is None or isinstance(label, str) else label
    # strict: one label too few would otherwise drop a curve.
    lines = [ax.loglog(q, curve, label=text, **style)[0] for curve, text in zip(intensity, labels, strict=True)]
    ax.set(xlabel=VARIABLES["q"].label, ylabel=VARIABLES["intensity"].label)
    return lines


def plot_coloured_curves(ax, q, intensity, values, *, limits, **style):
    r"""Plot scattering curves on logarithmic axes, coloured by the value of a parameter.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    q : (n_q,) array_like
        Scattering vector [nm\ :sup:`-1`].
    intensity : (n_curve, n_q) array_like
        Positive intensities.
    values : (n_curve,) array_like
        Parameter of each curve.
    limits : (float, float)
        Values at the ends of the colour map.
    **style
        Passed to `Axes.loglog`.

    Returns
    -------
    matplotlib.cm.ScalarMappable
        For a colour bar.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(*limits), "viridis")
    for curve, value in zip(intensity, values, strict=True):
        plot_curves(ax, q, curve, color=colours.to_rgba(value), **({"linewidth": 0.7} | style))
    return colours


def plot_slice(ax, phases, *, voxel_size):
    """Show one slice of a phase map in the colours of the phases.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    phases : (n, m) array_like of int
        0 pore, 1 layer, 2 solid.
    voxel_size : float
        Voxel edge [nm].

    Returns
    -------
    matplotlib.image.AxesImage
    """
    from matplotlib.colors import ListedColormap

    return _show(ax, phases, voxel_size, cmap=ListedColormap(PHASE_COLOURS), vmin=-0.5, vmax=2.5)


def plot_field(ax, field, *, voxel_size, **style):
    """Show one slice of a real field.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    field : (n, m) array_like of float
    voxel_size : float
        Voxel edge [nm].
    **style
        Passed to `Axes.imshow`.

    Returns
    -------
    matplotlib.image.AxesImage
    """
    return _show(ax, field, voxel_size, **style)


def _show(ax, image, voxel_size, **style):
    image = np.asarray(image)
    if image.ndim != 2:
        raise ValueError(f"a slice must be two-dimensional; got shape {image.shape}")
    height, width = (voxel_size * n for n in image.shape)
    drawn = ax.imshow(image, origin="lower", extent=(0, width, 0, height), **style)
    ax.spines[:].set_visible(True)
    ax.set(xlabel="x [nm]", ylabel="y [nm]")
    return drawn


def phase_legend(ax, names=PHASE_NAMES, **style):
    """Add a legend of the phases, or of some of them, to an Axes or a Figure."""
    from matplotlib.patches import Patch

    colours = dict(zip(PHASE_NAMES, PHASE_COLOURS, strict=True))
    patches = [Patch(facecolor=colours[name], edgecolor="black", linewidth=0.5, label=name) for name in names]
    return ax.legend(handles=patches, **style)


def plot_predictions(ax, true, predicted, *, variable, limits, **style):
    """Scatter predicted against true values, with the line where they agree.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    true, predicted : (n,) array_like
    variable : str
        A key of `VARIABLES`, for the labels.
    limits : (float, float)
        Range of the true values, used for both axes with a small margin.
    **style
        Passed to `Axes.plot`.

    Returns
    -------
    matplotlib.lines.Line2D
        The points, drawn as an image in a PDF: a hundred thousand of them are slow as vectors.
    """
    from matplotlib.ticker import MaxNLocator

    symbol = VARIABLES[variable].label.removeprefix(VARIABLES[variable].long_name)  # " $a$ [nm]"
    style = {"color": COLOURS["blue"], "marker": ".", "markersize": 1.5, "alpha": 0.5, **style}
    (points,) = ax.plot(true, predicted, linestyle="none", rasterized=True, **style)
    ax.axline((limits[0], limits[0]), slope=1, color="black", linewidth=0.6)
    margin = 0.05 * (limits[1] - limits[0])
    span = (limits[0] - margin, limits[1] + margin)
    ax.set(xlim=span, ylim=span, aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):  # the same numbers along both
        axis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
    ax.set(xlabel=f"true{symbol}", ylabel=f"predicted{symbol}")
    return points


def plot_estimates(ax, values, *, variable, truth, bins=25, **style):
    """Draw a histogram of estimates with the true value as a vertical line.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    values : (n,) array_like
    variable : str
        A key of `VARIABLES`, for the label.
    truth : float
    bins : int or array_like
        As in `Axes.hist`.
    **style
        Passed to `Axes.hist`.

    Returns
    -------
    counts : (n_bin,) ndarray of float64
    edges : (n_bin + 1,) ndarray of float64
    """
    style = {"color": COLOURS["sky"], "edgecolor": "white", "linewidth": 0.3, **style}
    counts, edges, _ = ax.hist(values, bins=bins, **style)
    ax.axvline(truth, color="black", linewidth=1)
    ax.set(xlabel=VARIABLES[variable].label, ylabel="number of curves")
    return counts, edges


def plot_cases(axes, estimates, cases):
    """Scatter predicted against true values of several cases, one row of Axes for each: figures 4 and 5.

    Parameters
    ----------
    axes : (n_case, n_output) array of Axes
    estimates : dict of (str, str) to (array_like, array_like)
        Predicted and true values for each case and output.
    cases : sequence of Case
    """
    for row, case in zip(axes, cases, strict=True):
        for ax, (output, limits) in zip(row, case.ranges.items(), strict=True):
            predicted, true = estimates[case.name, output]
            dense = len(true) > 5000
            look = {"markersize": 0.6, "alpha": 0.1} if dense else {"markersize": 3}
            plot_predictions(ax, true, predicted, variable=output, limits=limits, **look)
        row[0].set_ylabel(f"{case.title}\n{row[0].get_ylabel()}")
    label_panels(axes)


def plot_replicates(axes, estimates, *, truth, paper):
    """Draw histograms of estimates from replicates, with mean ± sd here and in the paper: figure 6.

    Parameters
    ----------
    axes : sequence of Axes
        One for each output.
    estimates : dict of str to (n,) array_like
        For each output.
    truth : dict of str to float
    paper : dict of str to (float, float)
        Mean and standard deviation in the paper.
    """
    tops = [
        plot_estimates(ax, values, variable=output, truth=truth[output])[0].max()
        for ax, (output, values) in zip(axes, estimates.items(), strict=True)
    ]
    style = {"fmt": "o", "markersize": 3, "capsize": 2, "linewidth": 1}
    for ax, (output, values) in zip(axes, estimates.items(), strict=True):
        here = np.mean(values, dtype=float), np.std(values, ddof=1, dtype=float)
        for label, (mean, sd), height, colour in (
            ("here", here, 1.08, "blue"),
            ("the paper", paper[output], 1.18, "vermillion"),
        ):
            ax.errorbar(mean, height * max(tops), xerr=sd, color=COLOURS[colour], label=label, **style)
        ax.label_outer()
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    label_panels(axes)


def plot_reconstruction(axes, q, *, measured, curves, expected, planes, voxel_size):
    """Draw a structure and its curve beside those of a reconstruction: figure 7.

    Parameters
    ----------
    axes : dict of str to Axes
        "A" for the curves, "B" and "C" for a plane of the structures, "D" for the differences of the curves.
    q : (n_q,) array_like
        Scattering vector [nm^-1].
    measured : (n_q,) array_like
        Noisy curve of the true structure.
    curves : ((n_q,) array_like, (n_q,) array_like)
        Clean curves of the true and of the reconstructed structure.
    expected : (n_q,) array_like
        Relative standard deviation of the ratio of two curves of equal parameters.
    planes : ((n, n) array_like, (n, n) array_like)
        Of the phase maps.
    voxel_size : float
        Voxel edge [nm].
    """
    q, expected, (true, reconstructed) = np.asarray(q), np.asarray(expected), np.asarray(curves)
    red = COLOURS["vermillion"]
    dots = {"color": COLOURS["sky"], "linestyle": "none", "marker": ".", "markersize": 2, "rasterized": True}
    plot_curves(axes["A"], q, measured, label="measured", **dots)
    plot_curves(axes["A"], q, true, color="black", linewidth=0.9, label="true structure")
    plot_curves(axes["A"], q, reconstructed, color=red, linewidth=0.9, linestyle="--", label="reconstructed")
    axes["A"].legend(loc="lower left")
    axes["A"].set(xlabel="", xticklabels=[])
    axes["D"].fill_between(q, -2 * expected, 2 * expected, color="0.85", linewidth=0)
    axes["D"].semilogx(q, np.asarray(measured) / true - 1, **dots)
    axes["D"].semilogx(q, reconstructed / true - 1, color=red, linewidth=0.9)
    axes["D"].set(ylabel="relative\ndifference", ylim=(-0.6, 0.6), xlim=axes["A"].get_xlim())
    axes["D"].set_xlabel(VARIABLES["q"].label)
    for letter, plane, title in zip("BC", planes, ("true", "reconstructed"), strict=True):
        plot_slice(axes[letter], plane, voxel_size=voxel_size)
        axes[letter].set(title=title, anchor="N")
    axes["C"].set(ylabel="")
    phase_legend(axes["C"].figure, loc="lower right", ncols=3)
    label_panels([axes[letter] for letter in "ABCD"])
