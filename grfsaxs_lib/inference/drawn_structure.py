"""A structure with the spectrum that a curve asks for: volumes for other programs, and its own curve to compare."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline

from ..files import moved_into_place, package_version
from ..grid import Grid, check_grid
from ..measurement.curve import Curve
from ..physics.backend import get_kernels
from ..physics.field import gaussian_random_field
from ..physics.scattering import scattering_intensity
from ..physics.structure import SOLID, phase_map
from . import level_cut
from .smearing import smearing

_HELD = 0.05  # share of the field's variance that a grid may leave out
_N_Q = 400  # points at which a structure's curve is simulated


@dataclass(frozen=True, eq=False)
class Structure:
    """A simulated structure of two phases, and how it scatters.

    Attributes
    ----------
    phases : (N, N, N) ndarray of uint8
        0 pore, 2 solid; axes (z, y, x).
    grid : Grid
    porosity : float
    seed : int
    curve : Curve
        The measured one.
    q, intensity : (n,) ndarray
        The structure's own curve where its box holds waves, at measured q: smeared, with the prefactor and the
        background of the fit.
    """

    phases: np.ndarray
    grid: Grid
    porosity: float
    seed: int
    curve: Curve
    q: np.ndarray
    intensity: np.ndarray

    def plot(self):
        """Draw a plane of the structure, and its curve over the measured one; returns the matplotlib Figure."""
        from .report import plot_structure

        return plot_structure(self)

    def to_netcdf(self, path):
        """Write phases and curves to a NetCDF file; it appears when it is complete."""
        import xarray as xr

        centres = (np.arange(self.grid.size) + 0.5) * self.grid.voxel_size
        axes = {axis: (axis, centres, {"units": "nm"}) for axis in ("z", "y", "x")}
        meaning = {"flag_values": [0, 2], "flag_meanings": "pore solid"}
        data = xr.Dataset({"phase": (("z", "y", "x"), self.phases, meaning)}, axes)
        data["intensity"] = "q", self.intensity
        data["measured"] = "q", self.curve.intensity[np.isin(self.curve.q, self.q)]
        data = data.assign_coords(q=("q", self.q, {"units": "nm-1"}))
        data.attrs = {
            "curve": self.curve.name, "porosity": self.porosity, "seed": self.seed,
            "voxel_size": self.grid.voxel_size, "grfsaxs_version": package_version(),
        }  # fmt: skip
        with moved_into_place(Path(path)) as temporary:
            data.to_netcdf(temporary, engine="netcdf4", encoding={"phase": {"zlib": True, "complevel": 1}})

    def to_tiff(self, path):
        """Write the phases as a TIFF stack of planes, 0 pore and 255 solid, with the voxel size for ImageJ and others.

        It appears when it is complete.
        """
        from PIL import Image
        from PIL.TiffImagePlugin import ImageFileDirectory_v2

        size, edge = self.grid.size, self.grid.voxel_size
        tags = ImageFileDirectory_v2()
        tags[270] = f"ImageJ=1.54f\nimages={size}\nslices={size}\nunit=nm\nspacing={edge:.8f}\n"  # ImageDescription
        tags[282] = tags[283] = 1 / edge  # pixels in a unit, x and y
        tags[296] = 1  # no unit of resolution: the description has it
        planes = (Image.fromarray(np.where(plane == SOLID, np.uint8(255), np.uint8(0))) for plane in self.phases)
        with moved_into_place(Path(path)) as temporary:
            first = next(planes)
            first.save(
                temporary, format="TIFF", save_all=True, append_images=planes, tiffinfo=tags, compression="packbits"
            )


def draw_structure(analysis, grid, seed, device):
    """The `Structure` of a `FreeAnalysis`, on a grid."""
    q, waves = analysis.curve.q, level_cut.K / analysis.unit
    weights = analysis.posterior.weights(analysis.x)
    held = weights[(waves >= check_grid(grid).q_spacing) & (waves <= grid.q_nyquist)].sum()
    if held < 1 - _HELD:
        raise ValueError(
            f"{grid} holds waves from {grid.q_spacing:.3g} to {grid.q_nyquist:.3g} nm^-1 and {100 * held:.0f} % of the "
            "field's variance; use smaller voxels or a larger box"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the grid has been checked by the variance it holds
        field = gaussian_random_field(
            grid, scaling_parameter=analysis.wavelength, seed=seed, device=device,
            spectral_density=lambda k, _: analysis.density(k),
        )  # fmt: skip
    phases = phase_map(field, porosity=analysis.porosity, smoothing_sigma=0, overwrite_field=True)
    inside = q[(q > 2 * grid.q_spacing) & (q < grid.q_nyquist)]
    intensity = _smeared_curve(analysis, phases, grid, inside)
    phases = get_kernels(device).to_host(phases)
    return Structure(phases, grid, analysis.porosity, seed, analysis.curve, inside, intensity)


def _smeared_curve(analysis, phases, grid, q):
    """The intensity of a structure at measured q, in the unit of the curve and smeared as it is."""
    curve = analysis.curve
    nodes = np.geomspace(grid.q_spacing, grid.q_nyquist, _N_Q)
    simulated = scattering_intensity(phases, grid, nodes)
    chosen = np.isin(curve.q, q)
    points, weights = smearing(q, None if curve.dq is None else curve.dq[chosen], curve.slit_length)
    log = CubicSpline(np.log(nodes), np.log(simulated))(np.clip(np.log(points), *np.log(nodes[[0, -1]])))
    _, _, prefactor, background = analysis.posterior.parts(analysis.x)
    return prefactor / level_cut.PAPER_SCALE * np.sum(weights * np.exp(log), axis=1) + background
