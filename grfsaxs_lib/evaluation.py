"""How far predictions are from the truth: error measures, their uncertainty, Table 2.

Arrays are (n_sample,); `predicted` comes first, `true` second. This module imports nothing of the package.
"""

import numpy as np

SPLITS = ("train", "validation", "test")  # columns of Table 2, named as in the data sets

HAD_A_PART = slice(0, 1024)
"""Test structures of the reference curves that had a part in a choice of method or settings."""

HEADLINE = slice(1024, 2048)
"""Test structures that had no part in any choice: errors that are compared with the paper's are of these."""


def mse(predicted, true):
    r"""Mean squared error, :math:`\langle (\hat y - y)^2 \rangle`, Eq. (13).

    Parameters
    ----------
    predicted : (n_sample,) array_like
        Predicted values :math:`\hat y`.
    true : (n_sample,) array_like
        Target values :math:`y`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the arrays are empty, differ in shape or hold numbers that are not finite.
    """
    predicted, true = _check_pair(predicted, true)
    return float(np.mean((predicted - true) ** 2))


def mape(predicted, true):
    r"""Mean absolute percentage error, :math:`100\,\langle |(\hat y - y)/y| \rangle` [%], Eq. (14).

    Parameters, result and errors are those of `mse`; a target of zero raises an error, too.
    """
    predicted, true = _check_pair(predicted, true)
    if (true == 0).any():
        raise ValueError("MAPE is not defined for a target of 0")
    return float(100 * np.mean(np.abs((predicted - true) / true)))


def bias(predicted, true):
    r"""Mean error, :math:`\langle \hat y - y \rangle`; parameters, result and errors as `mse`."""
    predicted, true = _check_pair(predicted, true)
    return float(np.mean(predicted - true))


def standard_error(values):
    r"""Standard error of a mean, :math:`s/\sqrt{n}` with the sample deviation :math:`s`; NaN for n < 2."""
    values = np.asarray(values, dtype=np.float64)
    if values.size < 2:
        return float("nan")
    return float(values.std(ddof=1) / np.sqrt(values.size))


def compare_curves(curve, true):
    """Differences between a reconstructed curve and the true one, at high q and at low q: figure 7.

    Parameters
    ----------
    curve, true : (n_q,) array_like
        Clean intensities at evenly spaced q.

    Returns
    -------
    dict of str to float
        ``"high_q_difference"``, the median relative difference in the upper half of q; ``"low_q_rms"`` and
        ``"high_q_rms"``, the rms differences of the logarithms in the lowest and the highest tenth;
        ``"low_over_high_q"``, the ratio of these.

    Raises
    ------
    ValueError
        If the curves differ in shape, have fewer than ten values, or hold one that is not positive and finite.
    """
    curve, true = _check_pair(curve, true)
    if true.size < 10 or min(curve.min(), true.min()) <= 0:
        raise ValueError("curves must have ten positive values or more")
    logarithm, n_q = np.log(curve / true), len(true)
    low, high = (float(np.sqrt(np.mean(part**2))) for part in (logarithm[: n_q // 10], logarithm[-(n_q // 10) :]))
    difference = float(np.median(np.abs(np.expm1(logarithm[n_q // 2 :]))))
    return {"high_q_difference": difference, "low_q_rms": low, "high_q_rms": high, "low_over_high_q": low / high}


def least_mape(draws):
    r"""Smallest mean absolute percentage error that posteriors allow.

    The estimate that minimises :math:`\mathbb{E}\,|\hat y / y - 1|` is the median of y under weights 1/y.

    Parameters
    ----------
    draws : (n_sample, n_draw) array_like
        Positive draws y of a parameter from the posterior of each sample.

    Returns
    -------
    (n_sample,) ndarray of float64
        Mean of :math:`100\,|\hat y / y - 1|` over the draws [%].
    """
    draws = np.sort(np.asarray(draws, dtype=np.float64), axis=1)
    shares = np.cumsum(1 / draws, axis=1)
    middle = np.argmax(shares >= shares[:, -1:] / 2, axis=1)
    estimates = np.take_along_axis(draws, middle[:, np.newaxis], axis=1)
    return 100 * np.abs(estimates / draws - 1).mean(axis=1)


def contained(draws, true, levels):
    r"""Whether central intervals of draws contain the true values.

    The ends are quantiles after Weibull, :math:`k/(n + 1)` for the k-th of n draws: such an interval contains another
    draw from the same distribution with the probability that it states.

    Parameters
    ----------
    draws : (n_sample, n_draw) array_like
    true : (n_sample,) array_like
    levels : (n_level,) array_like
        Stated probabilities, in (0, 1).

    Returns
    -------
    (n_level, n_sample) ndarray of bool
    """
    ends = np.multiply.outer([-1, 1], levels) / 2 + 0.5
    low, high = np.quantile(draws, ends, axis=1, method="weibull")
    return (low <= true) & (true <= high)


def error_over_stated(draws, true):
    r"""Root mean square of :math:`(\langle y_k \rangle - y) / s(y_k)`: 1 if draws state the errors of their means.

    Parameters
    ----------
    draws : (n_sample, n_draw) ndarray
        Draws :math:`y_k`, with the standard deviation s.
    true : (n_sample,) ndarray

    Returns
    -------
    float
    """
    return float(np.sqrt(np.mean(((draws.mean(axis=1) - true) / draws.std(axis=1)) ** 2)))


def tarp_shares(draws, true, limits, *, seed):
    """Share of draws that are closer to a random point than the truth: a test of all parameters together (TARP).

    The shares are uniform where draws come from the true posterior (Lemos et al. 2023, arXiv:2302.03026).

    Parameters
    ----------
    draws, true : dict of str to (n_sample, n_draw) and (n_sample,) ndarray
        For each parameter.
    limits : dict of str to (float, float)
        Ranges, in which the points are uniform; their widths are the units of distance.
    seed : int

    Returns
    -------
    (n_sample,) ndarray of float64
    """
    low, high = np.transpose([limits[name] for name in true])
    truth, drawn = (np.stack([values[name] for name in true], axis=-1) for values in (true, draws))
    points = np.random.default_rng(seed).uniform(low, high, truth.shape)
    distances = np.linalg.norm((truth - points) / (high - low), axis=-1)
    drawn_distances = np.linalg.norm((drawn - points[:, np.newaxis]) / (high - low), axis=-1)
    return np.mean(drawn_distances < distances[:, np.newaxis], axis=1)


def edge_bias(predicted, true, limits, share=0.1):
    """Bias near both ends of the range of true values (section 2.4).

    Parameters
    ----------
    predicted, true : (n_sample,) array_like
        Predicted and target values.
    limits : (float, float)
        The range of the parameter, as in ``case.ranges``.
    share : float
        Share of the range that counts as an end, in (0, 0.5].

    Returns
    -------
    dict
        ``lower`` and ``upper``, the bias at either end; ``lower_error`` and
        ``upper_error``, their standard errors. NaN where there are too few samples.

    Raises
    ------
    ValueError
        As `mse`; or if the limits are not increasing or the share not in (0, 0.5].
    """
    predicted, true = _check_pair(predicted, true)
    low, high = limits
    if not low < high:
        raise ValueError(f"limits must be increasing; got {limits!r}")
    if not 0 < share <= 0.5:
        raise ValueError(f"share must lie in (0, 0.5]; got {share!r}")
    width = share * (high - low)
    result = {}
    for end, inside in (("lower", true <= low + width), ("upper", true >= high - width)):
        errors = (predicted - true)[inside]
        result[end] = float(errors.mean()) if errors.size else float("nan")
        result[f"{end}_error"] = standard_error(errors)
    return result


def binned(statistic, predicted, true, edges):
    """Apply an error measure to each bin of true values.

    Parameters
    ----------
    statistic : callable
        A function of (predicted, true), such as `mape`.
    predicted, true : (n_sample,) array_like
        Predicted and target values.
    edges : (n_bin + 1,) array_like
        Increasing bin edges; a bin includes its lower edge, the last one both.

    Returns
    -------
    (n_bin,) ndarray of float64
        NaN in an empty bin.
    """
    predicted, true = _check_pair(predicted, true)
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or edges.size < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(f"edges must be at least two increasing numbers; got {edges!r}")
    bins = np.digitize(true, edges) - 1
    bins[true == edges[-1]] -= 1
    members = (bins == i for i in range(edges.size - 1))
    return np.array([statistic(predicted[m], true[m]) if m.any() else np.nan for m in members])


def bootstrap_interval(statistic, predicted, true, *, level=0.95, n_resample=1000, seed):
    """Percentile bootstrap interval of an error measure over samples.

    Parameters
    ----------
    statistic : callable
        A function of (predicted, true), such as `mape`.
    predicted, true : (n_sample,) array_like
        Predicted and target values; pairs are drawn together, with replacement.
    level : float
        Nominal coverage, in (0, 1).
    n_resample : int
        Number of resamples.
    seed : int
        Seed of the resampling.

    Returns
    -------
    (float, float)
        Lower and upper end.

    Raises
    ------
    ValueError
        As `mse` and `resampled_intervals`.
    """
    pair = np.column_stack(_check_pair(predicted, true))
    return resampled_intervals(
        lambda drawn: {"it": statistic(*drawn["pair"].T)}, {"pair": pair}, level=level, n_resample=n_resample, seed=seed
    )["it"]


def resampled_intervals(statistics, samples, *, level=0.95, n_resample=1000, seed):
    """Percentile bootstrap intervals of numbers that are computed together from one or more samples.

    An interval always contains the statistic of the samples themselves. Resamples in which a statistic is not
    defined count as if it lay beyond both ends, so that the interval reaches to infinity where there are many of them.

    Parameters
    ----------
    statistics : callable
        A function of a dict like `samples` that returns a dict of numbers.
    samples : dict of (n_sample, ...) array_like
        The rows of each are drawn with replacement, independently of those of the others; what belongs
        together, such as the errors of two methods on the same curves, goes into one array.
    level : float
        Nominal coverage, in (0, 1).
    n_resample : int
        Number of resamples.
    seed : int
        Seed of the resampling.

    Returns
    -------
    dict of (float, float)
        Lower and upper end of each number.

    Raises
    ------
    ValueError
        If a sample is empty, a statistic of the samples themselves is not finite, or the level is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1); got {level!r}")
    samples = {name: np.asarray(rows) for name, rows in samples.items()}
    if any(len(rows) == 0 for rows in samples.values()):
        raise ValueError("samples must not be empty")
    own = {name: float(value) for name, value in statistics(samples).items()}
    if not np.isfinite(list(own.values())).all():
        raise ValueError(f"the statistics of the samples themselves must be finite; got {own}")
    rng = np.random.default_rng(seed)
    values = {name: np.empty(n_resample) for name in own}
    for i in range(n_resample):
        drawn = {name: rows[rng.integers(len(rows), size=len(rows))] for name, rows in samples.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, value in statistics(drawn).items():
                values[name][i] = value
    outside = (1 - level) / 2
    ends = {}
    for name, drawn in values.items():
        # What is not defined could be anything; interpolation between infinite values would not be defined either.
        low = np.quantile(np.where(np.isnan(drawn), -np.inf, drawn), outside, method="lower")
        high = np.quantile(np.where(np.isnan(drawn), np.inf, drawn), 1 - outside, method="higher")
        ends[name] = float(min(low, own[name])), float(max(high, own[name]))
    return ends


def error_table(predictions):
    """MSE and MAPE of every output and split, in the layout of Table 2.

    Parameters
    ----------
    predictions : dict
        ``predictions[case][split] = (predicted, true)``, where case is a name, split
        one of `SPLITS`, and both values map the name of an output to (n_sample,) arrays.
        The table shows the outputs of ``predicted``.

    Returns
    -------
    pandas.DataFrame
        Indexed by (case, parameter, error), one column for each split; NaN where a split is absent.

    Raises
    ------
    ValueError
        As `mse` and `mape`; or for an unknown split.
    """
    import pandas as pd

    table = {}
    for case, splits in predictions.items():
        for split, (predicted, true) in splits.items():
            if split not in SPLITS:
                raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
            for output in predicted:
                for error, statistic in (("MSE", mse), ("MAPE", mape)):
                    row = table.setdefault((case, output, error), dict.fromkeys(SPLITS, np.nan))
                    row[split] = statistic(predicted[output], true[output])
    index = pd.MultiIndex.from_tuples(table, names=("case", "parameter", "error"))
    return pd.DataFrame(list(table.values()), index=index, columns=list(SPLITS))


def _check_pair(predicted, true):
    predicted, true = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if predicted.ndim != 1 or predicted.shape != true.shape or true.size == 0:
        raise ValueError(
            "predicted and true must be one-dimensional, of one length and not empty; "
            f"got shapes {predicted.shape} and {true.shape}"
        )
    if not (np.isfinite(predicted).all() and np.isfinite(true).all()):
        raise ValueError("predicted and true must hold finite numbers only")
    return predicted, true
