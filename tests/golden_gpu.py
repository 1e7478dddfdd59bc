"""What a real GPU makes of some seeds, kept so that the CPU can be compared with it where there is no GPU.

python tests/golden_gpu.py     # on a machine with a GPU: writes golden_gpu.npz beside this file
"""

import warnings
from pathlib import Path

import numpy as np

import grfsaxs_lib as gx
from grfsaxs_lib.datasets import keys

FILE = Path(__file__).with_suffix(".npz")
SEED = 11
STRUCTURES = {  # two phases, a thin layer, and one so deep that it needs double precision
    "two phases": dict(size=48, voxel_size=1.0, a=1.2, porosity=0.5, layer_fraction=0.0),
    "three phases": dict(size=64, voxel_size=1.0, a=1.5, porosity=0.4, layer_fraction=0.3),
    "deep layer": dict(size=64, voxel_size=0.5, a=1.5, porosity=0.85, layer_fraction=0.45),
}
# At the paper's size: the first structures of these test sets, the CPU's curves of which are in data/reference.
REFERENCES, N_REFERENCE = ("two_phase_low", "three_phase_low", "three_phase_high"), 4


def simulate(name, device):
    """Field, phases and curve of a structure."""
    given = STRUCTURES[name]
    grid = gx.Grid(given["size"], given["voxel_size"])
    psi = gx.gaussian_random_field(grid, scaling_parameter=given["a"], seed=SEED, device=device)
    cuts = {name: given[name] for name in ("porosity", "layer_fraction")}
    phases = gx.phase_map(psi, **cuts, smoothing_sigma=1 / grid.voxel_size)
    return psi, phases, curve(name, phases)


def curve(name, phases):
    """Curve of phases; q from twice the spacing on, where a shell holds more than a few modes."""
    grid = gx.Grid(STRUCTURES[name]["size"], STRUCTURES[name]["voxel_size"])
    return gx.scattering_intensity(phases, grid, np.linspace(2 * grid.q_spacing, min(3.0, grid.q_nyquist), 50))


def main():
    import cupy

    warnings.simplefilter("ignore", gx.SmallBoxWarning)
    card = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    arrays = {"made by": np.array(f"{card}, CuPy {cupy.__version__}, CUDA {cupy.cuda.runtime.runtimeGetVersion()}")}
    for name in STRUCTURES:
        psi, phases, intensity = simulate(name, "gpu")
        arrays |= {f"{name}, plane": psi[0].get(), f"{name}, phases": phases.get(), f"{name}, curve": intensity}
    for case in REFERENCES:
        indices = np.arange(N_REFERENCE)
        parameters = keys.sample_parameters(case, "test", indices)
        seeds = keys.keys(case, "test", indices, "structure")
        arrays[case] = gx.simulate(gx.PAPER_GRID, **parameters, seed=seeds, device="gpu").astype(np.float32)
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
