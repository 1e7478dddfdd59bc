"""What fits and posteriors have that was chosen by experiment, in one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How curves are compared with the model; the defaults are those of all results.

    Their source, where no other is named: errors of real curves that an emulator had not seen, `docs/decisions`. Pairs
    are of two and of three phases.

    Attributes
    ----------
    narrow, narrow_until, wide : int
        q values that are averaged: `narrow` of them up to number `narrow_until`, `wide` beyond. Four are a q spacing of
        the paper's box, in which shells of low q are few.
    table : tuple of int
        Spline coefficients of the averaged curves along ln a, porosity, thickness; fine enough for the voxel effect.
    deviation_table : tuple of int
        Points at which the deviations S are estimated, along the same axes.
    local_share : tuple of float
        Share of the structures, the nearest, that give S at a point.
    least_local : int
        Fewest of them.
    correlation_knots : int
        Points along the scale or the thickness of the layer between which the correlations R are interpolated.
    layers : tuple of float
        Thicknesses of the layer [nm] at the first and the last of these points.
    near_knot : tuple of int
        Structures, the nearest, that give R at a point.
    local_weight : float
        Their weight in R; the rest is that of all structures.
    shrinkage : float
        Of R towards the identity.
    clip : float
        Deviations at which a residual is clipped before it enters R.
    offset_degree : int
        Of the polynomials for the variance of the offsets.
    offset_variation : float
        Standard deviation of their coefficients but for the constant, before they are learned.
    shift_variation : float
        Standard deviation of the logarithm of the size of scale shifts, before it is learned with them.
    start_steps : tuple of int
        Every so many points of the table are in the starting grid.
    starts : int
        Optimisations of a fit, each from another porosity; a posterior starts at all porosities of the grid.
    chi_square : tuple of float
        Per degree of freedom, of curves that fit. Of 1024 real ones a case that an emulator had not seen, 1.2 % lay
        above if it had learned from 128 structures, at most 0.1 % if from thousands; none lay below.
    beyond : float
        Deviations beyond the prior, of curves that fit; of the same curves one in 4096 had more.
    worth_sampling : float
        Difference of log likelihoods from the best maximum, up to which a maximum enters the first proposal.
    widths : tuple of float
        Of the kernels of the later proposals, in deviations of the posterior so far; a proposal each.
    kernels : int
        Of a later proposal.
    least_width : float
        Variance that is added to the kernels, relative to that at the best maximum.
    """

    narrow: int = 4
    narrow_until: int = 80
    wide: int = 7
    table: tuple = (120, 14, 140)
    deviation_table: tuple = (24, 6, 24)
    local_share: tuple = (0.1, 0.025)
    least_local: int = 25
    correlation_knots: int = 17
    layers: tuple = (0.3, 8.0)
    near_knot: tuple = (800, 400)
    local_weight: float = 0.7
    shrinkage: float = 0.1
    clip: float = 4.0
    offset_degree: int = 2
    offset_variation: float = 1.0
    shift_variation: float = 0.1
    start_steps: tuple = (5, 1, 5)
    starts: int = 6
    chi_square: tuple = (0.2, 2.5)
    beyond: float = 4.0
    worth_sampling: float = 12.0
    widths: tuple = (0.5, 0.35)
    kernels: int = 48
    least_width: float = 0.02


DEFAULT = Settings()
