"""The reference curves: plan, rounding, and that each file's curves are those of their keys."""

import hashlib

import numpy as np
import pytest
import xarray as xr

from grfsaxs_lib import dataset, paper, reference
from grfsaxs_lib.grid import PAPER_Q
from grfsaxs_lib.parameters import CASES

THERE = [
    part for case, splits in reference.COUNTS.items() for split in splits for part in reference.parts_there(case, split)
]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "directory", lambda: tmp_path)
    return tmp_path


def curves(part, seed=0):
    return 10 ** np.random.default_rng(seed).uniform(5, 13, (part.indices.size, PAPER_Q.size))


def test_the_plan_holds_each_curve_once(elsewhere):
    held = {}
    for part in reference.plan():
        assert part.indices.size <= 256
        held.setdefault((part.case, part.split), []).extend(part.indices)
    assert {key: len(set(indices)) for key, indices in held.items()} == {
        (case, split): n for case, splits in reference.COUNTS.items() for split, n in splits.items()
    }
    assert all(indices == sorted(indices) and indices[0] == 0 for indices in held.values())


def test_they_are_the_first_samples_of_the_paper_tier(tmp_path):
    (shard, *_) = dataset.plan(
        {"train": paper.N_SAMPLES["train"]}, cases=["three_phase_low"], directory=tmp_path,
        grid=reference.PAPER_GRID, smoothing_sigma=reference.SMOOTHING_SIGMA,
    )  # fmt: skip
    part = reference.Part("three_phase_low", "train", 0, 256)
    parameters = dataset.shardfile.sample_parameters(shard.case, shard.split, shard.indices)
    for name, values in part.parameters.items():
        np.testing.assert_array_equal(values, parameters[name][:256])
    seeds = dataset.keys(shard.case, shard.split, shard.indices, "structure")
    np.testing.assert_array_equal(part.seeds, seeds[:256])


def test_a_part_is_rounded_and_read_again(elsewhere):
    parts = [part for part in reference.plan() if part.case == "case_study"]
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
    (part,) = reference.plan()
    reference.write(part, curves(part))
    assert reference.plan() == []
    monkeypatch.setattr(reference, "COUNTS", {"two_phase_low": {"test": 600}})
    assert [(part.first, part.stop) for part in reference.plan()] == [(128, 384), (384, 600)]
    reference.write(reference.Part("two_phase_low", "test", 384, 600), curves(reference.plan()[1]))
    with pytest.raises(ValueError, match="lacks the reference curves of two_phase_low test from 128 on"):
        reference.load("two_phase_low", "test")


def test_parts_are_never_rewritten(elsewhere):
    part = reference.Part("two_phase_low", "validation", 0, 128)
    reference.write(part, curves(part))
    before = hashlib.sha256(part.path.read_bytes()).digest()
    with pytest.raises(FileExistsError, match="validation_00000-00127.nc is there.*never rewritten"):
        reference.write(part, curves(part, 1))
    assert hashlib.sha256(part.path.read_bytes()).digest() == before


def test_refusals(elsewhere):
    part = reference.Part("two_phase_low", "validation", 0, 128)
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


@pytest.mark.parametrize("part", THERE, ids=lambda part: part.path.stem)
def test_a_row_of_each_file_is_made_again(part):
    """At 512^3, the row that costs least: the others differ from it in key and parameters only."""
    data = reference.load(part.case, part.split).set_index(sample="index").sel(sample=part.indices)
    for name, values in part.parameters.items():
        np.testing.assert_array_equal(data[name], values)
    np.testing.assert_array_equal(data["structure_seed"], part.seeds)
    row = int(np.argmin(part.parameters["porosity"] - part.parameters["scaling_parameter"] / 10))
    (again,) = reference.simulate(part, slice(row, row + 1))
    # Rounding, and 2e-6 for another processor's float32 transforms; what a GPU has made, see test_gpu.py.
    with xr.open_dataset(part.path) as file:
        tolerance = 4e-5 if file.attrs["device"].startswith("gpu") else 2e-6
    np.testing.assert_allclose(data["intensity"].values[row], again, rtol=reference.ROUNDING + tolerance, atol=0)


def test_babinet_lets_one_case_serve_two():
    assert CASES["two_phase_high"].ranges["porosity"] == tuple(
        1 - bound for bound in reversed(CASES["two_phase_low"].ranges["porosity"])
    )
