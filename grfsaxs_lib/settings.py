"""The paper's settings beside those of the package at a tier.

A setting is what the paper chose and a program copies: the grid, the ranges of the prior, the
hyperparameters. That a copy equals its original proves nothing about the world, so settings are no
claims. They are compared all the same, in one table: some must be equal at every tier, and a tier may
differ from the paper in others, such as the number of curves.
"""

import inspect
from dataclasses import dataclass

import numpy as np
import pandas as pd

from . import tiers
from .grid import PAPER_GRID, PAPER_Q
from .measurement.noise import NOISE_LEVEL_RANGE
from .paper import numbers
from .parameters import CASES, VARIABLES
from .physics.scattering import scattering_intensity
from .physics.structure import phase_map
from .trees import training


@dataclass(frozen=True)
class Setting:
    """One setting of the paper, and ours.

    Attributes
    ----------
    where : str
        Section or table of the paper.
    name : str
        What is set, with its unit in square brackets.
    paper, here : int, float or tuple
        The value of the paper, and that of the package at a tier.
    everywhere : bool
        Whether both must be equal at every tier.
    digits : int, optional
        Decimals that the paper gives, where its number is rounded.
    """

    where: str
    name: str
    paper: object
    here: object
    everywhere: bool = True
    digits: int | None = None

    @property
    def is_same(self):
        here = self.here if self.digits is None else round(self.here, self.digits)
        return here == self.paper


def settings(tier):
    """The settings of the paper and ours at a tier.

    Parameters
    ----------
    tier : str
        One of `tiers.TIERS`.

    Returns
    -------
    list of Setting
    """
    return _of_physics() + _of_prior() + _of_training() + _of_tier(tier)


def settings_table(tier):
    """The settings as a table.

    Parameters
    ----------
    tier : str
        One of `tiers.TIERS`.

    Returns
    -------
    pandas.DataFrame
        Columns: where, setting, paper, here (both as text) and comparison, ``same`` or ``differs at this tier``.
    """
    return pd.DataFrame(
        [
            {"where": one.where, "setting": one.name, "paper": _text(one.paper), "here": _text(one.here)}
            | {"comparison": "same" if one.is_same else "differs at this tier"}
            for one in settings(tier)
        ]
    )


def _of_physics():
    def default(function, name):
        return inspect.signature(function).parameters[name].default

    return [
        Setting("§2.2, §2.3", "voxels along an edge, PAPER_GRID", 512, PAPER_GRID.size),
        Setting("§2.2, §2.3", "voxel size, PAPER_GRID [nm]", 0.5, PAPER_GRID.voxel_size),
        Setting("Eq. 2", "resolution in q, 2π/(N Δx) [nm⁻¹]", 0.0245, PAPER_GRID.q_spacing, digits=4),
        Setting("§2.2", "default width of the Gaussian filter [voxel]", 2, default(phase_map, "smoothing_sigma")),
        Setting("§2.2", "densities of pore, layer, solid", (0, 0.65, 1), default(scattering_intensity, "densities")),
        Setting("§2.3", "number of q values", 500, PAPER_Q.size),
        Setting("§2.3", "smallest q [nm⁻¹]", 0.04, float(PAPER_Q[0]), digits=2),
        Setting("§2.3", "largest q [nm⁻¹]", 3.0, float(PAPER_Q[-1]), digits=2),
        Setting("§2.3, Eq. 12", "different steps between q values", 1, np.unique(np.diff(PAPER_Q).round(12)).size),
        Setting("§2.3", "range of the noise level", (100.0, 10**5.5), NOISE_LEVEL_RANGE),
    ]


def _of_prior():
    ranges = {"scaling_parameter": (0.8, 8.0), "layer_fraction": (0.05, 0.5)}
    porosity = {"low": (0.1, 0.5), "high": (0.5, 0.9)}
    rows = [
        Setting("§2.3", "number of cases", 4, len(CASES)),
        Setting("§2.4", "outputs, each with a model", 10, sum(len(case.outputs) for case in CASES.values())),
    ]
    for case in CASES.values():
        for output, bounds in case.ranges.items():
            theirs = ranges.get(output) or porosity[case.name.rpartition("_")[2]]
            unit = VARIABLES[output].unit
            name = f"{case.title}: range of {output}" + (f" [{unit}]" if unit != "1" else "")
            rows.append(Setting("§2.3", name, theirs, bounds))
    return rows


def _of_training():
    chosen = {
        **{"learning_rate": 0.005, "max_depth": 15, "min_child_weight": 3, "subsample": 0.15},
        **{"colsample_bytree": 0.15, "reg_lambda": 0.2, "max_bin": 1024},
    }
    schedule = {"n_estimators": 50_000, "patience": 1000, "repeats": 10}
    rows = [
        Setting("Table 1", f"{name}: range of the search", allowed, tuple(training.SEARCH_SPACE[name]["range"]))
        for name, allowed in numbers.TABLE_1.items()
    ]
    ours = training.PAPER_HYPERPARAMETERS | training.PAPER_SCHEDULE
    for name, value in (chosen | schedule).items():
        rows.append(Setting("§2.4", f"{name}: choice of the paper", value, ours[name]))
    return rows


def _of_tier(tier):
    sizes, used = tiers.TIERS[tiers.check_tier(tier)], training.final_hyperparameters(tier)
    rows = [
        *(("§2.3", f"simulated {split} curves", n, sizes[f"n_{split}"]) for split, n in numbers.N_SAMPLES.items()),
        *(("§2.4", f"{name} used", value, used[name]) for name, value in training.PAPER_HYPERPARAMETERS.items()),
        *(("§2.4", f"{name} used", value, sizes[name]) for name, value in training.PAPER_SCHEDULE.items()),
        ("§2.5", "curves of the case study", numbers.CASE_STUDY_CURVES, sizes["n_replicates"]),
    ]
    return [Setting(*row, everywhere=tier == "paper") for row in rows]


def _text(value):
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
