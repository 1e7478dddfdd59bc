r"""From the field to the phases: threshold, smooth, threshold, Eqs. (8)-(10).

The smoothed indicator :math:`\psi''` falls off as a Gaussian of the distance to the
solid, so the threshold :math:`T_1` of a thick layer lies deep in that tail (1e-75 for
a = 8 nm, :math:`\epsilon` = 0.9, :math:`\nu` = 0.5). An FFT filter leaves round-off there and
a truncated kernel leaves zeros; either way the "layer" stops being a shell around
the solid. A sum of non-negative terms keeps its *relative* precision, so the smoothing works
in real space, with a kernel wide enough for the threshold at hand.
"""

import numpy as np
from scipy.special import erfc

from ..parameters import check, check_scalar
from .backend import kernels_of, plain_array

PORE, LAYER, SOLID = 0, 1, 2

# Widths of the filter to choose from: radius in units of sigma, and precision. float32 underflows beyond 12, float64
# beyond 37.
_WIDTHS = [(6, np.float32), (8, np.float32), (10, np.float32), (12, np.float32)]
_WIDEST_FLOAT32 = len(_WIDTHS) - 1
_WIDTHS += [(16, np.float64), (22, np.float64), (29, np.float64), (37, np.float64)]
# A threshold is trusted where the weight beyond the filter is a smaller share of it than this.
_TRUNCATION = 1e-5
# Planes on which the depth of the layer is estimated before the whole cube is smoothed.
_PROBE_PLANES = 16
# Exponent that lowers this estimate as a tenth more depth would, since the whole cube may lie deeper.
_MARGIN = 1.2


def gaussian_taps(sigma, radius, dtype):
    r"""Right half of a Gaussian filter, :math:`w_t \propto \exp(-t^2/2\sigma^2)`, centre first.

    Parameters
    ----------
    sigma : float
        Standard deviation [voxel].
    radius : int
        Index of the last tap [voxel].
    dtype : dtype

    Returns
    -------
    (radius + 1,) ndarray
        Normalised so that both halves sum to one.
    """
    taps = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    return (taps / (taps[0] + 2 * taps[1:].sum())).astype(dtype)


def _smooth(kernels, binary, sigma, width, planes=None, out=None):
    radius, dtype = width
    return kernels.smooth(binary, gaussian_taps(sigma, int(np.ceil(radius * sigma)), dtype), planes, out)


def _trusted(threshold, width):
    """Whether a filter of this width determines the threshold."""
    radius, dtype = width
    return threshold > max(erfc(radius / np.sqrt(2)) / _TRUNCATION, 1e-290 if dtype == np.float64 else 0.0)


def _first_width(kernels, binary, sigma, share):
    """Index of the narrowest filter that should do for the lowest `share` of voxels, judged by a few planes."""
    planes = np.unique(np.linspace(0, len(binary), _PROBE_PLANES, endpoint=False).astype(int))
    for widest in (_WIDEST_FLOAT32, len(_WIDTHS) - 1):
        probe = _smooth(kernels, binary, sigma, _WIDTHS[widest], planes)
        (threshold,) = kernels.order_statistics(probe, [max(1, round(share * probe.size))])
        for n, width in enumerate(_WIDTHS[: widest + 1]):
            if _trusted(threshold**_MARGIN, width):
                return n
    return len(_WIDTHS) - 1


def check_cut(porosity, layer_fraction, smoothing_sigma, size):
    """Return the parameters of the cut as float64 arrays and a float, or say what is wrong with them."""
    porosity = check("porosity", porosity)
    layer_fraction = check("layer_fraction", layer_fraction)
    smoothing_sigma = check_scalar("smoothing_sigma", smoothing_sigma)
    if smoothing_sigma > size / 8:
        raise ValueError(
            f"smoothing_sigma must be at most an eighth of the {size} voxels of an edge; got {smoothing_sigma:g}"
        )
    if smoothing_sigma == 0 and (layer_fraction > 0).any():
        raise ValueError("a layer needs smoothing: layer_fraction > 0 asks for smoothing_sigma > 0; got 0")
    empty = (np.rint(porosity * size**3) == 0) | (np.rint(porosity * size**3) == size**3)
    if empty.any():
        raise ValueError(f"porosity {porosity[empty].flat[0]:g} leaves no pore or no solid among {size}^3 voxels")
    return porosity, layer_fraction, smoothing_sigma


def phase_map(field, *, porosity, layer_fraction=0.0, smoothing_sigma=2.0, overwrite_field=False):
    r"""Cut a field into pore, layer and solid, Eqs. (8)-(10).

    The :math:`\epsilon N^3` lowest voxels of :math:`\psi` become 0, the rest 1; this indicator,
    smoothed, is cut again at its own quantiles :math:`\epsilon(1-\nu)` and :math:`\epsilon`.

    Parameters
    ----------
    field : (N, N, N) array of float32
        The field :math:`\psi`, on any device.
    porosity : float
        Volume fraction :math:`\epsilon` of pore and layer together, in (0, 1).
    layer_fraction : float
        Share :math:`\nu` of the pore space taken by the layer, in [0, 1); 0 is the two-phase model.
    smoothing_sigma : float
        Standard deviation of the Gaussian filter [voxel]. 0 skips the filter and the second threshold;
        there is no layer then.
    overwrite_field : bool
        Whether the field may be used as scratch memory; it is faster.

    Returns
    -------
    (N, N, N) array of uint8
        0 pore, 1 layer, 2 solid; on the device of the field. Volume fractions are exact to one
        voxel but for ties.

    Raises
    ------
    ValueError
        For values outside their range, a field that is not a cube of float32, is constant or has values that are not
        finite or masked, or a layer deeper than 37 sigma.
    """
    field = plain_array("field", field)
    shape = field.shape
    if len(shape) != 3 or len(set(shape)) != 1 or field.dtype != np.float32:
        raise ValueError(f"field must be a cubic (N, N, N) array of float32; got {field.dtype} of shape {shape}")
    porosity, layer_fraction, sigma = check_cut(
        check_scalar("porosity", porosity), check_scalar("layer_fraction", layer_fraction), smoothing_sigma, shape[0]
    )
    lowest, highest = float(field.min()), float(field.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise ValueError("field must be finite; it holds NaN or infinity")
    if lowest == highest:
        raise ValueError(f"field must vary, or no threshold can cut it; it is {lowest:g} everywhere")
    return cut(kernels_of(field), field, porosity, layer_fraction, sigma, overwrite_field)


def cut(kernels, field, porosity, layer_fraction, sigma, overwrite_field):
    """What `phase_map` does once its arguments are checked."""
    n_pore, n_pore_and_layer = counts_of(porosity, layer_fraction, field.size)
    (threshold,) = kernels.order_statistics(field, [n_pore_and_layer])
    if sigma == 0:
        return kernels.classify(field, threshold, threshold)
    scratch = field if overwrite_field and field.flags.c_contiguous else None
    return second_cut(kernels, kernels.binarise(field, threshold), n_pore, n_pore_and_layer, sigma, scratch)


def counts_of(porosity, layer_fraction, size):
    """How many of `size` voxels are pore, and pore or layer."""
    return round(float(porosity * (1 - layer_fraction)) * size), round(float(porosity) * size)


def second_cut(kernels, binary, n_pore, n_pore_and_layer, sigma, scratch=None):
    """Smooth a first cut, and cut it at its own quantiles; `binary` and `scratch`, of float32, are overwritten."""
    layered = n_pore < n_pore_and_layer
    first = _first_width(kernels, binary, sigma, n_pore / binary.size) if layered else 0
    for width in _WIDTHS[first:]:
        smoothed = _smooth(kernels, binary, sigma, width, out=scratch if width[1] == np.float32 else None)
        lower, upper = kernels.order_statistics(smoothed, [n_pore, n_pore_and_layer])
        if n_pore == 0 or _trusted(lower, width):
            return kernels.classify(smoothed, lower, upper, out=binary)
        del smoothed
    porosity = n_pore_and_layer / binary.size
    raise ValueError(
        f"porosity {porosity:.4g} with layer_fraction {1 - n_pore / n_pore_and_layer:.4g} cuts deeper than 37 "
        f"smoothing_sigma of {sigma:g} voxels into the pores, where the filter underflows; use a larger smoothing_sigma"
    )
