"""The explorer of notebook 00: what a slider does, how long it takes, and that all of its text can be read."""

import itertools
import re
import time
import warnings
from pathlib import Path

import IPython.display
import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import grfsaxs_lib as gx
from grfsaxs_lib import explorer, plotting, results

LAYERED = explorer.START | {"porosity": 0.6, "layer_fraction": 0.3}
CASES = {
    "two phases": explorer.START,
    "mirrored": explorer.START | {"scaling_parameter": 3.8, "porosity": 0.9},
    "near one half": explorer.START | {"porosity": 0.5},
    "layer": LAYERED,
    "layer like pores": LAYERED | {"layer_density": 0.0},
    "thin layer": LAYERED | {"layer_fraction": 0.1},
}


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        plotting.use_style()
        yield


@pytest.fixture(scope="module")
def measured():
    return {name: explorer.measure(settings, seed=7) for name, settings in CASES.items()}


def read_texts(figure):
    """Words of all text that a reader sees; all of it must be readable."""
    assert results.find_unreadable(figure) == []
    return [words for words, _ in results.drawn_texts(figure)]


@pytest.mark.parametrize("name", CASES)
def test_all_text_can_be_read(name, measured):
    settings = CASES[name]
    words = read_texts(explorer.redraw(settings, seed=7))
    assert "not measured yet" in words and {"pore", "layer", "solid", "this box"} <= set(words)
    assert plotting.AXES["q"] in words and plotting.AXES["intensity"] in words
    words = read_texts(explorer.redraw(settings, seed=7, measurement=measured[name]))
    assert explorer.judge(settings, measured[name].analysis) in words and "measured" in words
    assert any(
        text.startswith(f"a = {measured[name].analysis.table.loc['scaling_parameter', 'median']:.3f}") for text in words
    )


@pytest.mark.parametrize("draw", [explorer.draw_ruler, explorer.draw_parts_of_a_curve])
def test_drawings_can_be_read(draw):
    figure = Figure(figsize=(plotting.PAGE_WIDTH if draw is explorer.draw_ruler else 5.2, 2.5))
    draw(figure.subplots())
    assert read_texts(figure)


def test_the_experiment_can_be_read():
    figure = Figure(figsize=(plotting.PAGE_WIDTH, 2.7))
    explorer.draw_experiment(*figure.subplots(1, 2, width_ratios=(2.7, 1)))
    words = read_texts(figure)
    assert {"source", "sample", "detector", r"$2\theta$", r"$\mathbf{q}$", "$q$"} <= set(words)


def test_a_redraw_takes_less_than_half_a_second():
    def seconds(porosity):
        start = time.process_time()  # of this process alone: others may be busy
        explorer._image(explorer.redraw(LAYERED | {"porosity": porosity}, seed=7))
        return time.process_time() - start

    seconds(0.5)  # compile, read fonts
    assert min(seconds(porosity) for porosity in (0.55, 0.6, 0.65)) < 0.5


def test_every_setting_makes_a_curve_inside_the_axes():
    ends = [(slider.low, slider.high) for slider in explorer.SLIDERS.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in itertools.product(*ends):
            settings = dict(zip(explorer.SLIDERS, values, strict=True))
            plane, intensity = explorer.simulate_box(**settings, seed=7)
            assert plane.shape == (explorer.GRID.size,) * 2
            low, high = explorer._INTENSITY_LIMITS
            assert low < intensity.min() and intensity.max() < high, settings


def test_the_first_settings_are_on_the_sliders():
    for slider in explorer.SLIDERS.values():
        assert slider.low <= slider.value <= slider.high
        for value in (slider.value, slider.high):
            assert (value - slider.low) / slider.step == pytest.approx(round((value - slider.low) / slider.step))


def test_two_phases_are_estimated_rightly(measured):
    """The true values lie within four standard deviations, but near 1/2, where the porosity has a bound."""
    for name in ("two phases", "mirrored", "near one half", "layer like pores"):
        table = measured[name].analysis.table
        a, porosity = (CASES[name][key] for key in ("scaling_parameter", "porosity"))
        assert abs(table.loc["scaling_parameter", "median"] - a) < 4 * table.loc["scaling_parameter", "sd"]
        if porosity != 0.5:
            row = table.loc["porosity" if porosity < 0.5 else "mirror_porosity"]
            assert abs(row["median"] - porosity) < 4 * row["sd"]


def test_a_layer_that_is_not_seen_changes_nothing(measured):
    """With the density of the pores a structure with a layer scatters as that without it, and has its closed form."""
    bare = LAYERED | {"layer_fraction": 0.0}
    one, other = (explorer.simulate_box(**settings, seed=7)[1] for settings in (bare, CASES["layer like pores"]))
    np.testing.assert_allclose(other, one, rtol=1e-4)  # single precision
    np.testing.assert_array_equal(measured["layer like pores"].expected, explorer.measure(bare, seed=7).expected)


def test_the_mean_of_boxes_is_near_the_closed_form():
    """Within three standard errors of independent modes, and a tenth for voxels, at all but a few q."""
    settings = explorer.START
    boxes = np.mean([explorer.simulate_box(**settings, seed=7 + box)[1] for box in range(explorer.N_BOX)], axis=0)
    error = explorer.GRID.q_spacing / explorer.Q / np.sqrt(2 * np.pi**1.5 * explorer.N_BOX)
    away = np.abs(boxes / explorer.measure(settings, seed=7).expected - 1)
    assert np.mean(away < 3 * error + 0.1) > 0.95


def test_the_caption_has_the_numbers_of_the_explorer():
    caption = (Path(__file__).parent.parent / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8")
    assert f"an edge of {explorer.GRID.box_length:g} nm" in caption
    assert f"with {100 * explorer.RELATIVE_ERROR:g} % noise" in caption


def test_measurements_differ_and_can_be_repeated():
    one, same, other = (explorer.measure(explorer.START, seed=7, number=number).curve.intensity for number in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()


@pytest.mark.parametrize(
    "name, start, colour",
    [
        ("two phases", "The model fits", "green"),
        ("near one half", "The model fits", "green"),
        ("layer", "Wrong model, three phases", "vermillion"),
        ("layer like pores", "The layer has the density of the pores", "green"),
        ("thin layer", "Beware, three phases", "vermillion"),
    ],
)
def test_the_verdict(name, start, colour, measured):
    settings, analysis = CASES[name], measured[name].analysis
    assert explorer.judge(settings, analysis).startswith(start)
    assert explorer._colour_of(settings, analysis) == plotting.COLOURS[colour]


def test_an_unreliable_estimate_says_why():
    settings = explorer.START | {"scaling_parameter": 0.9}  # below the slider: the curve ends too early
    analysis = explorer.measure(settings, seed=7).analysis
    assert explorer.judge(settings, analysis).startswith("Not reliable: ")
    assert explorer._colour_of(settings, analysis) == plotting.COLOURS["vermillion"]


def test_sliders_and_button_redraw():
    figures = []
    box, first = explorer.open_panel(figures.append, seed=7)
    *sliders, button = box.children
    assert "measured" in read_texts(first)
    for slider, wanted in zip(sliders, explorer.SLIDERS.values(), strict=True):
        assert (slider.description, slider.value) == (wanted.label, wanted.value)
        # A letter is about half an em wide; a longer label would be cut.
        assert 0.5 * len(slider.description) < float(slider.style.description_width.removesuffix("em"))
    sliders[1].value = 0.42
    assert "not measured yet" in read_texts(figures[-1])
    button.click()
    words = read_texts(figures[-1])
    assert any("(true: 0.42)" in text for text in words) and len(figures) == 2


def test_shown_without_a_kernel_it_is_a_picture(monkeypatch):
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda thing, **_: shown.append(thing))
    figure = explorer.show()
    panel, picture = shown
    assert "application/vnd.jupyter.widget-view+json" in panel and "kernel" in panel["text/plain"]
    assert picture.data.startswith(b"\x89PNG") and len(figure.axes) == 4


def test_the_capstone_of_the_lecturers(tmp_path, monkeypatch):
    """Ten curves, the answers elsewhere; plain samples are found, and two curves are not believed."""
    text = (Path(__file__).parent.parent / "docs" / "lecturers.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    files = sorted((tmp_path / "capstone").iterdir())
    answers = pd.read_csv(tmp_path / "capstone_answers" / "answers.csv")
    assert [file.name for file in files] == [f"unknown_{number:02d}.dat" for number in answers["curve"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gx.AnalysisWarning)
        found = [gx.analyse(gx.read_curve(file)) for file in files]
    assert {kind for kind, one in zip(answers["kind"], found, strict=True) if not one.reliable} == {
        "no knee",
        "three phases",
    }
    for name, column in (("scaling_parameter", "a [nm]"), ("porosity", "porosity")):
        ends = np.array([one.table.loc[name, ["2.5 %", "97.5 %"]] for one in found])
        held = (ends[:, 0] <= answers[column]) & (answers[column] <= ends[:, 1])
        assert held[answers["kind"] == "two phases"].sum() >= 6 and held[answers["kind"] == "coarse resolution"].all()
