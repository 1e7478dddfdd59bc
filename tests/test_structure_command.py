"""The command `grfsaxs structure`, and structures: what they write, what they say, and what they refuse."""

import argparse
import re

import numpy as np
import pytest
import xarray as xr
from matplotlib import rc_context

import grfsaxs_lib as gx
from grfsaxs_lib import commands, plotting, results
from grfsaxs_lib.inference import drawn_structure, report

Q = np.geomspace(0.03, 3.0, 60)
ENDS = ("free.nc", "free.png", "structure.nc", "structure.png", "structure.tif")


def write(path, porosity=0.3):
    """A file of a level cut with the density (1 + (ak)²)^-4, one per cent of noise."""
    shape = {"spectral_density": "power", "shape": {"m": 2, "n": 4}}
    clean = gx.level_cut_intensity(Q, scaling_parameter=4.0, porosity=porosity, **shape)
    clean /= clean[0]
    clean += 0.5 * clean[-1]
    intensity = clean * (1 + 0.01 * np.random.default_rng(0).standard_normal(Q.size))
    path.parent.mkdir(exist_ok=True)
    np.savetxt(path, np.column_stack([Q, intensity, 0.01 * clean]), header="q[1/nm] I sigma")
    return path


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    curve = gx.read_curve(write(tmp_path_factory.mktemp("curve") / "sample.dat"))
    return gx.analyse(curve, spectral_density="free", porosity=0.3)


@pytest.fixture(scope="module")
def structure(found):
    return found.structure(gx.Grid(128, 1.0), seed=1)


@pytest.fixture
def quick(found, monkeypatch):
    """The analysis takes seconds, and is tested elsewhere."""
    monkeypatch.setattr("grfsaxs_lib.inference.analyse.analyse", lambda *_, **__: found)


@pytest.fixture
def run(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            commands.main([str(argument) for argument in arguments])
        return ended.value.code, capsys.readouterr()

    return run


def unreliable(analysis):
    return analysis.__class__(**vars(analysis) | {"reliable": False, "warnings": ["a reason", *analysis.warnings]})


def test_a_structure_says_what_its_analysis_says(found, tmp_path):
    structure = unreliable(found).structure(gx.Grid(128, 1.0), seed=1)
    structure.to_netcdf(tmp_path / "one.nc")
    with xr.open_dataset(tmp_path / "one.nc") as data:
        assert data.attrs["reliable"] == 0 and "a reason" in data.attrs["warnings"]
        assert data.attrs["deviation"] == structure.deviation
        signal = (data["fit"] - data.attrs["background"]) / data.attrs["prefactor"]  # the closed form, not smeared
    expected = gx.level_cut_intensity(
        structure.q, scaling_parameter=4.0, porosity=0.3, spectral_density="power", shape={"m": 2, "n": 4}
    )
    ratio = signal.values / expected  # the prefactor has an error of its own; beyond, the background hides the signal
    np.testing.assert_allclose(ratio[expected > 0.01 * expected[0]], np.median(ratio), rtol=0.05)
    assert np.median(ratio) == pytest.approx(1, rel=0.05)
    assert "NOT RELIABLE" in structure.plot().get_suptitle()


def test_deviation(found, structure):
    """Twice the voxel is farther from the fit, and a remark says so."""
    far = structure.q > 4 * structure.grid.q_spacing
    fit = np.interp(structure.q, found.curve.q, found.fit)
    assert structure.deviation == pytest.approx(np.median(np.abs(np.log(structure.intensity / fit))[far]), rel=0.1)
    coarse = found.structure(gx.Grid(64, 2.0), seed=1)
    assert coarse.deviation > max(structure.deviation, 0.03)
    assert "deviates from the fit" in coarse.warnings[0] and coarse.warnings[1:] == found.warnings


def test_a_grid_that_would_do(found):
    with pytest.raises(ValueError, match="of the field's variance") as error:
        found.structure(gx.Grid(64, 0.1))
    size, voxel_size = re.search("Use size=(.*) and voxel_size=(.*), a box", str(error.value)).groups()
    assert drawn_structure._held(found, gx.Grid(int(size), float(voxel_size))) >= 0.95
    assert int(size) == 64
    for size in (16, 64):  # 16 hold too little, whatever their size
        best, held = drawn_structure._best_grid(found, size)
        finer, coarser = (drawn_structure._held(found, gx.Grid(size, best.voxel_size * by)) for by in (0.9, 1.2))
        assert finer < min(held, 0.975) and (coarser < held if size == 16 else held > 0.97)


def test_no_grid_would_do(found, monkeypatch):
    monkeypatch.setattr(drawn_structure, "_LEFT_OUT", -1e-9)
    with pytest.raises(ValueError, match="No grid of up to 512.* a smaller range of q"):
        found.structure(gx.Grid(64, 0.1))


def test_pictures(found, structure):
    """Nothing overlaps, and what is given and found is said; they do not depend on Matplotlib's defaults."""
    title = found.plot().get_suptitle()
    assert "porosity ε = 0.3 (given), specific surface S = " in title and "χ² = " in title
    assert f"within {100 * structure.deviation:.2g} %" in structure.plot().get_suptitle()
    for draw in (found.plot, structure.plot):
        with rc_context({"font.size": 20, "axes.spines.top": True, "xtick.labelsize": 20}):
            figure = draw()
        with rc_context({"xtick.labelsize": 20}):
            assert results.find_unreadable(figure) == []
        assert not figure.axes[0].spines["top"].get_visible()
        assert figure.axes[0].get_ylabel() == "intensity [unit of the file]"


@pytest.mark.parametrize("seen", ["some", "none", "all"])
def test_a_spectrum_of_the_prior_alone(found, seen):
    from matplotlib.figure import Figure

    spectrum = found.spectrum
    if seen != "some":
        spectrum["from_data"] = spectrum["from_data"] | True if seen == "all" else spectrum["from_data"] & False
    figure = Figure()
    ax = figure.add_subplot()
    report.draw_spectrum(ax, spectrum)
    assert results.find_unreadable(figure) == []
    low, high = ax.get_xlim()
    assert low == pytest.approx(found.curve.q[0] / 2) and high == pytest.approx(1.5 * found.curve.q[-1])
    blue, grey = (ax.get_lines()[i].get_ydata() for i in (0, 1))
    assert (np.isfinite(blue) | np.isfinite(grey)).all()
    assert np.count_nonzero(np.isfinite(blue) & np.isfinite(grey)) == (0 if seen != "some" else 2)  # where they join
    assert np.isfinite(blue).any() == (seen != "none") and np.isfinite(grey).any() == (seen != "all")


def test_house_style_is_left_as_it_was():
    with rc_context({"font.size": 20}) as _:
        import matplotlib as mpl

        with plotting.house_style():
            assert mpl.rcParams["font.size"] == 8
        assert mpl.rcParams["font.size"] == 20


def test_files(quick, run, tmp_path):
    """Results of another file of the same name stay; those of the same file, or of a copy, are replaced."""
    file, out = write(tmp_path / "sample.dat"), tmp_path / "out"
    arguments = ["--porosity", 0.3, "--size", 64, "--voxel-size", 2, "--out", out]
    code, printed = run("structure", file, *arguments)
    assert code == 0 and "deviates from the fit by" in printed.out, printed.err
    assert {path.name for path in out.iterdir()} == {f"sample.{end}" for end in ENDS}
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    code, printed = run("structure", write(tmp_path / "other" / "sample.dat", porosity=0.2), *arguments)
    assert code == 1 and f"a result of {file.resolve()}: give another folder by --out" in printed.err
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    code, _ = run("structure", write(tmp_path / "copy" / "sample.dat"), *arguments)
    assert code == 0 and all(path.stat().st_mtime_ns > time for path, time in before.items())


def test_the_analysis_is_kept(quick, run, tmp_path):
    file, out = write(tmp_path / "sample.dat"), tmp_path / "out"
    code, printed = run("structure", file, "--porosity", 0.3, "--size", 64, "--voxel-size", 0.1, "--out", out)
    assert code == 1 and "Use --size 64 and --voxel-size " in printed.err
    assert {path.name for path in out.iterdir()} == {"sample.free.nc", "sample.free.png"}
    assert "specific_surface" in printed.out


def test_several_entries(quick, run, tmp_path):
    entry = "<SASentry><Title>{}</Title><SASdata>{}</SASdata></SASentry>"
    row = '<Idata><Q unit="1/nm">{:.6g}</Q><I unit="1/cm">{:.6g}</I><Idev unit="1/cm">{:.6g}</Idev></Idata>'
    rows = "".join(row.format(q, 1 / (1 + q**4), 0.01 / (1 + q**4)) for q in Q)
    file = tmp_path / "two.xml"
    file.write_text(f'<SASroot version="1.1">{entry.format("first", rows)}{entry.format("second", rows)}</SASroot>')
    arguments = ["structure", file, "--porosity", 0.3, "--size", 64, "--voxel-size", 2, "--out", tmp_path / "out"]
    for wrong in ([], ["--entry", 3]):
        code, printed = run(*arguments, *wrong)
        assert code == 1 and "1 (first), 2 (second): choose one by --entry" in printed.err
    code, printed = run(*arguments, "--entry", 2)
    assert code == 0, printed.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"two.entry2.{end}" for end in ENDS}


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["--size", 63], 1, "--size must be an even integer"),
        (["--voxel-size", 0], 1, "--voxel-size must be a positive length"),
        (["--device", "tpu"], 1, "--device must be one of"),
        (["--size", 65536], 1, "GiB are free"),
        (["--seed", -1], 2, "--seed: must be a whole number"),
        (["--porosity", 30], 2, "must be a fraction, not percent"),
        (["--porosity", "much"], 2, "must be a fraction, not percent"),
        (["--q-range", 2, 0.1], 2, "--q-range: LOW must be below HIGH"),
        (["--out", "file/out"], 1, "cannot write to"),
    ],
)
def test_arguments_are_checked_before_the_analysis(run, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("grfsaxs_lib.inference.analyse.analyse", None)
    (tmp_path / "file").touch()
    ended, printed = run("structure", write(tmp_path / "sample.dat"), "--porosity", 0.3, *arguments)
    assert ended == code and words in printed.err


def test_messages_name_options(run, tmp_path):
    code, printed = run("structure", write(tmp_path / "sample.dat"), "--out", tmp_path / "out")
    assert code == 1 and "needs --porosity, a number" in printed.err and "or --contrast in" in printed.err
    code, printed = run("structure", write(tmp_path / "sample.dat"), "--porosity", 0, "--out", tmp_path / "out")
    assert code == 1 and "--porosity must be" in printed.err
    (tmp_path / "bare.dat").write_text("".join(f"{q:.6g} {1 / (1 + q**4):.6g} 0.1 {1 + q:.6g}\n" for q in Q))
    code, printed = run("structure", tmp_path / "bare.dat", "--unit", "1/nm", "--out", tmp_path / "out")
    assert code == 1 and "as in --columns q,intensity,,sigma" in printed.err


def test_names_of_curves_stay():
    given = argparse.Namespace(file="", size=1, q_range=None)
    assert commands._in_options("file=a, size=, q_range=(0.1, 2)", given) == "file=a, --size, --q-range 0.1,2"
