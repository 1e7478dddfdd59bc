"""What the repeated plots draw, read back from the Axes."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from grfsaxs_lib import plotting, results
from grfsaxs_lib.parameters import CASES


@pytest.fixture
def ax():
    return Figure().subplots()


def test_labels_of_a_logarithmic_axis(ax):
    ax.set(xscale="log", xlim=(0.4, 6), yticks=[])
    plotting.label_log_axis(ax.xaxis)
    assert [words for words, _ in results.drawn_texts(ax.figure)] == ["0.5", "1", "2", "5"]


@pytest.fixture
def style():
    with matplotlib.rc_context():
        plotting.use_style()
        yield matplotlib.rcParams


def test_style_is_column_wide_with_the_palette(style):
    assert style["figure.figsize"][0] == plotting.COLUMN_WIDTH == 3.4
    assert style["figure.constrained_layout.use"]
    assert [entry["color"] for entry in style["axes.prop_cycle"]] == list(plotting.COLOURS.values())
    # At column width the smallest text is what it says: nothing is scaled down in print.
    assert min(style[key] for key in ("xtick.labelsize", "legend.fontsize")) >= 7


def test_the_style_does_not_depend_on_what_was_set_before(style):
    before = dict(style)
    plotting.use_style()
    assert dict(style) == before


def test_each_case_has_its_colour():
    assert plotting.CASE_COLOURS.keys() == CASES.keys()
    assert len(set(plotting.CASE_COLOURS.values())) == len(CASES)


def test_curves(ax):
    q, intensity = np.geomspace(0.1, 1, 5), np.arange(1.0, 11).reshape(2, 5)
    lines = plotting.plot_curves(ax, q, intensity, label=["one", "two"], color="k")
    assert [line.get_label() for line in lines] == ["one", "two"]
    np.testing.assert_array_equal(lines[1].get_ydata(), intensity[1])
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert "nm$^{-1}$" in ax.get_xlabel() and "intensity" in ax.get_ylabel()
    (single,) = plotting.plot_curves(ax, q, intensity[0], label="alone")
    assert single.get_label() == "alone"
    with pytest.raises(ValueError):
        plotting.plot_curves(ax, q, intensity, label=["one"])


def test_coloured_curves(ax):
    q, intensity = np.geomspace(0.1, 1, 5), np.arange(1.0, 11).reshape(2, 5)
    colours = plotting.plot_coloured_curves(ax, q, intensity, [1.0, 3.0], limits=(1.0, 3.0), linewidth=2)
    assert [line.get_color() for line in ax.lines] == [colours.to_rgba(1.0), colours.to_rgba(3.0)]
    assert len({line.get_color() for line in ax.lines}) == 2 and ax.lines[0].get_linewidth() == 2
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), intensity[1])
    with pytest.raises(ValueError):
        plotting.plot_coloured_curves(ax, q, intensity, [1.0], limits=(1.0, 3.0))


def test_slice_has_the_colours_of_the_phases(ax):
    image = plotting.plot_slice(ax, [[0, 1], [2, 2], [0, 0]], voxel_size=0.5)
    assert image.get_extent() == [0, 1, 0, 1.5]
    drawn = image.cmap(image.norm(np.array([0, 1, 2])))[:, :3]
    np.testing.assert_allclose(drawn, [to_rgb(colour) for colour in plotting.PHASE_COLOURS])
    lightness = drawn @ [0.2126, 0.7152, 0.0722]  # they differ in a grey print too
    assert (np.diff(lightness) > 0.2).all()
    # One phase alone keeps its colour.
    only = plotting.plot_slice(ax, np.full((2, 2), 1), voxel_size=1.0)
    np.testing.assert_allclose(only.cmap(only.norm(1))[:3], drawn[1])


@pytest.mark.parametrize("draw", [plotting.plot_slice, plotting.plot_field])
def test_a_slice_has_two_dimensions(ax, draw):
    with pytest.raises(ValueError, match=r"two-dimensional; got shape \(4, 4, 4\)"):
        draw(ax, np.zeros((4, 4, 4)), voxel_size=1.0)


def test_phase_legend(ax):
    legend = plotting.phase_legend(ax)
    assert [text.get_text() for text in legend.get_texts()] == ["pore", "layer", "solid"]
    (pore, _, solid), some = legend.get_patches(), plotting.phase_legend(ax, ("pore", "solid")).get_patches()
    assert [patch.get_facecolor() for patch in some] == [pore.get_facecolor(), solid.get_facecolor()]


def test_predictions(ax):
    true = np.linspace(0.8, 8, 7)
    points = plotting.plot_predictions(ax, true, true + 0.1, variable="scaling_parameter", limits=(0.8, 8.0))
    np.testing.assert_array_equal(points.get_xdata(), true)
    np.testing.assert_array_equal(points.get_ydata(), true + 0.1)
    assert points.get_rasterized()
    assert ax.get_xlabel() == "true $a$ [nm]" and ax.get_ylabel() == "predicted $a$ [nm]"
    assert ax.get_xlim() == ax.get_ylim() == pytest.approx((0.44, 8.36))
    np.testing.assert_array_equal(ax.get_xticks(), ax.get_yticks())


def test_predictions_of_a_number_without_unit(ax):
    plotting.plot_predictions(ax, [0.2], [0.2], variable="porosity", limits=(0.1, 0.5))
    assert ax.get_xlabel() == r"true $\epsilon$"


def test_estimates(ax):
    counts, edges = plotting.plot_estimates(ax, [3.9, 4.0, 4.0, 4.1], variable="scaling_parameter", truth=4.0, bins=3)
    assert counts.tolist() == [1, 2, 1] and len(edges) == 4
    assert list(ax.lines[0].get_xdata()) == [4.0, 4.0]
    assert "[nm]" in ax.get_xlabel()


def test_panels_are_lettered():
    axes = Figure().subplots(2, 2)
    plotting.label_panels(axes)
    assert [ax.get_title(loc="left") for ax in axes.flat] == ["A", "B", "C", "D"]
    plotting.label_panels(axes[0, 0])


def test_cases_are_rows():
    cases = [CASES["three_phase_low"], CASES["three_phase_high"]]
    estimates = {(case.name, output): ([0.3, 0.4], [0.31, 0.39]) for case in cases for output in case.outputs}
    axes = Figure().subplots(2, 3)
    plotting.plot_cases(axes, estimates, cases)
    assert all(ax.lines for ax in axes.flat) and axes[1, 2].get_xlabel() == r"true $\nu$"
    assert [row[0].get_ylabel() for row in axes] == [f"{case.title}\npredicted $a$ [nm]" for case in cases]
    assert axes[1, 2].get_title(loc="left") == "F"


def test_replicates_beside_the_paper():
    figure = Figure(layout="constrained")
    axes = figure.subplots(1, 2)
    estimates = {"scaling_parameter": [3.9, 4.0, 4.1], "porosity": [0.6, 0.7, 0.8]}
    truth, paper = (
        {"scaling_parameter": 4.0, "porosity": 0.7},
        {"scaling_parameter": (4.1, 0.2), "porosity": (0.7, 0.1)},
    )
    plotting.plot_replicates(axes, estimates, truth=truth, paper=paper)
    here, theirs = axes[0].containers[-2:]
    assert here.lines[0].get_xdata() == pytest.approx([4.0]) and theirs.lines[0].get_xdata() == pytest.approx([4.1])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["here", "the paper"]


def test_reconstruction():
    q, curve = np.linspace(0.1, 3, 50), np.linspace(2.0, 1.0, 50)
    figure = Figure(layout="constrained")
    axes = figure.subplot_mosaic(plotting.RECONSTRUCTION["mosaic"])
    plotting.plot_reconstruction(
        axes, q, measured=curve, curves=(curve, 1.1 * curve), expected=np.full(50, 0.05),
        planes=(np.zeros((4, 4)), np.ones((4, 4))), voxel_size=0.5,
    )  # fmt: skip
    noise, difference = axes["D"].lines
    assert (noise.get_ydata() == 0).all() and difference.get_ydata() == pytest.approx(0.1)
    words = [text.get_text() for text in axes["A"].get_legend().get_texts()]
    assert words == ["measured", "true structure", "reconstructed"] and "relative" in axes["D"].get_ylabel()
    assert axes["C"].get_legend() is None and len(figure.legends[0].get_patches()) == 3
