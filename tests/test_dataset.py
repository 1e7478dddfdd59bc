"""Data sets: keys, parameters, shards, files. The physics is replaced by a fast stand-in."""

import itertools
import json
import os
import re
import zlib

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from grfsaxs_lib import dataset
from grfsaxs_lib.grid import PAPER_Q, Grid
from grfsaxs_lib.parameters import CASES, Case

GRID = Grid(64, 1.0)  # not simulated
pytestmark = pytest.mark.filterwarnings("ignore:the box of")
Q = np.linspace(0.1, 3.0, 12)
MAKE = {"grid": GRID, "q": Q, "smoothing_sigma": 1.0, "progress": False}

cases = st.sampled_from(sorted(CASES))
splits = st.sampled_from(dataset.SPLITS)
purposes = st.sampled_from(dataset.PURPOSES)
indices = st.integers(0, 2**32 - 1)
owners = st.tuples(cases, splits, indices, purposes, st.integers(0, 2**32 - 1))


class StandIn:
    """A curve that depends on every argument of `simulate`; counts and may fail."""

    def __init__(self):
        self.curves = 0
        self.fails_after = np.inf

    def __call__(self, grid, *, scaling_parameter, porosity, layer_fraction, seed, q, device, densities,
                 smoothing_sigma, progress):  # fmt: skip
        self.curves += np.size(seed)
        progress(np.size(seed))
        if self.curves > self.fails_after:
            raise RuntimeError("the machine stops here")
        column = [np.asarray(x)[:, None] for x in (scaling_parameter, porosity, layer_fraction, seed)]
        scaling_parameter, porosity, layer_fraction, seed = column
        low = (seed & np.uint64(0xFFFF)).astype(np.float64) / 2**16
        contrast = densities[2] + layer_fraction * densities[1]
        decades = 14 - 3 * np.log10(1 + (scaling_parameter * q) ** 2) - smoothing_sigma * q / grid.size
        return (1 + low) * porosity * contrast * 10**decades


@pytest.fixture
def stand_in(monkeypatch):
    fake = StandIn()
    monkeypatch.setattr(dataset.simulation, "simulate", fake)
    return fake


def generate(directory, case="three_phase_low", split="train", n_sample=20, **more):
    return dataset.generate(case, split, n_sample, directory=directory, **(MAKE | more))


# -------------------------------------------------------------------------- keys


@given(owners, owners)
def test_different_samples_have_different_keys(one, other):
    assume(one != other)
    keys = [dataset.keys(*owner[:3], owner[3], owner[4]) for owner in (one, other)]
    assert keys[0] != keys[1]


def test_no_key_is_shared_in_a_large_enumeration():
    # 4 x 3 x 3 x 2 000; were the 64-bit words random, a collision would have probability 1e-10.
    everything = [
        dataset.keys(case, split, np.arange(2000), purpose)
        for case, split, purpose in itertools.product(CASES, dataset.SPLITS, dataset.PURPOSES)
    ]
    assert np.unique(everything).size == 4 * 3 * 3 * 2000


@given(cases, splits, st.lists(indices, min_size=1, max_size=20), purposes)
def test_a_key_does_not_depend_on_its_company(case, split, some, purpose):
    together = dataset.keys(case, split, some, purpose)
    alone = [dataset.keys(case, split, index, purpose)[0] for index in some]
    np.testing.assert_array_equal(together, alone)


def test_keys_are_pinned():
    # Files of past runs rely on these numbers; computed by NumPy's SeedSequence, whose stream is frozen.
    np.testing.assert_array_equal(dataset.keys("two_phase_low", "train", [0, 1], "structure"), PINNED_KEYS)
    parameters = dataset.sample_parameters("three_phase_high", "test", [7])
    assert {name: values[0] for name, values in parameters.items()} == PINNED_PARAMETERS


PINNED_KEYS = [15490652091137820046, 13188869407267639556]
PINNED_PARAMETERS = {
    "scaling_parameter": 0.8077246475196342,
    "porosity": 0.6188747125283663,
    "layer_fraction": 0.3499519436205834,
}


@pytest.mark.parametrize("arguments, message", [
    (("two_phase", "train", 0, "noise"), "case must be one of two_phase_low.*got 'two_phase'"),
    (("two_phase_low", "training", 0, "noise"), "split must be one of train.*got 'training'"),
    (("two_phase_low", "train", 0, "luck"), "purpose must be one of.*got 'luck'"),
    (("two_phase_low", "train", -1, "noise"), "indices must lie in .*got -1"),
    (("two_phase_low", "train", 2**32, "noise"), "indices must lie in"),
    (("two_phase_low", "train", 0.5, "noise"), "indices must be"),
    (("two_phase_low", "train", True, "noise"), "indices must be"),
    (("two_phase_low", "train", [[1]], "noise"), "indices must be"),
    (("two_phase_low", "train", 0, "noise", -1), "replicate must be a whole number"),
    (("two_phase_low", "train", 0, "noise", 2**32), "replicate must be a whole number"),
])  # fmt: skip
def test_keys_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        dataset.keys(*arguments)


# -------------------------------------------------------------------- parameters


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_uniform_on_their_ranges(case):
    parameters = dataset.sample_parameters(case, "train", np.arange(2000))
    for name, (lower, upper) in CASES[case].ranges.items():
        uniforms = (parameters[name] - lower) / (upper - lower)
        assert uniforms.min() >= 0 and uniforms.max() < 1
        # Fixed keys, so the outcome is fixed: a p-value below 1e-3 would be a fault of the sampler.
        assert stats.kstest(uniforms, "uniform").pvalue > 1e-3
    ranks = np.corrcoef([parameters[name] for name in CASES[case].outputs])
    # Standard error of a correlation of 2 000 independent pairs: 0.022; 4 of them.
    assert np.abs(ranks - np.eye(len(ranks))).max() < 4 * 2000**-0.5


def test_two_phases_have_no_layer():
    assert not dataset.sample_parameters("two_phase_low", "test", np.arange(5))["layer_fraction"].any()


# ------------------------------------------------------------------------ shards


@given(st.data())
def test_shards_hold_each_index_once(data):
    n_sample = data.draw(st.integers(1, 500))
    count = data.draw(st.integers(1, n_sample))
    shards = [dataset.parse_shard(f"{k}/{count}", n_sample) for k in range(1, count + 1)]
    assert [i for shard in shards for i in shard] == list(range(n_sample))
    lengths = [len(shard) for shard in shards]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("shards", ["", "3", "0/2", "3/2", "-1/2", "1/0", "1/2/3", "a/b", " 1/2", None, 1, "²/3"])
def test_a_malformed_shard_is_refused(shards):
    with pytest.raises(ValueError, match="shards must read 'k/n'"):
        dataset.parse_shard(shards, 10)


def test_more_shards_than_samples_are_refused():
    with pytest.raises(ValueError, match="11 shards of only 10 samples"):
        dataset.parse_shard("1/11", 10)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 12), st.data())
def test_the_union_of_the_shards_is_the_whole(tmp_path_factory, n_sample, data):
    count = data.draw(st.integers(1, n_sample))
    folder = tmp_path_factory.mktemp("union")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset.simulation, "simulate", StandIn())
        generate(folder / "whole", n_sample=n_sample)
        for number in data.draw(st.permutations(range(1, count + 1))):
            generate(folder / "shards", n_sample=n_sample, shards=f"{number}/{count}")
    whole = dataset.open_dataset("three_phase_low", "train", folder / "whole")
    union = dataset.open_dataset("three_phase_low", "train", folder / "shards")
    xr.testing.assert_equal(whole, union)


# ------------------------------------------------------------------------- files


@pytest.mark.parametrize("case", CASES)
def test_a_file_holds_what_was_simulated(tmp_path, stand_in, case):
    path = generate(tmp_path, case)
    assert path.name == f"{case}_train.nc"
    data = dataset.open_dataset(case, "train", tmp_path)
    assert dict(data.sizes) == {"sample": 20, "q": Q.size}
    np.testing.assert_array_equal(data["q"], Q)
    np.testing.assert_array_equal(data["index"], np.arange(20))
    seeds = dataset.keys(case, "train", np.arange(20), "structure")
    np.testing.assert_array_equal(data["structure_seed"], seeds)
    parameters = dataset.sample_parameters(case, "train", np.arange(20))
    for name, values in parameters.items():
        np.testing.assert_array_equal(data[name], values)
    more = {"progress": id, "device": "cpu", "densities": (0.0, 0.65, 1.0), "smoothing_sigma": 1.0}
    expected = stand_in(GRID, **parameters, seed=seeds, q=Q, **more)
    # float32 rounds by at most half a unit in the last place, 2^-24.
    np.testing.assert_allclose(data["intensity"].astype(float), expected, rtol=2.0**-24)


def test_a_file_says_what_it_is(tmp_path, stand_in):
    generate(tmp_path)
    data = dataset.open(CASES["three_phase_low"], "train", tmp_path)
    assert data.attrs["Conventions"] == "CF-1.11"
    assert "10.3389/fmats.2022.956839" in data.attrs["references"]
    assert data.attrs["grid_size"] == 64 and data.attrs["voxel_size"] == 1.0
    assert data.attrs["smoothing_sigma"] == 1.0 and data.attrs["device"] == "cpu"
    assert list(data.attrs["densities"]) == [0.0, 0.65, 1.0]
    assert {"source", "commit", "libraries", "history", "created", "title"} <= set(data.attrs)
    assert f"numpy {np.__version__}" in data.attrs["libraries"]
    for name, variable in data.variables.items():
        assert variable.attrs["units"] and variable.attrs["long_name"], name
    assert data["q"].attrs["units"] == "nm-1" and data["scaling_parameter"].attrs["units"] == "nm"
    assert list(data["porosity"].attrs["sampled_range"]) == [0.1, 0.5]


def test_a_sample_is_the_same_whatever_else_is_asked(tmp_path, stand_in):
    generate(tmp_path / "few", n_sample=5)
    generate(tmp_path / "many", n_sample=33)
    few = dataset.open_dataset("three_phase_low", "train", tmp_path / "few")
    many = dataset.open_dataset("three_phase_low", "train", tmp_path / "many")
    xr.testing.assert_equal(few, many.isel(sample=slice(5)))


def test_a_complete_file_is_kept(tmp_path, stand_in, capsys):
    path = generate(tmp_path)
    before, curves = path.stat(), stand_in.curves
    assert generate(tmp_path, progress=True) == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert stand_in.curves == curves
    assert "three_phase_low_train.nc: complete, kept" in capsys.readouterr().err


@pytest.mark.parametrize("other, message", [
    ({"grid": Grid(32, 1.0)}, "grid_size = 64, wanted is 32"),
    ({"grid": Grid(64, 0.5)}, "voxel_size = 1.0, wanted is 0.5"),
    ({"smoothing_sigma": 2.0}, "smoothing_sigma = 1.0, wanted is 2.0"),
    ({"densities": (0, 0.5, 1)}, "densities = "),
    ({"n_sample": 21}, "n_sample = 20, wanted is 21"),
    ({"q": Q[:-1]}, "12 other q"),
    ({"q": Q * 0.99}, "12 other q"),
    ({"case": Case("three_phase_low", CASES["two_phase_low"].ranges)}, "prior = "),
])  # fmt: skip
def test_a_file_of_another_make_is_refused_and_left_alone(tmp_path, stand_in, other, message):
    path = generate(tmp_path)
    content, curves = path.read_bytes(), stand_in.curves
    with pytest.raises(ValueError, match=f"three_phase_low_train.nc was made with {message}"):
        generate(tmp_path, **other)
    assert path.read_bytes() == content and stand_in.curves == curves
    generate(tmp_path, **other, overwrite=True)
    assert path.read_bytes() != content


def test_a_file_of_another_simulation_is_refused(tmp_path, stand_in, monkeypatch):
    generate(tmp_path)
    monkeypatch.setattr(dataset, "SIMULATION_VERSION", dataset.SIMULATION_VERSION + 1)
    with pytest.raises(ValueError, match="simulation_version = 1, wanted is 2"):
        generate(tmp_path)
    # Reading it stays possible: the file says what it is.
    assert dataset.open_dataset("three_phase_low", "train", tmp_path).attrs["simulation_version"] == 1


@pytest.mark.parametrize("stop", ["simulating", "writing", "moving"])
def test_a_killed_run_leaves_no_half_file(tmp_path, stand_in, monkeypatch, stop):
    before = generate(tmp_path).read_bytes()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    if stop == "simulating":
        stand_in.curves, stand_in.fails_after = 0, 10
    elif stop == "moving":
        monkeypatch.setattr(os, "replace", fail)
    else:
        original = xr.Dataset.to_netcdf

        def half(self, path, **kwargs):
            original(self.isel(sample=slice(3)), path)
            fail()

        monkeypatch.setattr(xr.Dataset, "to_netcdf", half)
    with pytest.raises((RuntimeError, OSError), match="the machine stops here|No space left"):
        generate(tmp_path, split="test")
    with pytest.raises((RuntimeError, OSError)):
        generate(tmp_path, n_sample=21, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["three_phase_low_train.nc"]
    assert (tmp_path / "three_phase_low_train.nc").read_bytes() == before


def test_a_truncated_file_is_named(tmp_path, stand_in):
    path = generate(tmp_path)
    content = path.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        for read in (generate, lambda folder: dataset.open_dataset("three_phase_low", "train", folder)):
            with pytest.raises(ValueError, match="low_train.nc is truncated, damaged or not NetCDF"):
                read(tmp_path)
        assert path.read_bytes() == content[:length]


def test_a_flipped_bit_in_the_intensities_is_found(tmp_path, stand_in):
    path = generate(tmp_path, q=PAPER_Q)
    content = path.read_bytes()
    # Where zlib streams may begin.
    starts = [match.start() for match in re.finditer(b"x[\x01\x5e\x9c\xda]", content)]
    start = next(start for start in starts if inflated_size(content[start:]) >= 20 * PAPER_Q.size * 4)
    for position in (start + 100, start + 5000):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(ValueError, match="damaged.*04_generate_datasets"):
            dataset.open_dataset("three_phase_low", "train", tmp_path)


def inflated_size(stream):
    try:
        return len(zlib.decompressobj().decompress(stream))
    except zlib.error:
        return 0


def test_a_foreign_file_is_named(tmp_path, stand_in):
    path = tmp_path / "two_phase_low_test.nc"
    xr.Dataset({"intensity": ("x", [1.0])}).to_netcdf(path)
    with pytest.raises(ValueError, match="not a data set of this package.*04_generate_datasets"):
        dataset.open_dataset("two_phase_low", "test", tmp_path)
    path.write_text("porosity,0.5\n")
    with pytest.raises(ValueError, match="not NetCDF.*04_generate_datasets"):
        dataset.open_dataset("two_phase_low", "test", tmp_path)


def test_a_renamed_file_is_refused(tmp_path, stand_in):
    generate(tmp_path).rename(tmp_path / "three_phase_low_test.nc")
    with pytest.raises(ValueError, match="split = train, wanted is test"):
        dataset.open_dataset("three_phase_low", "test", tmp_path)


def test_values_that_no_simulation_makes_are_refused(tmp_path, stand_in):
    path = generate(tmp_path)
    data = dataset.open_dataset("three_phase_low", "train", tmp_path)
    for change, message in (
        ({"intensity": data["intensity"].where(data["index"] != 3, -1.0)}, "not positive numbers"),
        ({"intensity": data["intensity"].where(data["index"] != 3)}, "not positive numbers"),
        ({"index": data["index"] + 1}, "does not hold the samples"),
    ):
        path.unlink()
        data.assign(change).to_netcdf(path)
        with pytest.raises(ValueError, match=message):
            dataset.open_dataset("three_phase_low", "train", tmp_path)


def test_a_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="low_test.nc does not exist; run.*04_generate_datasets"):
        dataset.open_dataset("two_phase_low", "test", tmp_path)


def test_missing_and_mixed_shards_are_named(tmp_path, stand_in):
    for number in (1, 3):
        generate(tmp_path, shards=f"{number}/4")
    with pytest.raises(FileNotFoundError, match="2 of 4 shards.*first: .*shard-002-of-004.nc"):
        dataset.open_dataset("three_phase_low", "train", tmp_path)
    generate(tmp_path, shards="2/4")
    other = generate(tmp_path, shards="4/4", smoothing_sigma=2.0)
    with pytest.raises(ValueError, match="004-of-004.nc was made with smoothing_sigma = 2.0, wanted is 1"):
        dataset.open_dataset("three_phase_low", "train", tmp_path)
    other.unlink()
    third = tmp_path / "three_phase_low_train_shard-003-of-004.nc"
    other.write_bytes(third.read_bytes())
    with pytest.raises(ValueError, match="shard-004-of-004.nc holds what belongs into .*shard-003-of-004.nc"):
        dataset.open_dataset("three_phase_low", "train", tmp_path)
    generate(tmp_path)
    with pytest.raises(ValueError, match="holds both"):
        dataset.open_dataset("three_phase_low", "train", tmp_path)


@pytest.mark.parametrize("bad, message", [
    ({"case": "four_phase"}, "case must be one of"),
    ({"case": Case("../escape", CASES["two_phase_low"].ranges)}, "name of a case"),
    ({"case": Case("mine", {"porosity": (0.1, 0.5)})}, "must give ranges of scaling_parameter"),
    ({"case": Case("mine", {"scaling_parameter": (1, 2), "porosity": (0.5, 1.0)})}, "porosity must lie in"),
    ({"case": Case("mine", {"scaling_parameter": (2, 1), "porosity": (0.5, 0.6)})}, "must increase"),
    ({"split": "dev"}, "split must be one of"),
    ({"n_sample": 0}, "n_sample must be a whole number"),
    ({"n_sample": 2.5}, "n_sample must be a whole number"),
    ({"n_sample": True}, "n_sample must be a whole number"),
    ({"grid": 64}, "grid must be a Grid"),
    ({"q": []}, "q must be a one-dimensional, non-empty array"),
    ({"q": [0.1, np.nan]}, "q must be finite and positive"),
    ({"q": [0.0, 0.1]}, "q must be finite and positive"),
    ({"q": [0.2, 0.1]}, "q must increase strictly"),
    ({"q": [0.1, 4.0]}, "resolves only"),
    ({"smoothing_sigma": -1.0}, "smoothing_sigma must lie in"),
    ({"smoothing_sigma": np.nan}, "smoothing_sigma must lie in"),
    ({"densities": (0, 1)}, "three finite numbers"),
    ({"densities": (0, np.nan, 1)}, "three finite numbers"),
    ({"shards": "2/1"}, "shards must read"),
    ({"device": "tpu"}, "device must be one of cpu, gpu; got 'tpu'"),
])  # fmt: skip
def test_bad_input_is_refused_before_any_work(tmp_path, stand_in, bad, message):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path, **bad)
    assert stand_in.curves == 0 and not list(tmp_path.iterdir())


def test_a_case_of_ones_own(tmp_path, stand_in):
    wide = Case("two_phase_wide", {"scaling_parameter": (0.5, 10.0), "porosity": (0.05, 0.6)})
    generate(tmp_path, wide)
    data = dataset.add_measurement_noise(dataset.open_dataset(wide, "train", tmp_path))
    assert data.attrs["case"] == "two_phase_wide"
    assert json.loads(data.attrs["prior"])["porosity"] == [0.05, 0.6]


def test_a_short_box_is_said_once(tmp_path, stand_in):
    with pytest.warns(UserWarning, match=r"box of 64 nm is shorter .* 201.1 nm at the upper end") as said:
        generate(tmp_path)
    assert len(said) == 1


# ------------------------------------------------------------------------- noise


@pytest.fixture
def clean(tmp_path, stand_in):
    generate(tmp_path, q=PAPER_Q)
    return dataset.open_dataset("three_phase_low", "train", tmp_path)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 19), min_size=1, max_size=8))
def test_noise_of_a_curve_does_not_depend_on_the_others(some):
    rng = np.random.default_rng(5)
    index = np.arange(20)
    data = xr.Dataset(
        {"intensity": (("sample", "q"), 10 ** rng.uniform(5, 12, (20, 30)))},
        {"index": ("sample", index)},
        {"case": "two_phase_low", "split": "test", "prior": json.dumps(CASES["two_phase_low"].ranges)},
    )
    chosen = dataset.add_measurement_noise(data.isel(sample=some))
    xr.testing.assert_identical(chosen, dataset.add_measurement_noise(data).isel(sample=some))


def test_noise_leaves_the_clean_curves_alone(clean):
    before = clean.copy(deep=True)
    noisy = dataset.add_measurement_noise(clean)
    xr.testing.assert_identical(clean, before)
    assert noisy["intensity"].dtype == clean["intensity"].dtype and noisy["intensity"].dims == ("sample", "q")
    assert "noise" in noisy["intensity"].attrs["long_name"]
    assert noisy["noise_level"].attrs["units"] == "1"
    assert (noisy["noise_level"] >= 1e2).all() and (noisy["noise_level"] <= 10**5.5).all()
    xr.testing.assert_equal(noisy.drop_vars(["intensity", "noise_level"]), clean.drop_vars("intensity"))


def test_noise_has_the_promised_mean_and_variance(clean):
    noisy = dataset.add_measurement_noise(clean)
    intensity = clean["intensity"].astype(float)
    z = (noisy["intensity"] - intensity) / np.sqrt(noisy["noise_level"] * intensity)
    weak = noisy["noise_level"] < 1e-2 * intensity  # nearly normal there, so that the bounds below hold
    z, n = z.values[weak.values], int(weak.sum())
    assert n > 5000
    # Standard errors of mean and variance of n near-normal numbers; 4 of them.
    assert abs(z.mean()) < 4 * n**-0.5
    assert abs(z.var() - 1) < 4 * (2 / n) ** 0.5


def test_replicates_are_independent(clean):
    one, other = (dataset.add_measurement_noise(clean, replicate) for replicate in (0, 1))
    xr.testing.assert_identical(one, dataset.add_measurement_noise(clean))
    assert not np.intersect1d(one["noise_level"], other["noise_level"]).size
    assert other["intensity"].attrs["noise_replicate"] == 1


def test_noise_refuses(clean):
    noisy = dataset.add_measurement_noise(clean)
    with pytest.raises(ValueError, match="have measurement noise already"):
        dataset.add_measurement_noise(noisy)
    with pytest.raises(ValueError, match="it has no index"):
        dataset.add_measurement_noise(clean.drop_vars("index"))
    with pytest.raises(ValueError, match="replicate must be"):
        dataset.add_measurement_noise(clean, replicate=-1)
    with pytest.raises(ValueError, match="intensity must lie in .*got -"):
        dataset.add_measurement_noise(clean.assign(intensity=-clean["intensity"]))
