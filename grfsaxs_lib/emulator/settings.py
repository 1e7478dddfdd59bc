"""What an emulator has that was chosen by experiment, in one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    r"""How an emulator learns; the defaults are those of all results.

    Their source, where no other is named: errors of curves that an emulator had not seen, `docs/decisions`.

    Attributes
    ----------
    passes : int
        Rounds of mean and scale shifts. The second has the hyperparameters of the first.
    curves_at_first : int
        Most curves of the Gaussian processes, in all passes but the last; saves time only.
    curves_of_mean : int
        Most curves of the Gaussian processes; time grows as its cube. All curves have a part in drift, voxel effect
        and residuals.
    scale_shift_sd : float
        Standard deviation of the scale shift at a = 4 nm in the paper's box, before the fit; from replicates.
    known_shift_scatter : tuple of float
        Standard deviation of ln I at a known scale shift: coefficients of :math:`1, q^{-1}, q^{-2}`; from replicates.
    drift_degree, spread_degree : int
        Degrees of the polynomials for the mean of the scale shifts and for the logarithm of their variance.
    neighbours : int
        Real structures that are combined in one emulated residual.
    near_porosity, near_thickness : float
        Differences that count as much as half the range of ln a when neighbours are looked for: of the porosity
        [half its range], of the layer's thickness [nm].
    largest_inflation : float
        Most by which cross-validation enlarges a fitted residual; bounds what single curves can do.
    node_step : float
        Distance of nodes, in units of `gaussian_process.position`; 0.24 in s where s is large.
    tail : float
        s = aq above which a process learns intensities in place of their logarithms.
    table : tuple of int
        Points of the table along ln a, porosity, thickness; the last for six points a period of the overtone.
    finer : int
        Rows of the finer table per node, between which interpolation is linear.
    searched_nodes, searched_curves : int
        Nodes at which hyperparameters are optimised, and most curves in that; saves time only.
    fewest_curves : int
        Of a node; with fewer it follows its neighbour.
    least_share : float
        A process of intensities may not fall below this share of the smallest value at its node.
    voxel_growth : float
        Thickness [voxel] at which the voxel effect varies half as fast as at none.
    voxel_length : float
        Correlation length of the voxel effect: 0.15 voxel and a fortieth of the thickness.
    voxel_range : int
        q values that are averaged when the voxel effect is learned.
    voxel_speckle : float
        Noise variance of that average that does not grow with a, relative to the scatter at a = 4 nm.
    voxel_clip : float
        Typical deviations at which a curve is clipped when the voxel effect is learned.
    """

    passes: int = 3
    curves_at_first: int = 1024
    curves_of_mean: int = 2560
    scale_shift_sd: float = 0.0065
    known_shift_scatter: tuple = (0.005, 0.004, 0.0003)
    drift_degree: int = 4
    spread_degree: int = 2
    neighbours: int = 20
    near_porosity: float = 4.0
    near_thickness: float = 2.0
    largest_inflation: float = 5.0
    node_step: float = 0.06
    tail: float = 2.5
    table: tuple = (10, 14, 96)
    finer: int = 4
    searched_nodes: int = 12
    searched_curves: int = 600
    fewest_curves: int = 12
    least_share: float = 0.5
    voxel_growth: float = 6.0
    voxel_length: float = 0.025
    voxel_range: int = 25
    voxel_speckle: float = 0.15
    voxel_clip: float = 6.0


DEFAULT = Settings()
