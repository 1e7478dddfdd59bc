"""Sources of training curves: what they yield, and what decides it."""

import numpy as np
import pytest

from grfsaxs_lib.datasets import keys, reference, store
from grfsaxs_lib.emulator import emulator
from grfsaxs_lib.grid import PAPER_Q, Grid
from grfsaxs_lib.measurement.preprocess import Preprocessing
from grfsaxs_lib.parameters import CASES
from grfsaxs_lib.trees import samples

pytestmark = pytest.mark.filterwarnings("ignore::grfsaxs_lib.SmallBoxWarning")
Q = np.linspace(0.4, 3.0, 12)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Real curves of tiny structures."""
    folder = tmp_path_factory.mktemp("datasets")
    plan = store.plan(
        {"train": 40, "validation": 12, "test": 6}, cases=["three_phase_low"], directory=folder,
        grid=Grid(12, 1.0), smoothing_sigma=1.0, q=Q, shard_size=15,
    )  # fmt: skip
    store.generate(plan, progress=False)
    return folder


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """A small emulator of two phases, on the disk."""
    data = reference.load("two_phase_low", "train").isel(sample=slice(80))
    theta = {name: data[name].values for name in CASES["two_phase_low"].outputs}
    path = tmp_path_factory.mktemp("emulators") / "two_phase_low.npz"
    emulator.save(emulator.fit("two_phase_low", data["intensity"].values, theta), path)
    return path


def test_simulated_samples_step_by_step(datasets):
    """Load, add noise, fit, transform, as by hand."""
    read = samples.read_samples(samples.Simulated("three_phase_low", datasets), pooling=(3, 0.0))
    sets = [
        store.add_measurement_noise(store.open_dataset("three_phase_low", s, datasets)) for s in ("train", "validation")
    ]
    preprocessing = Preprocessing.fit(sets[0]["intensity"].values, Q, range(0, Q.size, 3))
    for x, y, part in zip((read.x_train, read.x_val), (read.y_train, read.y_val), sets, strict=True):
        np.testing.assert_array_equal(x, preprocessing.transform(part["intensity"].values))
        assert list(y) == list(CASES["three_phase_low"].outputs)
        assert all((y[name] == part[name]).all() for name in y)
    assert read.of("porosity")[1] is read.y_train["porosity"]
    with pytest.raises(ValueError, match="a window takes a whole number of the 12 q values.*got 13"):
        samples.read_samples(samples.Simulated("three_phase_low", datasets), pooling=(13, 0.0))


def test_emulated_curves_do_not_depend_on_how_many_are_wanted(emulated):
    few, many = (samples.Emulated("two_phase_low", emulated, n) for n in (150, 2500))
    (curves, theta), *_ = few.measured("train")
    blocks = list(many.measured("train"))
    assert [len(block[0]) for block in blocks] == [2000, 500] and len(curves) == 150
    np.testing.assert_array_equal(blocks[0][0][:150], curves)
    np.testing.assert_array_equal(blocks[0][1]["porosity"][:150], theta["porosity"])
    assert not np.array_equal(blocks[1][0][:150], curves)


def test_emulated_curves_are_those_of_their_keys(emulated):
    """By hand: parameters from the sample's keys, structure of the block, then noise of a few per cent at most."""
    ((curves, theta),) = samples.Emulated("two_phase_low", emulated, 50).measured("train")
    expected = keys.sample_parameters("two_phase_low", "train", np.arange(50), "emulated_two_phase_low")
    for name in ("scaling_parameter", "porosity"):
        np.testing.assert_array_equal(theta[name], expected[name])
    mean = np.exp(emulator.load(emulated).mean(theta))
    assert curves.shape == (50, PAPER_Q.size) and 0.8 < np.median(curves / mean) < 1.25


def test_negatives_have_the_same_curves(emulated):
    low, high = (samples.Emulated(case, emulated, 60) for case in ("two_phase_low", "two_phase_high"))
    for one, other in zip(low.measured("train"), high.measured("train"), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(other[1]["porosity"], 1 - one[1]["porosity"])
    low, high = (samples.Reference(case, 5) for case in ("two_phase_low", "two_phase_high"))
    ((curves, theta),), ((same, mirrored),) = low.measured("validation"), high.measured("validation")
    np.testing.assert_array_equal(curves, same)
    np.testing.assert_array_equal(mirrored["porosity"], 1 - theta["porosity"])


def test_training_stops_by_real_structures(emulated):
    """Those of the validation split and the test structures that had a part in choices, measured four times each."""
    source = samples.Emulated("two_phase_low", emulated, 50)
    ((curves, theta),) = source.measured("validation")
    assert source.count("validation") == len(curves) == 4 * (128 + 1024)
    parts = [reference.load("two_phase_low", split) for split in ("validation", "test")]
    clean = np.concatenate([np.tile(part["intensity"].values[:1024], (4, 1)) for part in parts])
    porosity = np.concatenate([np.tile(part["porosity"].values[:1024], 4) for part in parts])
    np.testing.assert_array_equal(theta["porosity"], porosity)
    assert 0.99 < np.median(curves / clean) < 1.01
    assert not np.array_equal(curves[:128], curves[128:256])  # another measurement of the same structures


def test_reference_curves_are_the_first_ones():
    source = samples.Reference("two_phase_low", 30)
    ((curves, theta),) = source.measured("train")
    clean = reference.load("two_phase_low", "train").isel(sample=slice(30))
    assert source.count("train") == len(curves) == 30
    np.testing.assert_array_equal(theta["porosity"], clean["porosity"])
    assert 0.8 < np.median(curves / clean["intensity"].values) < 1.25
    assert not np.array_equal(curves, clean["intensity"].values)


def test_the_recipe_tells_what_decides_the_curves(emulated, datasets, tmp_path, monkeypatch):
    source = samples.Emulated("two_phase_low", emulated, 50)
    others = [samples.Emulated("two_phase_low", emulated, 51)]
    content = bytearray(emulated.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "two_phase_low.npz").write_bytes(content)
    others.append(samples.Emulated("two_phase_low", tmp_path / "two_phase_low.npz", 50))
    recipes = [source.recipe] + [other.recipe for other in others]
    recipes += [samples.Reference("two_phase_low", n).recipe for n in (5, 6)]
    recipes.append(samples.Simulated("three_phase_low", datasets).recipe)
    assert all(recipes.count(recipe) == 1 for recipe in recipes)
    assert source.recipe == samples.Emulated("two_phase_low", emulated, 50).recipe
    before = source.recipe
    monkeypatch.setattr(samples, "MEASUREMENT_VERSION", 99)
    assert source.recipe != before


def test_a_missing_emulator_names_its_notebook(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the notebook 06_emulator first"):
        samples.read_samples(samples.Emulated("two_phase_low", tmp_path / "none.npz", 50))
