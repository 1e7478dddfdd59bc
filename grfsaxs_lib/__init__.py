"""Small-angle X-ray scattering of disordered two- and three-phase materials.

A Python implementation of Röding et al. (2022), Front. Mater. 9, 956839.
Lengths are in nm, scattering vectors in nm^-1; see `grfsaxs_lib.grid` for the conventions.
"""

from . import parameters
from .grid import PAPER_GRID, PAPER_Q, Grid, SmallBoxWarning
from .measurement.noise import add_noise
from .measurement.preprocess import normalise_intensity
from .parameters import CASES, VARIABLES
from .physics.field import gaussian_random_field, spectral_density
from .physics.scattering import scattering_intensity
from .physics.simulation import simulate
from .physics.structure import phase_map

__version__ = "0.1.0"

__all__ = [
    "CASES",
    "PAPER_GRID",
    "PAPER_Q",
    "VARIABLES",
    "Grid",
    "SmallBoxWarning",
    "add_noise",
    "gaussian_random_field",
    "normalise_intensity",
    "parameters",
    "phase_map",
    "scattering_intensity",
    "simulate",
    "spectral_density",
]
