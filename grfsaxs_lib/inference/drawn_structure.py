"""A structure with the spectrum that a curve asks for: volumes for other programs, and its own curve to compare."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline

from ..files import moved_into_place, package_version
from ..grid import Grid, check_grid
from ..physics.backend import check_memory, get_kernels
from ..physics.field import gaussian_random_field
from ..physics.scattering import scattering_intensity
from ..physics.structure import SOLID, phase_map
from . import level_cut
from .smearing import smearing

_LEFT_OUT = 0.05  # share of the field's variance that a grid may leave out
_LARGEST = 512  # voxels along the edge of a grid that is proposed
_N_Q = 400  # points at which a structure's curve is simulated
_FAITHFUL = 0.03  # deviation of its curve up to which a structure needs no remark


@dataclass(frozen=True, eq=False, repr=False)
class Structure:
    """A simulated structure of two phases, and how it scatters.

    Attributes
    ----------
    phases : (N, N, N) ndarray of uint8
        0 pore, 2 solid; axes (z, y, x).
    grid : Grid
    seed : int
    analysis : FreeAnalysis
        Whose most likely spectral density and porosity it has.
    q, intensity : (n,) ndarray
        The structure's own curve where its box holds waves, at measured q: smeared, with the prefactor and the
        background of the fit.
    """

    phases: np.ndarray
    grid: Grid
    seed: int
    analysis: object
    q: np.ndarray
    intensity: np.ndarray

    def __repr__(self):
        words = f"Structure of {self.grid.size}^3 voxels of {self.grid.voxel_size:.4g} nm, porosity {self.porosity:.4g}"
        return f"{words}: its curve deviates from the fit by {100 * self.deviation:.2g} % (median)"

    @property
    def porosity(self):
        return self.analysis.porosity

    @property
    def fit(self):
        """(n,) ndarray: the curve that was fitted, at `q`."""
        return self.analysis.fit[self._chosen]

    @property
    def deviation(self):
        """Median of the relative deviation of the structure's curve from the fit, where q > 4 Δq of the box."""
        far = self.q > 4 * self.grid.q_spacing
        return float(np.median(np.abs(self.intensity / self.fit - 1)[far])) if far.any() else np.nan

    @property
    def warnings(self):
        """List of str: those of the analysis, after one on the grid if the structure's curve deviates from the fit."""
        if not self.deviation > _FAITHFUL:
            return self.analysis.warnings
        remark = (
            f"The curve of the structure deviates from the fit by {100 * self.deviation:.2g} % (median): its voxels "
            "are coarse, or its box holds few waves. Use smaller voxels or a larger box."
        )
        return [remark, *self.analysis.warnings]

    @property
    def _chosen(self):
        return np.isin(self.analysis.curve.q, self.q)

    def plot(self):
        """Draw the structure's curve over measured points and fit, their ratio, and a plane of the structure.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from .report import plot_structure

        return plot_structure(self)

    def to_netcdf(self, path, **attributes):
        """Write phases and curves to a NetCDF file, with more attributes; it appears when it is complete."""
        import xarray as xr

        centres = (np.arange(self.grid.size) + 0.5) * self.grid.voxel_size
        axes = {axis: (axis, centres, {"units": "nm"}) for axis in ("z", "y", "x")}
        meaning = {"flag_values": [0, 2], "flag_meanings": "pore solid"}
        data = xr.Dataset({"phase": (("z", "y", "x"), self.phases, meaning)}, axes)
        data["intensity"] = "q", self.intensity
        data["measured"] = "q", self.analysis.curve.intensity[self._chosen]
        data["fit"] = "q", self.fit
        data = data.assign_coords(q=("q", self.q, {"units": "nm-1"}))
        prefactor, background = _linear(self.analysis)
        data.attrs = {
            "curve": self.analysis.curve.name, "porosity": self.porosity, "seed": self.seed,
            "voxel_size": self.grid.voxel_size, "prefactor": prefactor, "background": background,
            "deviation": self.deviation, "reliable": int(self.analysis.reliable), "warnings": "; ".join(self.warnings),
            "grfsaxs_version": package_version(),
        } | attributes  # fmt: skip
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


def check_device_for(grid, device):
    """Raise unless the device is there, with memory for a structure on a grid."""
    get_kernels(device)
    check_memory(device, check_grid(grid).size)


def draw_structure(analysis, grid, seed, device):
    """The `Structure` of a `FreeAnalysis`, on a grid."""
    check_device_for(grid, device)
    held = _held(analysis, grid)
    if held < 1 - _LEFT_OUT:
        raise ValueError(
            f"{grid.size}^3 voxels of {grid.voxel_size:g} nm hold waves from {grid.q_spacing:.3g} to "
            f"{grid.q_nyquist:.3g} nm^-1 and {100 * held:.3g} % of the field's variance, of "
            f"{100 * (1 - _LEFT_OUT):g} % that they must hold. {_remedy(analysis, grid.size)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the grid has been checked by the variance it holds
        field = gaussian_random_field(
            grid, scaling_parameter=analysis.wavelength, seed=seed, device=device,
            spectral_density=lambda k, _: analysis.density(k),
        )  # fmt: skip
    phases = phase_map(field, porosity=analysis.porosity, smoothing_sigma=0, overwrite_field=True)
    q = analysis.curve.q
    inside = q[(q > 2 * grid.q_spacing) & (q < grid.q_nyquist)]
    intensity = _smeared_curve(analysis, phases, grid, inside)
    return Structure(get_kernels(device).to_host(phases), grid, seed, analysis, inside, intensity)


def _held(analysis, grid):
    """Share of the field's variance at waves that a grid holds."""
    waves = level_cut.K / analysis.unit
    return analysis.posterior.weights(analysis.x)[(waves >= grid.q_spacing) & (waves <= grid.q_nyquist)].sum()


def _remedy(analysis, size):
    """A grid that holds the field, of the given size if there is one, or what else to do."""
    for larger in sorted({size, max(size, _LARGEST)}):
        grid, held = _best_grid(analysis, larger)
        if held >= 1 - _LEFT_OUT:
            return (
                f"Use size={grid.size} and voxel_size={grid.voxel_size:g}, a box of {grid.box_length:.4g} nm, "
                f"which hold {100 * held:.3g} %."
            )
    return (
        f"No grid of up to {grid.size}^3 voxels does: the best, of {grid.voxel_size:g} nm, hold {100 * held:.3g} %. "
        "Mind the warnings of the analysis, or give it a smaller range of q (q_range=)."
    )


def _best_grid(analysis, size):
    """A grid of so many voxels along an edge, and the share of the field's variance that it holds.

    Its voxels are the finest that leave out half of what may be left out, or else those that leave out least.
    """
    longest = level_cut.K / analysis.unit
    shares = np.append(0.0, np.cumsum(analysis.posterior.weights(analysis.x)))
    held = shares[np.searchsorted(longest, longest * size / 2)] - shares[:-1]
    held = np.minimum(held, 1 - _LEFT_OUT / 2)
    best = longest[held == held.max()][-1]
    grid = Grid(size, float(f"{2 * np.pi / size / best:.3g}"))
    return grid, _held(analysis, grid)


def _linear(analysis):
    """Prefactor, of the intensity on the paper's scale, and background of the fit."""
    *_, prefactor, background = analysis.posterior.parts(analysis.x)
    return float(prefactor) / level_cut.PAPER_SCALE, float(background)


def _smeared_curve(analysis, phases, grid, q):
    """The intensity of a structure at measured q, in the unit of the curve and smeared as it is."""
    curve = analysis.curve
    nodes = np.geomspace(grid.q_spacing, grid.q_nyquist, _N_Q)
    simulated = scattering_intensity(phases, grid, nodes)
    chosen = np.isin(curve.q, q)
    points, weights = smearing(q, None if curve.dq is None else curve.dq[chosen], curve.slit_length)
    log = CubicSpline(np.log(nodes), np.log(simulated))(np.clip(np.log(points), *np.log(nodes[[0, -1]])))
    prefactor, background = _linear(analysis)
    return prefactor * np.sum(weights * np.exp(log), axis=1) + background
