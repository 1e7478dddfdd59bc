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


def log_intensity(intensity, q, out=None):
    """Natural logarithm of the normalised intensity, the input before standardisation (section 2.4).

    Parameters and errors are those of `porod_invariant`, and

    out : (..., n_q) ndarray of float32, optional
        Where to write the result; it may be the intensity itself.

    Returns
    -------
    (..., n_q) ndarray of float32
    """
    intensity = _as_curves(intensity)
    result = np.empty(intensity.shape, dtype=np.float32) if out is None else out
    curves, logs = intensity.reshape(-1, intensity.shape[-1]), result.reshape(-1, intensity.shape[-1])
    for block in _blocks(curves):
        logs[block] = np.log(_normalised(curves[block], q, block.start))
    return result


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """The rescaling fixed by a training set, and the domain that the set covers.

    Attributes
    ----------
    q : (n_q,) ndarray of float64
        Scattering vector [nm^-1] of the curves.
    mean, scale : (n_q,) ndarray of float64
        Mean and standard deviation of the log intensity over the training set.
    lower, upper : (n_q,) ndarray of float64
        Smallest and largest standardised input in the training set.
    """

    q: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "q", check_q(self.q))
        for name in ("mean", "scale", "lower", "upper"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape != self.q.shape or not np.isfinite(values).all():
                raise ValueError(f"{name} must hold one finite number for each of the {self.q.size} q values")
            object.__setattr__(self, name, values)
        if not (self.scale > 0).all():
            raise ValueError(
                f"scale must be positive; got {self.scale.min():g} at q = {self.q[self.scale.argmin()]:g} "
                "nm^-1 (a training set needs curves that differ at every q)"
            )

    @classmethod
    def fit(cls, intensity, q):
        """Take mean, standard deviation and range from a training set of measured curves.

        Parameters
        ----------
        intensity : (n_sample, n_q) array_like
            Measured intensity, at least two curves.
        q : (n_q,) array_like
            Scattering vector [nm^-1].

        Returns
        -------
        Preprocessing

        Raises
        ------
        ValueError
            As `porod_invariant`; or if there are fewer than two curves, or all are
            the same at some q.
        """
        intensity = _as_curves(intensity)
        if intensity.ndim != 2 or len(intensity) < 2:
            raise ValueError(f"a training set has shape (n_sample >= 2, n_q); got {intensity.shape}")
        # One pass and no copy of the set. Differences from the first curve keep the variance from cancelling.
        first = log_intensity(intensity[0], q).astype(np.float64)
        total, squares, lower, upper = np.zeros_like(first), np.zeros_like(first), first, first
        for block in _blocks(intensity):
            logs = log_intensity(intensity[block], q) - first
            total, squares = total + logs.sum(axis=0), squares + (logs**2).sum(axis=0)
            lower, upper = np.minimum(lower, logs.min(axis=0) + first), np.maximum(upper, logs.max(axis=0) + first)
        shift = total / len(intensity)
        mean, scale = first + shift, np.sqrt(np.maximum(squares / len(intensity) - shift**2, 0))
        scale[lower == upper] = 0  # exactly, for __post_init__ to refuse
        safe = np.where(scale > 0, scale, 1)
        return cls(q, mean, scale, (lower - mean) / safe, (upper - mean) / safe)

    def transform(self, intensity, out=None):
        """Turn measured curves into inputs of the regression.

        Parameters
        ----------
        intensity : (..., n_q) array_like
            Measured intensity at this object's q values.
        out : (..., n_q) ndarray of float32, optional
            Where to write the result; it may be the intensity itself.

        Returns
        -------
        (..., n_q) ndarray of float32
            Standardised log intensity.

        Raises
        ------
        ValueError
            As `porod_invariant`.
        """
        features = log_intensity(intensity, self.q, out)
        features -= self.mean.astype(np.float32)
        features /= self.scale.astype(np.float32)
        return features

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
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, content):
        """Rebuild from the dict of `to_json`.

        Raises
        ------
        ValueError
            If a list is missing, or they do not belong together.
        """
        try:
            return cls(*(np.asarray(content[name], dtype=np.float64) for name in cls.__dataclass_fields__))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a description of preprocessing: {error!r}") from None


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
