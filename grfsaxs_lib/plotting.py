"""House style and the plots that several notebooks draw; no files are read or written here.

Every function draws on the Axes it is given and returns what it drew. Colours are those of
Okabe and Ito, told apart with every common colour vision; a figure is as wide as a column
of the paper, so nothing shrinks in print. Matplotlib is imported on first use, not with
the package.
"""

import numpy as np

from .parameters import CASES, VARIABLES

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
"""One colour a case, the same in every figure."""

PHASE_NAMES = ("pore", "layer", "solid")
PHASE_COLOURS = ("#000000", "#999999", "#FFFFFF")
"""Pore black, layer (water) grey, solid white, as in figure 7."""


def use_style():
    """Set Matplotlib's defaults to the house style, for the whole session."""
    import matplotlib as mpl

    mpl.rcParams.update(
        {
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
            "axes.prop_cycle": mpl.cycler(color=list(COLOURS.values())),
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
    )


def label_panels(axes):
    """Write **A**, **B**, ... at the upper left of each Axes, as the paper does.

    Parameters
    ----------
    axes : Axes or array of Axes
    """
    axes = np.ravel(np.asarray(axes, dtype=object))
    for letter, ax in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", axes, strict=False):
        ax.set_title(letter, loc="left", fontweight="bold")


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


def plot_slice(ax, phases, *, voxel_size):
    """Show one slice of a phase map: pore black, layer grey, solid white.

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


def phase_legend(ax, **style):
    """Add a legend of the three phases to an Axes."""
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=colour, edgecolor="black", linewidth=0.5, label=name)
        for name, colour in zip(PHASE_NAMES, PHASE_COLOURS, strict=True)
    ]
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
    symbol = VARIABLES[variable].label.removeprefix(VARIABLES[variable].long_name)  # " $a$ [nm]"
    style = {"color": COLOURS["blue"], "marker": ".", "markersize": 1.5, "alpha": 0.5, **style}
    (points,) = ax.plot(true, predicted, linestyle="none", rasterized=True, **style)
    ax.axline((limits[0], limits[0]), slope=1, color="black", linewidth=0.6)
    margin = 0.05 * (limits[1] - limits[0])
    span = (limits[0] - margin, limits[1] + margin)
    ax.set(xlim=span, ylim=span, aspect="equal")
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
