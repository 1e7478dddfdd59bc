r"""From a measured curve to the inputs of the regression.

Three steps, section 2.3 and 2.4: divide by the total intensity, which removes the
unknown prefactor :math:`I_0`; take the logarithm, for intensities that span six
decades; rescale each q to zero mean and unit variance over the training set.
"""

from dataclasses import dataclass

import numpy as np

from ..grid import check_q
from ..parameters import check, refuse_masked

_CURVES_AT_A_TIME = 8192  # bounds the float64 temporaries to about 100 MB for 500 q values

# A curve is outside the training domain if it leaves the training set's range by more than this
# share of the range's width ...
_RANGE_MARGIN = 0.1
# ... at more than this share of its q values. Single q values do so by noise alone.
_OUTSIDE_SHARE = 0.05


def porod_invariant(intensity, q):
    r"""Discrete Porod invariant, :math:`\tilde Q = \sum_i I(q_i)\, q_i^2\, \delta q`, Eq. (12).

    It approximates :math:`Q = \int_0^\infty I(q)\, q^2\, dq`, Eq. (11), by what the
    q range covers. For q values that are not equidistant, :math:`\delta q` is half
    the distance between a value's neighbours (at the ends, the distance to the only one).

    Parameters
    ----------
    intensity : (..., n_q) array_like
        Intensity :math:`I`, positive.
    q : (n_q,) array_like
        Scattering vector [nm\ :sup:`-1`], at least two values.

    Returns
    -------
    float or (...) ndarray of float64
        :math:`\tilde Q` [nm\ :sup:`-3`], one for each curve.

    Raises
    ------
    ValueError
        If an intensity is not positive and finite, q is not valid, or their shapes do not fit.
    """
    return _invariant(*_check_curves(intensity, q))


def normalise_intensity(intensity, q):
    r"""Divide each curve by its total intensity, :math:`I(q) / (4\pi\tilde Q)`, Eq. (12).

    Parameters and errors are those of `porod_invariant`.

    Returns
    -------
    (..., n_q) ndarray of float64
        Normalised intensity [nm\ :sup:`3`]; a prefactor of the intensity cancels.
    """
    return _normalised(intensity, q)


def window_edges(q, values=1, share=0.0):
    """Windows of neighbouring q values, as wide as so many values or that share of q, whichever is more.

    Averages over windows that grow with q are how measured curves are often binned: at high q, where a curve changes
    slowly and its noise is strongest, an average loses little and has less noise.

    Parameters
    ----------
    q : (n_q,) array_like
        Scattering vector [nm^-1].
    values : int
        Fewest values of a window.
    share : float
        Width of a window over the q at which it begins.

    Returns
    -------
    (n_window,) ndarray of int
        Where each window begins; it ends where the next one begins.

    Raises
    ------
    ValueError
        If q has fewer than `values` values, or an argument is out of range.
    """
    q = check_q(q)
    if not isinstance(values, int | np.integer) or not 1 <= values <= q.size or not 0 <= share < 1:
        raise ValueError(
            f"a window takes a whole number of the {q.size} q values and a share of q in [0, 1); "
            f"got {values!r} and {share!r}"
        )
    edges = [0]
    while True:
        end = max(edges[-1] + values, int(np.searchsorted(q, q[edges[-1]] * (1 + share))))
        if end + values > q.size:
            return np.array(edges)
        edges.append(end)


def average(values, edges):
    """Averages along the last axis, from each edge to the next."""
    return np.add.reduceat(values, edges, axis=-1) / np.diff(edges, append=values.shape[-1])


def log_intensity(intensity, q, edges=None):
    """Natural logarithm of the normalised intensity, the input before standardisation (section 2.4).

    Parameters and errors are those of `porod_invariant`, and

    edges : (n_feature,) array_like of int, optional
        From `window_edges`: the logarithms in each window are averaged into one input.

    Returns
    -------
    (..., n_feature) ndarray of float32
        With n_feature = n_q if there are no windows.

    Raises
    ------
    ValueError
        If the edges are not increasing indices of q, from 0.
    """
    intensity = _as_curves(intensity)
    curves = intensity.reshape(-1, intensity.shape[-1])
    n_q = curves.shape[1]
    edges = None if edges is None else _check_edges(edges, np.size(q))
    n_feature = n_q if edges is None else edges.size
    logs = np.empty((len(curves), n_feature), dtype=np.float32)
    for block in _blocks(curves):
        values = np.log(_normalised(curves[block], q, block.start))
        logs[block] = values if n_feature == n_q else average(values, edges)
    return logs.reshape(*intensity.shape[:-1], n_feature)


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """The rescaling fixed by a training set, and the domain that the set covers.

    Attributes
    ----------
    q : (n_q,) ndarray of float64
        Scattering vector [nm^-1] of the curves.
    edges : (n_feature,) ndarray of int
        Where each window of q values begins that is averaged into one input (`window_edges`).
    mean, scale : (n_feature,) ndarray of float64
        Mean and standard deviation of each input over the training set, before standardisation.
    lower, upper : (n_feature,) ndarray of float64
        Smallest and largest standardised input in the training set.
    """

    q: np.ndarray
    edges: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "q", check_q(self.q))
        object.__setattr__(self, "edges", _check_edges(self.edges, self.q.size))
        shape = self.edges.shape
        for name in ("mean", "scale", "lower", "upper"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape != shape or not np.isfinite(values).all():
                raise ValueError(f"{name} must hold one finite number for each of the {shape[0]} inputs")
            object.__setattr__(self, name, values)
        if not (self.scale > 0).all():
            there = self.q[self.edges[self.scale.argmin()]]
            raise ValueError(
                f"scale must be positive; got {self.scale.min():g} at q = {there:g} nm^-1 "
                "(a training set needs curves that differ at every q)"
            )

    @property
    def n_feature(self):
        """Number of inputs of the regression."""
        return self.mean.size

    @classmethod
    def fit(cls, intensity, q, edges=None):
        """Take mean, standard deviation and range from a training set of measured curves.

        Parameters
        ----------
        intensity : (n_sample, n_q) array_like
            Measured intensity, at least two curves.
        q : (n_q,) array_like
            Scattering vector [nm^-1].
        edges : (n_feature,) array_like of int, optional
            As in `log_intensity`.

        Returns
        -------
        Preprocessing

        Raises
        ------
        ValueError
            As `log_intensity`; or if there are fewer than two curves, or all are
            the same at some q.
        """
        intensity = _as_curves(intensity)
        if intensity.ndim != 2 or len(intensity) < 2:
            raise ValueError(f"a training set has shape (n_sample >= 2, n_q); got {intensity.shape}")
        return cls.from_logs(log_intensity(intensity, q, edges), q, edges)

    @classmethod
    def from_logs(cls, logs, q, edges=None):
        """As `fit`, from the (n_sample, n_feature) ndarray that `log_intensity` makes of the training set."""
        # Differences from the first curve keep the variance from cancelling; blocks bound the float64 temporaries.
        first = logs[0].astype(np.float64)
        total, squares = np.zeros_like(first), np.zeros_like(first)
        for block in _blocks(logs):
            differences = logs[block] - first
            total, squares = total + differences.sum(axis=0), squares + (differences**2).sum(axis=0)
        shift = total / len(logs)
        mean, scale = first + shift, np.sqrt(np.maximum(squares / len(logs) - shift**2, 0))
        lower, upper = logs.min(axis=0).astype(np.float64), logs.max(axis=0).astype(np.float64)
        scale[lower == upper] = 0  # exactly, so that __post_init__ refuses it
        safe = np.where(scale > 0, scale, 1)
        edges = np.arange(len(q)) if edges is None else edges
        return cls(q, edges, mean, scale, (lower - mean) / safe, (upper - mean) / safe)

    def transform(self, intensity):
        """Turn measured curves into inputs of the regression.

        Parameters
        ----------
        intensity : (..., n_q) array_like
            Measured intensity at this object's q values.

        Returns
        -------
        (..., n_feature) ndarray of float32
            Standardised log intensity.

        Raises
        ------
        ValueError
            As `porod_invariant`.
        """
        return self.standardise(log_intensity(intensity, self.q, self.edges))

    def standardise(self, logs):
        """Rescale what `log_intensity` returns, in place, and return it."""
        logs -= self.mean.astype(np.float32)
        logs /= self.scale.astype(np.float32)
        return logs

    def outside_domain(self, features):
        """Tell which curves do not look like the training set.

        A regression on trees cannot extrapolate, so a curve is called outside if
        more than 5 % of its inputs miss the training set's range, widened by a tenth
        of its width at either end. With 1000 two-phase training curves (a up to 8 nm)
        this finds none of 200 like them, 9 of 12 with a from 11 to 13 nm, and all of 12
        with 20 nm. It is a necessary condition only: a curve inside every range may
        still have a shape that no training curve has.

        Parameters
        ----------
        features : (..., n_q) ndarray of float32
            From `transform`.

        Returns
        -------
        (...) ndarray of bool
        """
        margin = _RANGE_MARGIN * (self.upper - self.lower)
        outside = (features < self.lower - margin) | (features > self.upper + margin)
        return outside.mean(axis=-1) > _OUTSIDE_SHARE

    def to_json(self):
        """Return a dict of lists that JSON can hold without loss."""
        return {name: np.asarray(getattr(self, name)).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, content):
        """Rebuild from the dict of `to_json`.

        Raises
        ------
        ValueError
            If a list is missing, or they do not belong together.
        """
        try:
            return cls(**{name: content[name] for name in cls.__dataclass_fields__})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a description of preprocessing: {error!r}") from None


def _check_edges(edges, n_q):
    """Edges of windows as an array of indices, the first of them 0."""
    edges = np.asarray(edges)
    if (
        edges.ndim != 1 or edges.size == 0 or edges.dtype.kind not in "iu"
        or edges[0] != 0 or edges[-1] >= n_q or (np.diff(edges) < 1).any()
    ):  # fmt: skip
        raise ValueError(f"edges must be increasing indices of the {n_q} q values, from 0; got {edges}")
    return edges.astype(np.intp)


def _blocks(curves):
    """Slices that bound the float64 temporaries; one at least, so that an empty set is checked too."""
    return [slice(start, start + _CURVES_AT_A_TIME) for start in range(0, max(len(curves), 1), _CURVES_AT_A_TIME)]


def _as_curves(intensity):
    refuse_masked("intensity", intensity)
    intensity = np.asarray(intensity)
    if intensity.ndim == 0:
        raise ValueError("intensity must have q as its last axis; got a single number")
    return np.ascontiguousarray(intensity)


def _check_curves(intensity, q, first=0):
    q = check_q(q)
    if q.size < 2:
        raise ValueError("the Porod invariant needs at least two q values; got one")
    intensity = check("intensity", intensity, any_unit=True, first=first)
    if intensity.ndim == 0 or intensity.shape[-1] != q.size:
        raise ValueError(f"intensity must have q ({q.size} values) as last axis; got shape {intensity.shape}")
    return intensity, q


def _invariant(intensity, q):
    return np.sum(intensity * (q**2 * np.gradient(q)), axis=-1)


def _normalised(intensity, q, first=0):
    intensity, q = _check_curves(intensity, q, first)
    return intensity / (4 * np.pi * _invariant(intensity, q))[..., np.newaxis]
