"""What an analysis of a measured curve has found: tables, files, pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..files import moved_into_place, package_version
from ..measurement.curve import Curve
from ..parameters import VARIABLES
from . import level_cut_model, three_phase_model

_UNITS = {
    "specific_surface": "nm-1", "layer_thickness": "nm", "pore_chord_length": "nm", "solid_chord_length": "nm",
}  # fmt: skip
_QUANTILES = {"2.5 %": 0.025, "16 %": 0.16, "84 %": 0.84, "97.5 %": 0.975}


class AnalysisWarning(UserWarning):
    """The result of an analysis should not be published as it is; `Analysis.warnings` says why."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """What a curve tells of a sample.

    Attributes
    ----------
    curve : Curve
        The part that was analysed, with the standard deviations that were used.
    settings : Settings
    samples : dict of str to (n,) ndarray
        Draws from the posterior: scaling_parameter [nm], porosity, its mirror image 1 - porosity, free shape
        parameters, and specific_surface [1/nm] of a sharp cut where it is finite.
    prefactor, background : (n,) ndarray
        Draws of what multiplies the intensity on the paper's scale, and of what is added, in the unit of the intensity.
    fit : (n_q,) ndarray
        The most likely curve.
    chi_square : float
        Of this curve.
    degrees_of_freedom : int
    log_evidence : float
        Logarithm of the probability of the curve under the model, but for a constant that all models of the same curve
        and standard deviations share: only differences mean something.
    bic : float
        Bayesian information criterion; smaller is better.
    effective_samples : float
        Number of independent draws that the samples are worth.
    warnings : list of str
        Reasons not to trust the result, each with a remedy, then remarks.
    reliable : bool
        True if there is no such reason.
    """

    curve: Curve
    settings: level_cut_model.Settings | three_phase_model.Settings
    samples: dict
    prefactor: np.ndarray
    background: np.ndarray
    fit: np.ndarray
    chi_square: float
    degrees_of_freedom: int
    log_evidence: float
    bic: float
    effective_samples: float
    warnings: list
    reliable: bool

    @property
    def table(self):
        """DataFrame of median, standard deviation and quantiles, a row for each parameter."""
        rows = {
            name: {"median": np.median(values), "sd": values.std() if np.ptp(values) else 0.0}
            | {label: np.quantile(values, share) for label, share in _QUANTILES.items()}
            for name, values in self.samples.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")

    def __repr__(self):
        judged = "reliable" if self.reliable else "NOT reliable"
        lines = [
            repr(self.curve),
            f"chi-square {self.chi_square:.1f} of {self.degrees_of_freedom} degrees of freedom",
            self.table.to_string(float_format="{:.4g}".format),
            judged,
        ]
        return "\n".join([*lines, *(f"- {text}" for text in self.warnings)])

    def plot(self, seed=0):
        """Draw the curve and its fit, residuals, and a plane of a structure with the median parameters.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from .report import plot_analysis

        return plot_analysis(self, seed)

    def to_netcdf(self, path, **attributes):
        """Write samples, curve and fit to a NetCDF file, with more attributes; it appears when it is complete."""
        data = self.to_dataset()
        data.attrs |= attributes
        with moved_into_place(Path(path)) as temporary:
            data.to_netcdf(temporary, engine="netcdf4")

    def to_dataset(self):
        """Samples, curve and fit as an xarray Dataset."""
        import xarray as xr

        data = xr.Dataset({name: ("draw", values) for name, values in self.samples.items()})
        data["prefactor"], data["background"] = ("draw", self.prefactor), ("draw", self.background)
        for name in ("intensity", "sigma", "dq"):
            if getattr(self.curve, name) is not None:
                data[name] = "q", getattr(self.curve, name)
        data["fit"] = "q", self.fit
        data = data.assign_coords(q=("q", self.curve.q, {"units": "nm-1"}))
        for name in set(data) & set(VARIABLES) - {"intensity"}:
            data[name].attrs["units"] = VARIABLES[name].unit
        for name in set(data) & set(_UNITS):
            data[name].attrs["units"] = _UNITS[name]
        family = self.settings.spectral_density
        data.attrs = {
            "curve": self.curve.name,
            "notes": "; ".join(self.curve.notes),
            "warnings": "; ".join(self.warnings),
            "reliable": int(self.reliable),
            "chi_square": self.chi_square,
            "degrees_of_freedom": self.degrees_of_freedom,
            "log_evidence": self.log_evidence,
            "spectral_density": family if isinstance(family, str) else repr(family),
            "shape": repr(getattr(self.settings, "shape", {})),
            **{f"prior_{name}": limits for name, limits in self.settings.limits_by_name.items()},
            "layer_contrast": getattr(self.settings, "layer_contrast", ()),
            "smoothing_length": self.settings.smoothing_length,
            "slit_length": self.curve.slit_length or 0.0,
            "bic": self.bic,
            "effective_samples": self.effective_samples,
            "grfsaxs_version": package_version(),
        }
        return data

    @property
    def summary(self):
        """Dict of one row of a table of many curves."""
        row = {"curve": self.curve.name, "reliable": self.reliable}
        for name, values in self.table.iterrows():
            row |= {name: values["median"], f"{name} sd": values["sd"]}
        row |= {"prefactor": np.median(self.prefactor), "background": np.median(self.background)}
        row |= {"chi_square": self.chi_square, "degrees_of_freedom": self.degrees_of_freedom}
        return row | {"warnings": "; ".join(self.warnings)}
