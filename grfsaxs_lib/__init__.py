"""Small-angle X-ray scattering of disordered two- and three-phase materials.

A Python implementation of Röding et al. (2022), Front. Mater. 9, 956839.
Lengths are in nm, scattering vectors in nm^-1; see `grfsaxs_lib.grid` for the conventions.
"""

import importlib

from . import parameters
from .grid import PAPER_GRID, PAPER_Q, Grid, SmallBoxWarning
from .measurement.curve import Curve
from .measurement.noise import add_noise
from .measurement.preprocess import normalise_intensity
from .measurement.reading import read_curve, read_curves
from .parameters import CASES, VARIABLES
from .physics.field import gaussian_random_field, spectral_density
from .physics.scattering import scattering_intensity
from .physics.simulation import simulate
from .physics.structure import phase_map

__version__ = "0.1.0"

# Imported at their first use: they need half of SciPy, and pandas.
_LATER = {
    "AnalysisWarning": "inference.analyse",
    "analyse": "inference.analyse",
    "compare": "inference.analyse",
    "level_cut_intensity": "inference.level_cut",
}


def __getattr__(name):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)


__all__ = [
    "CASES",
    "PAPER_GRID",
    "PAPER_Q",
    "VARIABLES",
    "AnalysisWarning",
    "Curve",
    "Grid",
    "SmallBoxWarning",
    "add_noise",
    "analyse",
    "compare",
    "gaussian_random_field",
    "level_cut_intensity",
    "normalise_intensity",
    "parameters",
    "phase_map",
    "read_curve",
    "read_curves",
    "scattering_intensity",
    "simulate",
    "spectral_density",
]
