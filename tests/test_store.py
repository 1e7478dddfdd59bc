"""Data sets: keys, parameters, shards, files. The physics is replaced by a fast stand-in."""

import dataclasses
import json
import os
import re
import shutil
import tracemalloc
import zlib
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from grfsaxs_lib.datasets import block, keys, store
from grfsaxs_lib.grid import PAPER_Q, Grid, SmallBoxWarning
from grfsaxs_lib.parameters import CASES, Case

GRID = Grid(64, 1.0)  # not simulated
pytestmark = pytest.mark.filterwarnings("ignore::grfsaxs_lib.SmallBoxWarning")
Q = np.linspace(0.1, 3.0, 12)
MAKE = {"grid": GRID, "q": Q, "smoothing_sigma": 1.0}


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
    monkeypatch.setattr(store.simulation, "simulate", fake)
    return fake


def plan(directory, case="three_phase_low", split="train", n_sample=20, **more):
    return store.plan({split: n_sample}, cases=[case], directory=directory, **(MAKE | more))


def generate(directory, *args, overwrite=False, **more):
    """Make the files of `plan`; the path of the only one, or all of them."""
    made = store.generate(plan(directory, *args, **more), overwrite=overwrite, progress=False)
    return next(iter(made)) if len(made) == 1 else list(made)


# ------------------------------------------------------------------------ shards


@given(st.integers(1, 200), st.integers(1, 60), st.data())
def test_a_partition_holds_each_sample_once_and_keeps_what_is_there(n_sample, size, data):
    parts = block.partition({}, n_sample, size)
    assert [i for part in parts for i in range(*part)] == list(range(n_sample))
    assert max(stop - first for first, stop in parts) <= size
    there = dict.fromkeys(data.draw(st.lists(st.sampled_from(parts), unique=True)), "a file")
    assert block.partition(there, n_sample, size) == parts  # the plan of a run that others have begun
    more, other = data.draw(st.integers(n_sample, 2 * n_sample)), data.draw(st.integers(1, 60))
    grown = block.partition(there, more, other)
    assert [i for part in grown for i in range(*part)] == list(range(more)) and set(there) <= set(grown)
    new = set(grown) - set(there)
    assert all(stop - first <= other for first, stop in new)


@pytest.mark.parametrize("there, n_sample", [([(0, 20)], 10), ([(0, 20), (16, 32)], 40), ([(0, 20), (5, 10)], 40)])
def test_files_that_do_not_fit_are_named(there, n_sample):
    with pytest.raises(ValueError, match=f"that file does not fit among the {n_sample} samples.*delete it"):
        block.partition(dict.fromkeys(there, "that file"), n_sample, 16)


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "-1/2", "1/0", "1/2/3", "a/b", " 1/2", None, 1, "²/3"])
def test_a_malformed_share_is_refused(text):
    with pytest.raises(ValueError, match="shards must read 'k/n'"):
        store.share([1, 2, 3], text)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 12), st.data())
def test_the_union_of_the_shards_is_the_whole(tmp_path_factory, n_sample, data):
    size = data.draw(st.integers(1, n_sample))
    folder = tmp_path_factory.mktemp("union")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.simulation, "simulate", StandIn())
        generate(folder / "whole", n_sample=n_sample)
        shards = plan(folder / "shards", n_sample=n_sample, shard_size=size)
        assert max(shard.indices.size for shard in shards) <= size
        for shard in data.draw(st.permutations(shards)):
            store.generate([shard], progress=False)
    for read in (store.load, store.open_dataset):
        whole, union = (read("three_phase_low", "train", folder / name) for name in ("whole", "shards"))
        xr.testing.assert_equal(whole, union)


# ------------------------------------------------------------------------- files


@pytest.mark.parametrize("case", CASES)
def test_a_file_holds_what_was_simulated(tmp_path, stand_in, case):
    path = generate(tmp_path, case)
    assert path.name == f"{case}_train_00000-00019.nc"
    data = store.load(case, "train", tmp_path)
    assert dict(data.sizes) == {"sample": 20, "q": Q.size}
    np.testing.assert_array_equal(data["q"], Q)
    np.testing.assert_array_equal(data["index"], np.arange(20))
    seeds = keys.keys(case, "train", np.arange(20), "structure")
    np.testing.assert_array_equal(data["structure_seed"], seeds)
    parameters = keys.sample_parameters(case, "train", np.arange(20))
    for name, values in parameters.items():
        np.testing.assert_array_equal(data[name], values)
    more = {"progress": id, "device": "cpu", "densities": (0.0, 0.65, 1.0), "smoothing_sigma": 1.0}
    expected = stand_in(GRID, **parameters, seed=seeds, q=Q, **more)
    # float32 rounds by at most half a unit in the last place, 2^-24.
    np.testing.assert_allclose(data["intensity"].astype(float), expected, rtol=2.0**-24)


def test_a_file_says_what_it_is(tmp_path, stand_in):
    generate(tmp_path)
    data = store.open_dataset(CASES["three_phase_low"], "train", tmp_path)
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
    few = store.load("three_phase_low", "train", tmp_path / "few")
    many = store.load("three_phase_low", "train", tmp_path / "many")
    xr.testing.assert_equal(few, many.isel(sample=slice(5)))


def test_a_complete_file_is_kept(tmp_path, stand_in, capsys):
    path = generate(tmp_path)
    before, curves = path.stat(), stand_in.curves
    shards = plan(tmp_path)
    assert store.generate(shards) == {path: block.read(path)[0]["checksum"]}
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert stand_in.curves == curves
    assert "20/20" in capsys.readouterr().err  # the progress bar


@pytest.mark.parametrize("other, message", [
    ({"grid": Grid(32, 1.0)}, "grid_size = 64, wanted is 32"),
    ({"grid": Grid(64, 0.5)}, "voxel_size = 1.0, wanted is 0.5"),
    ({"smoothing_sigma": 2.0}, "smoothing_sigma = 1.0, wanted is 2.0"),
    ({"densities": (0, 0.5, 1)}, "densities = "),
    ({"q": Q[:-1]}, "other q"),
    ({"q": Q * 0.99}, "other q"),
    ({"case": Case("three_phase_low", CASES["two_phase_low"].ranges)}, "prior = "),
])  # fmt: skip
def test_a_file_of_another_make_is_refused_and_left_alone(tmp_path, stand_in, other, message):
    path = generate(tmp_path)
    content, curves = path.read_bytes(), stand_in.curves
    with pytest.raises(ValueError, match=f"three_phase_low_train_00000-00019.nc was made with {message}"):
        generate(tmp_path, **other)
    assert path.read_bytes() == content and stand_in.curves == curves
    generate(tmp_path, **other, overwrite=True)
    assert path.read_bytes() != content


def test_a_file_of_another_simulation_is_refused(tmp_path, stand_in):
    generate(tmp_path)
    with pytest.raises(ValueError, match="simulation_version = 1, wanted is 2"):
        store.generate([dataclasses.replace(shard, simulation_version=2) for shard in plan(tmp_path)])
    # Reading it stays possible: the file says what it is.
    assert store.load("three_phase_low", "train", tmp_path).attrs["simulation_version"] == 1


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
        original = xr.Dataset.dump_to_store

        def half(self, target, **kwargs):
            original(self.isel(sample=slice(3)), target)
            fail()

        monkeypatch.setattr(xr.Dataset, "dump_to_store", half)
    with pytest.raises((RuntimeError, OSError), match="the machine stops here|No space left"):
        generate(tmp_path, split="test")
    with pytest.raises((RuntimeError, OSError)):
        generate(tmp_path, n_sample=21, overwrite=True)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["three_phase_low_train_00000-00019.nc"]
    assert (tmp_path / "three_phase_low_train_00000-00019.nc").read_bytes() == before


@pytest.mark.parametrize("read", [store.load, store.open_dataset])
def test_a_truncated_file_is_named(tmp_path, stand_in, read):
    path = generate(tmp_path, n_sample=100, q=PAPER_Q)
    content = path.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(
            store.DamagedError, match="low_train_00000-00099.nc is truncated, damaged or not NetCDF.*run_all.sh"
        ):
            read("three_phase_low", "train", tmp_path)
        assert path.read_bytes() == content[:length]


@settings(max_examples=40)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_flipped_bit_is_mended_or_harmless(tmp_path_factory, place, bit):
    """Wherever it is: after `generate` the curves are what they were."""
    folder = tmp_path_factory.mktemp("flipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.simulation, "simulate", StandIn())
        path = generate(folder)
        before, (checksum,) = store.load("three_phase_low", "train", folder), store.generate(plan(folder)).values()
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= 1 << bit
        path.write_bytes(content)
        try:
            found = store.load("three_phase_low", "train", folder)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            xr.testing.assert_equal(found, before)
        made = store.generate(plan(folder), progress=False)
    assert made == {path: checksum}
    xr.testing.assert_identical(
        store.load("three_phase_low", "train", folder).drop_attrs(deep=False), before.drop_attrs(deep=False)
    )


def test_damaged_shards_are_made_again_and_others_kept(tmp_path, stand_in, capsys):
    paths = generate(tmp_path, shard_size=5)
    before = store.load("three_phase_low", "train", tmp_path)
    checksums, stamps = store.generate(plan(tmp_path, shard_size=5)), [path.stat().st_mtime_ns for path in paths]
    paths[0].write_bytes(paths[0].read_bytes()[:-100])
    paths[2].unlink()
    assert store.status(plan(tmp_path, shard_size=5)).loc[("three_phase_low", "train"), "shards"] == 2
    curves = stand_in.curves
    assert store.generate(plan(tmp_path, shard_size=5)) == checksums
    assert stand_in.curves == curves + 10
    assert "train_00000-00004.nc is truncated" in capsys.readouterr().err
    again = [path.stat().st_mtime_ns for path in paths]
    assert [a == b for a, b in zip(stamps, again, strict=True)] == [False, True, False, True]
    xr.testing.assert_equal(before, store.load("three_phase_low", "train", tmp_path))


def test_a_flipped_bit_in_the_intensities_is_found(tmp_path, stand_in):
    path = generate(tmp_path, q=PAPER_Q)
    content = path.read_bytes()
    # Where zlib streams may begin.
    starts = [match.start() for match in re.finditer(b"x[\x01\x5e\x9c\xda]", content)]
    start = next(start for start in starts if inflated_size(content[start:]) >= 20 * PAPER_Q.size * 4)
    for position in (start + 100, start + 5000):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(ValueError, match="damaged.*04_datasets"):
            store.load("three_phase_low", "train", tmp_path)


def inflated_size(stream):
    try:
        return len(zlib.decompressobj().decompress(stream))
    except zlib.error:
        return 0


def test_a_foreign_file_is_named_and_left_alone(tmp_path, stand_in):
    path = tmp_path / "two_phase_low_test_00000-00019.nc"
    xr.Dataset({"intensity": ("x", [1.0])}).to_netcdf(path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match="not a data set of this package"):
        store.load("two_phase_low", "test", tmp_path)
    with pytest.raises(ValueError, match="not a data set of this package"):
        generate(tmp_path, "two_phase_low", "test")
    assert path.read_bytes() == content and stand_in.curves == 0
    path.write_text("porosity,0.5\n")
    with pytest.raises(ValueError, match="not NetCDF.*04_datasets"):
        store.load("two_phase_low", "test", tmp_path)


def test_a_file_of_other_seeds_is_refused(tmp_path, stand_in, monkeypatch):
    path = generate(tmp_path)
    monkeypatch.setattr(block, "keys", lambda *args: keys.keys(*args) ^ np.uint64(1))
    with pytest.raises(ValueError, match=f"{path.name} was made with other structure_seed"):
        generate(tmp_path)


def test_a_renamed_file_is_refused(tmp_path, stand_in):
    generate(tmp_path).rename(tmp_path / "three_phase_low_test_00000-00019.nc")
    with pytest.raises(ValueError, match="split = train, wanted is test"):
        store.load("three_phase_low", "test", tmp_path)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_curves_that_no_simulation_makes_are_not_written(tmp_path, monkeypatch, bad):
    simulate = StandIn()
    monkeypatch.setattr(
        store.simulation, "simulate", lambda *args, **more: np.where(np.arange(12) == 3, bad, simulate(*args, **more))
    )
    with pytest.raises(
        ValueError, match="low_train_00000-00019.nc needs 20 x 12 positive numbers; nothing was written"
    ):
        generate(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["intensity", "index", "grid_size"])
def test_edited_files_are_found(tmp_path, stand_in, change):
    path = generate(tmp_path)
    with netCDF4.Dataset(path, "a") as file:
        if change == "grid_size":
            file.grid_size = np.int64(65)
        else:
            file[change][3] *= 2
    with pytest.raises(store.DamagedError, match="does not hold what its checksum|does not hold the samples"):
        store.load("three_phase_low", "train", tmp_path)
    curves = stand_in.curves
    generate(tmp_path)
    assert stand_in.curves == curves + 20


def test_a_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data set two_phase_low test in .*; run.*04_datasets"):
        store.load("two_phase_low", "test", tmp_path)


def test_missing_and_mixed_shards_are_named(tmp_path, stand_in):
    shards = plan(tmp_path, shard_size=5)
    store.generate([shards[0], shards[2]])
    for read in (store.open_dataset, store.load):
        with pytest.raises(FileNotFoundError, match="samples 5 to 9 of the 20 of three_phase_low train are missing"):
            read("three_phase_low", "train", tmp_path)
    store.generate([shards[1]])
    for read in (store.open_dataset, store.load):  # the last one
        with pytest.raises(FileNotFoundError, match="samples 15 to 19 of the 20 of three_phase_low train are missing"):
            read("three_phase_low", "train", tmp_path)
    (other,) = store.generate(plan(tmp_path, shard_size=5, smoothing_sigma=2.0)[3:])
    for read in (store.open_dataset, store.load):
        with pytest.raises(ValueError, match="00015-00019.nc was made with smoothing_sigma = 2.0, wanted is 1"):
            read("three_phase_low", "train", tmp_path)
    other.write_bytes(shards[2].path.read_bytes())
    for read in (store.open_dataset, store.load):
        with pytest.raises(ValueError, match="00015-00019.nc was made with other index"):
            read("three_phase_low", "train", tmp_path)
    shutil.copy(shards[2].path, tmp_path / "three_phase_low_train_00012-00016.nc")
    for action in (store.open_dataset, store.load):
        with pytest.raises(ValueError, match="00012-00016.nc does not fit among the 20 samples"):
            action("three_phase_low", "train", tmp_path)
    with pytest.raises(ValueError, match="00012-00016.nc does not fit among the 20 samples"):
        plan(tmp_path)


@pytest.mark.parametrize("sizes", [(20, 20), (5, 5), (5, 20), (20, 5)])
def test_a_split_grows_without_being_made_again(tmp_path, stand_in, sizes):
    generate(tmp_path, n_sample=20, shard_size=sizes[0])
    before, curves = {path: path.read_bytes() for path in tmp_path.iterdir()}, stand_in.curves
    generate(tmp_path, n_sample=33, shard_size=sizes[1])
    assert stand_in.curves == curves + 13
    assert {path: path.read_bytes() for path in before} == before
    grown = store.load("three_phase_low", "train", tmp_path)
    generate(tmp_path / "at once", n_sample=33)
    xr.testing.assert_equal(grown, store.load("three_phase_low", "train", tmp_path / "at once"))
    with pytest.raises(ValueError, match="does not fit among the 10 samples"):
        plan(tmp_path, n_sample=10)


def test_a_split_that_has_not_grown_to_its_end_is_not_read(tmp_path, stand_in):
    generate(tmp_path, n_sample=20)
    store.generate(plan(tmp_path, n_sample=33, shard_size=5)[:2], progress=False)
    with pytest.raises(FileNotFoundError, match="samples 25 to 32 of the 33"):
        store.load("three_phase_low", "train", tmp_path)


# Made before splits could grow, by the code of commit 8cfd4a8: three training curves in two shards, one test curve.
EARLIER = Path(__file__).with_name("earlier_shards")
EARLIER_MAKE = {"grid": Grid(16, 1.0), "smoothing_sigma": 1.0, "q": np.array([0.5, 1.0, 2.0])}


@pytest.fixture
def earlier(tmp_path):
    return shutil.copytree(EARLIER, tmp_path / "earlier")


def test_data_sets_of_earlier_versions_are_read_and_grow(earlier, tmp_path):
    before = {path: path.read_bytes() for path in earlier.iterdir()}
    asked = {"train": 5, "test": 1}
    for folder in (earlier, tmp_path / "new"):
        shards = store.plan(asked, cases=["three_phase_low"], directory=folder, shard_size=2, **EARLIER_MAKE)
        store.generate(shards, progress=False)
    assert {path: path.read_bytes() for path in before} == before and len(list(earlier.iterdir())) == 5
    for split in asked:
        found, expected = (store.load("three_phase_low", split, folder) for folder in (earlier, tmp_path / "new"))
        # Another processor's float32 transforms; see test_reference.py.
        xr.testing.assert_allclose(found, expected, rtol=2e-6)
        xr.testing.assert_equal(found, store.open_dataset("three_phase_low", split, earlier))


def test_damaged_shards_of_earlier_versions_are_named(earlier):
    path = earlier / "three_phase_low_train_shard-002-of-002.nc"
    with netCDF4.Dataset(path, "a") as file:
        file["intensity"][0] *= 2
    with pytest.raises(store.DamagedError, match="shard-002-of-002.nc is damaged"):
        store.load("three_phase_low", "train", earlier)
    shards = store.plan({"train": 3}, cases=["three_phase_low"], directory=earlier, **EARLIER_MAKE)
    with pytest.raises(ValueError, match="shard-002-of-002.nc is of an earlier version.*delete it"):
        store.generate(shards, progress=False)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="samples 1 to 2 of the 3"):
        store.load("three_phase_low", "train", earlier)


def test_a_worker_of_another_simulation_makes_nothing(tmp_path, stand_in, monkeypatch):
    shards = plan(tmp_path)
    monkeypatch.setattr(block, "SIMULATION_VERSION", block.SIMULATION_VERSION + 1)
    with pytest.raises(RuntimeError, match="planned for simulation version 1, and this worker has version 2"):
        store.generate(shards, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_opening_reads_no_curves(tmp_path, stand_in, monkeypatch):
    generate(tmp_path, shard_size=5)
    read = []
    real = block.read
    monkeypatch.setattr(block, "read", lambda path, names: (read.extend(names), real(path, names))[1])
    data = store.open_dataset("three_phase_low", "train", tmp_path)
    assert "intensity" not in read and data["intensity"].chunks == ((5,) * 4, (Q.size,))
    some = data["intensity"].isel(sample=slice(7, 9)).values
    assert read.count("intensity") == 1  # one shard of four
    monkeypatch.undo()
    np.testing.assert_array_equal(some, store.load("three_phase_low", "train", tmp_path)["intensity"][7:9])


def test_loading_takes_little_more_than_the_arrays(tmp_path, stand_in):
    # 2 000 curves of 500 q in 20 shards: 4 MB, and one shard at a time with its float64 row.
    generate(tmp_path, n_sample=2000, q=PAPER_Q, shard_size=100)
    for replicate in (None, 0):
        tracemalloc.start()
        data = store.load("three_phase_low", "train", tmp_path, noise_replicate=replicate)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.3 * data.nbytes


def test_noise_at_loading_is_that_of_the_whole(tmp_path, stand_in):
    generate(tmp_path, n_sample=23, shard_size=4)
    for replicate in (0, 3):
        xr.testing.assert_identical(
            store.load("three_phase_low", "train", tmp_path, noise_replicate=replicate),
            store.add_measurement_noise(store.open_dataset("three_phase_low", "train", tmp_path), replicate),
        )


def test_status_counts_what_is_there(tmp_path, stand_in):
    shards = store.plan(
        {"test": 6, "train": 20}, cases=["two_phase_low", "three_phase_low"], directory=tmp_path, shard_size=5, **MAKE
    )
    assert [shard.split for shard in shards] == ["train"] * 8 + ["test"] * 4  # the large ones first
    store.generate(store.share(shards, "1/2"), progress=False)
    shards[0].path.write_bytes(b"")
    shards[2].path.unlink()
    table = store.status(shards)
    assert table["of"].tolist() == [4, 4, 2, 2] and table["planned"].tolist() == [20, 20, 6, 6]
    assert table["shards"].tolist() == [0, 2, 1, 1] and table["curves"].tolist() == [0, 10, 5, 5]
    assert "truncated" in table["trouble"].iloc[0] and not table["trouble"].iloc[1:].any()
    assert np.isnan(table["seconds"].iloc[0])


@given(st.integers(1, 40), st.integers(1, 10))
def test_shares_hold_each_shard_once(n_shard, count):
    shards = list(range(n_shard))
    shares = [store.share(shards, f"{k + 1}/{count}") for k in range(count)]
    assert sorted(sum(shares, [])) == shards
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_leftovers_of_killed_runs_are_removed(tmp_path, stand_in):
    shards = plan(tmp_path, shard_size=5)
    leftover = tmp_path / f".{shards[1].path.name}.0123abcd.tmp"
    foreign = tmp_path / ".something_else.nc.0123abcd.tmp"
    for path in (leftover, foreign):
        path.write_bytes(b"half a file")
    store.generate(shards[:1], progress=False)
    assert leftover.exists()  # its shard is not complete: it may be in the making
    store.generate(shards, progress=False)
    assert not leftover.exists() and foreign.exists()


def test_a_run_whose_temporary_file_was_removed_takes_the_other_runs_file(tmp_path, stand_in, monkeypatch):
    (shard,) = plan(tmp_path)
    replace, checksum = os.replace, next(iter(store.generate([shard], progress=False).values()))

    def too_late(source, target):
        os.unlink(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", too_late)
    assert store.generate([shard], overwrite=True, progress=False) == {shard.path: checksum}


def test_a_temporary_file_that_vanishes_while_it_is_opened(tmp_path, stand_in, monkeypatch):
    (shard,) = plan(tmp_path)
    checksum = next(iter(store.generate([shard], progress=False).values()))
    create, gone = netCDF4.Dataset, True

    def refuse(path, mode="r", **options):
        if mode == "r":
            return create(path, mode, **options)
        if gone:
            os.unlink(path)
        raise PermissionError(path)  # as netCDF does, whatever HDF5 has missed

    monkeypatch.setattr(netCDF4, "Dataset", refuse)
    assert store.generate([shard], overwrite=True, progress=False) == {shard.path: checksum}
    gone = False
    with pytest.raises(PermissionError):
        store.generate([shard], overwrite=True, progress=False)


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
    ({"shard_size": 0}, "shard_size must be a whole number"),
    ({"shard_size": 2.0}, "shard_size must be a whole number"),
    ({"device": "tpu"}, "device must be one of cpu, gpu; got 'tpu'"),
])  # fmt: skip
def test_bad_input_is_refused_before_any_work(tmp_path, stand_in, bad, message):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path, **bad)
    assert stand_in.curves == 0 and not list(tmp_path.iterdir())


def test_a_case_of_ones_own(tmp_path, stand_in):
    wide = Case("two_phase_wide", {"scaling_parameter": (0.5, 10.0), "porosity": (0.05, 0.6)})
    generate(tmp_path, wide)
    data = store.add_measurement_noise(store.load(wide, "train", tmp_path))
    assert data.attrs["case"] == "two_phase_wide"
    assert json.loads(data.attrs["prior"])["porosity"] == [0.05, 0.6]


def test_a_short_box_is_said_once(tmp_path, stand_in):
    with pytest.warns(SmallBoxWarning, match=r"box of 64 nm is shorter .* 201.1 nm") as said:
        generate(tmp_path, shard_size=5)
    assert len(said) == 1 and said[0].filename == __file__


# ------------------------------------------------------------------------- noise


@pytest.fixture
def clean(tmp_path, stand_in):
    generate(tmp_path, q=PAPER_Q)
    return store.load("three_phase_low", "train", tmp_path)


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
    chosen = store.add_measurement_noise(data.isel(sample=some))
    xr.testing.assert_identical(chosen, store.add_measurement_noise(data).isel(sample=some))


def test_noise_leaves_the_clean_curves_alone(clean):
    before = clean.copy(deep=True)
    noisy = store.add_measurement_noise(clean)
    xr.testing.assert_identical(clean, before)
    assert noisy["intensity"].dtype == clean["intensity"].dtype and noisy["intensity"].dims == ("sample", "q")
    assert "noise" in noisy["intensity"].attrs["long_name"]
    assert noisy["noise_level"].attrs["units"] == "1"
    assert (noisy["noise_level"] >= 1e2).all() and (noisy["noise_level"] <= 10**5.5).all()
    xr.testing.assert_equal(noisy.drop_vars(["intensity", "noise_level"]), clean.drop_vars("intensity"))


def test_noise_has_the_promised_mean_and_variance(clean):
    noisy = store.add_measurement_noise(clean)
    intensity = clean["intensity"].astype(float)
    z = (noisy["intensity"] - intensity) / np.sqrt(noisy["noise_level"] * intensity)
    weak = noisy["noise_level"] < 1e-2 * intensity  # nearly normal there, so that the bounds below hold
    z, n = z.values[weak.values], int(weak.sum())
    assert n > 5000
    # Standard errors of mean and variance of n near-normal numbers; 4 of them.
    assert abs(z.mean()) < 4 * n**-0.5
    assert abs(z.var() - 1) < 4 * (2 / n) ** 0.5


def test_replicates_are_independent(clean):
    one, other = (store.add_measurement_noise(clean, replicate) for replicate in (0, 1))
    xr.testing.assert_identical(one, store.add_measurement_noise(clean))
    assert not np.intersect1d(one["noise_level"], other["noise_level"]).size
    assert other["intensity"].attrs["noise_replicate"] == 1


def test_noise_refuses(clean):
    noisy = store.add_measurement_noise(clean)
    with pytest.raises(ValueError, match="have measurement noise already"):
        store.add_measurement_noise(noisy)
    with pytest.raises(ValueError, match="it has no index"):
        store.add_measurement_noise(clean.drop_vars("index"))
    with pytest.raises(ValueError, match="replicate must be"):
        store.add_measurement_noise(clean, replicate=-1)
    with pytest.raises(ValueError, match="intensity must lie in .*got -"):
        store.add_measurement_noise(clean.assign(intensity=-clean["intensity"]))
