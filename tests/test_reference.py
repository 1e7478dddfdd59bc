"""The reference curves: plan, rounding, and that each file's curves are those of their keys."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from grfsaxs_lib.datasets import block, reference, store
from grfsaxs_lib.datasets.keys import PARAMETERS, keys, sample_parameters
from grfsaxs_lib.grid import PAPER_Q
from grfsaxs_lib.paper import numbers
from grfsaxs_lib.parameters import CASES

THERE = [
    part
    for case, splits in reference.COUNTS.items()
    for split in splits
    for part in reference.blocks_there(case, split)
]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "directory", lambda: tmp_path)
    return tmp_path


def curves(part, seed=0):
    return 10 ** np.random.default_rng(seed).uniform(5, 13, (part.indices.size, PAPER_Q.size))


def test_the_plan_holds_each_curve_once(elsewhere):
    held = {}
    for part in reference.missing():
        assert part.indices.size <= 256
        held.setdefault((part.case.name, part.split), []).extend(part.indices)
    assert {key: len(set(indices)) for key, indices in held.items()} == {
        (case, split): n for case, splits in reference.COUNTS.items() for split, n in splits.items()
    }
    assert all(indices == sorted(indices) and indices[0] == 0 for indices in held.values())


def test_they_are_the_first_samples_of_the_paper_tier(tmp_path):
    (shard, *_) = store.plan(
        {"train": numbers.N_SAMPLES["train"]}, cases=["three_phase_low"], directory=tmp_path,
        grid=reference.PAPER_GRID, smoothing_sigma=reference.SMOOTHING_SIGMA,
    )  # fmt: skip
    part = reference.block_of("three_phase_low", "train", 0, 256)
    parameters = sample_parameters(shard.case, shard.split, shard.indices)
    for name, values in parameters.items():
        np.testing.assert_array_equal(part.head[name], values[:256])
    seeds = keys(shard.case.name, shard.split, shard.indices, "structure")
    np.testing.assert_array_equal(part.head["structure_seed"], seeds[:256])
    for name in ("smoothing_sigma", "densities", "simulation_version", "grid", "case"):
        assert getattr(part, name) == getattr(shard, name)


def test_a_part_is_rounded_and_read_again(elsewhere):
    parts = [part for part in reference.missing() if part.case.name == "case_study"]
    for n, part in enumerate(parts):
        reference.write(part, curves(part, n))
    data = reference.load("case_study", "test")
    expected = np.concatenate([curves(part, n) for n, part in enumerate(parts)])
    # Half a unit of 16 bits, and of float32 before.
    assert np.abs(data["intensity"].values / expected - 1).max() <= reference.ROUNDING + 2**-24
    np.testing.assert_array_equal(data["index"], np.arange(500))
    assert (data["porosity"] == 0.70).all() and data.attrs["grid_size"] == 512
    assert sum(path.stat().st_size for path in elsewhere.iterdir()) < 1.1e6  # 2 bytes a number, heads aside


def test_counts_may_grow(elsewhere, monkeypatch):
    monkeypatch.setattr(reference, "COUNTS", {"two_phase_low": {"test": 128}})
    (part,) = reference.missing()
    reference.write(part, curves(part))
    assert reference.missing() == []
    monkeypatch.setattr(reference, "COUNTS", {"two_phase_low": {"test": 600}})
    assert [(part.first, part.stop) for part in reference.missing()] == [(128, 256), (256, 512), (512, 600)]
    reference.write(reference.missing()[1], curves(reference.missing()[1]))
    with pytest.raises(ValueError, match="lacks the reference curves of two_phase_low test from 128 on"):
        reference.load("two_phase_low", "test")


def test_parts_are_never_rewritten(elsewhere):
    part = reference.block_of("two_phase_low", "validation", 0, 128)
    reference.write(part, curves(part))
    before = hashlib.sha256(part.path.read_bytes()).digest()
    with pytest.raises(FileExistsError, match="validation_00000-00127.nc is there.*never rewritten"):
        reference.write(part, curves(part, 1))
    assert hashlib.sha256(part.path.read_bytes()).digest() == before


def test_refusals(elsewhere):
    part = reference.block_of("two_phase_low", "validation", 0, 128)
    for bad in (curves(part)[1:], -curves(part), curves(part) * np.nan):
        with pytest.raises(ValueError, match="needs 128 x 500 positive numbers"):
            reference.write(part, bad)
    with pytest.raises(FileNotFoundError, match="no reference curves of two_phase_low train"):
        reference.load("two_phase_low", "train")
    with pytest.raises(ValueError, match="case must be one of"):
        reference.load("two_phase_high", "train")
    with pytest.raises(ValueError, match="split must be one of test"):
        reference.load("case_study", "train")
    assert list(elsewhere.iterdir()) == []


# ------------------------------------------------------------- damaged and foreign files

HOME = reference.directory()
NAMES = ["case_study_test_00000-00255.nc", "case_study_test_00256-00499.nc"]


def copy(folder):
    """The committed curves of the case study, and the list of all parts."""
    folder.mkdir(exist_ok=True)
    for name in (*NAMES, "SHA256SUMS"):
        shutil.copy(HOME / name, folder)
    return [folder / name for name in NAMES]


@pytest.fixture
def study(elsewhere):
    return copy(elsewhere)


def refused(message, kind=reference.DamagedError):
    return pytest.raises(kind, match=message)


def test_the_list_is_that_of_the_committed_files():
    assert THERE and {part.path.name for part in THERE} == {path.name for path in HOME.glob("*.nc")}
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=HOME, check=True)


@settings(max_examples=60)
@given(st.sampled_from(NAMES), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_flipped_bit_is_found(tmp_path_factory, name, place, bit):
    folder = tmp_path_factory.mktemp("flipped")
    copy(folder)
    path = folder / name
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "directory", lambda: folder)
        with refused(f"{name} is not the file that SHA256SUMS lists; git checkout"):
            reference.load("case_study", "test")


@settings(max_examples=60)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_flipped_bit_in_the_list_is_found_or_about_another_part(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("flipped")
    copy(folder)
    whole = (folder / "SHA256SUMS").read_bytes()
    content = bytearray(whole)
    content[int(place * len(content))] ^= 1 << bit
    (folder / "SHA256SUMS").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "directory", lambda: folder)
        if [line for line in content.split(b"\n") if b"case_study" in line] == whole.split(b"\n")[:2]:
            try:
                reference.load("case_study", "test")
            except reference.DamagedError as error:
                assert "SHA256SUMS is damaged; git checkout" in str(error)
        else:
            with pytest.raises(ValueError, match="SHA256SUMS|case_study_test.*is missing"):
                reference.load("case_study", "test")


@pytest.mark.parametrize("kept", [0, 100, 200_000])
def test_a_truncated_part_is_found(study, kept):
    study[1].write_bytes(study[1].read_bytes()[:kept])
    with refused("00256-00499.nc is not the file that SHA256SUMS lists"):
        reference.load("case_study", "test")


def test_a_missing_part_is_named(study):
    study[1].unlink()
    with refused("00256-00499.nc is missing; git checkout -- data/reference"):
        reference.load("case_study", "test")
    with refused("is missing"):
        reference.missing()


def test_parts_under_other_names_are_not_read(study):
    study[0].rename(study[0].with_name("case_study_test_00512-00767.nc"))
    with refused("00000-00255.nc is missing"):
        reference.load("case_study", "test")
    shutil.copy(study[1], study[0])
    with refused("00512-00767.nc is not listed in SHA256SUMS: remove it", ValueError):
        reference.load("case_study", "test")
    with refused("00512-00767.nc does not hold the index, structure_seed that its name promises; remove"):
        reference.list_unlisted()
    study[0].with_name("case_study_test_00512-00767.nc").unlink()
    with refused("00000-00255.nc is not the file"):
        reference.load("case_study", "test")


@pytest.mark.parametrize("name", ["case_study_test_00500-00511.nc", "case_study_test_500-511.nc"])
def test_a_foreign_file_is_not_read(study, name):
    xr.Dataset({"intensity": ("x", [1.0])}).to_netcdf(study[0].with_name(name))
    with refused(f"{name} is not listed", ValueError):
        reference.load("case_study", "test")


def test_overlapping_parts_are_refused(study):
    """As after two runs with other sizes of a part."""
    part = reference.block_of("case_study", "test", 128, 384)
    with xr.open_dataset(study[0]) as first, xr.open_dataset(study[1]) as second:
        curves = np.concatenate([first["intensity"][128:], second["intensity"][:128]])
    reference.write(part, curves)
    with refused("00128-00383.nc does not fit among the 500 samples and the other files", ValueError):
        reference.load("case_study", "test")


@pytest.mark.parametrize("change", ["porosity", "structure_seed", "q", "case", "grid_size", "intensity"])
def test_listing_compares_a_part_with_its_name(elsewhere, change):
    part = reference.block_of("two_phase_low", "validation", 0, 128)
    reference.write(part, curves(part))
    (elsewhere / "SHA256SUMS").unlink()
    whole = part.path.read_bytes()
    with netCDF4.Dataset(part.path, "a") as file:
        if change in file.ncattrs():
            file.setncattr(change, {"case": "three_phase_low", "grid_size": 256}[change])
        else:
            file[change][7] = 0
    with refused(f"does not hold the {change} that its name promises"):
        reference.list_unlisted()
    assert not (elsewhere / "SHA256SUMS").exists()
    part.path.write_bytes(whole)
    assert [one.path for one in reference.list_unlisted()] == [part.path] and reference.list_unlisted() == []
    np.testing.assert_array_equal(
        reference.load("two_phase_low", "validation")["structure_seed"], part.head["structure_seed"]
    )


def test_a_part_that_cannot_be_written_leaves_all_as_it_was(study, monkeypatch):
    before = {path: path.read_bytes() for path in study[0].parent.iterdir()}
    part = reference.block_of("case_study", "test", 500, 512)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "dump_to_store", full)
    with pytest.raises(OSError, match="00500-00511.nc could not be written.*free some space"):
        reference.write(part, curves(part))
    assert {path: path.read_bytes() for path in study[0].parent.iterdir()} == before


def test_no_file_stays_open(study):
    def opened():
        return [path for path in Path("/proc/self/fd").iterdir() if ".nc" in str(path.resolve())]

    if not Path("/proc/self/fd").exists():
        pytest.skip("open files can be counted on Linux only")
    data = reference.load("case_study", "test")
    study[1].write_bytes(study[1].read_bytes()[:100])
    for _ in range(3):
        with refused("is not the file"):
            reference.load("case_study", "test")
        with pytest.raises(reference.DamagedError):
            reference._read(reference._block_of_name(NAMES[1]))
    assert data.sizes["sample"] == 500 and opened() == []


# ------------------------------------------------------------------------ made again


@pytest.mark.parametrize("part", THERE, ids=lambda part: part.path.stem)
def test_each_file_has_its_keys_and_parameters(part):
    with xr.open_dataset(part.path) as file:
        for name in (*PARAMETERS, "structure_seed"):
            np.testing.assert_array_equal(file[name], part.head[name])


def ends_of_splits():
    """The first and the last file of each case and split."""
    files = {}
    for part in THERE:
        files.setdefault((part.case.name, part.split), []).append(part)
    return [part for parts in files.values() for part in (*parts[:1], *parts[1:][-1:])]


@pytest.mark.parametrize("part", ends_of_splits(), ids=lambda part: part.path.stem)
def test_a_row_is_made_again(part):
    """At 512^3, of the first and the last file of each split: the row that costs least."""
    head = part.head
    row = int(np.argmin(head["porosity"] - head["scaling_parameter"] / 10))
    (again,) = block.simulate_block(part, slice(row, row + 1))
    committed = reference.load(part.case.name, part.split).set_index(sample="index")["intensity"]
    # Rounding, and 2e-6 for another processor's float32 transforms; what a GPU has made, see test_gpu.py.
    with xr.open_dataset(part.path) as file:
        tolerance = 4e-5 if file.attrs["device"].startswith("gpu") else 2e-6
    expected = committed.sel(sample=part.indices[row]).values
    np.testing.assert_allclose(expected, again, rtol=reference.ROUNDING + tolerance, atol=0)


def test_babinet_lets_one_case_serve_two():
    assert CASES["two_phase_high"].ranges["porosity"] == tuple(
        1 - bound for bound in reversed(CASES["two_phase_low"].ranges["porosity"])
    )
