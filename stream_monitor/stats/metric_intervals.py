"""
Intervals of performance metrics that are looked at all the time, so that a threshold is judged by
what is certain.

Rule of the file: every interval is of one window and holds at one look with the chance that
`CERTAINTY` gives. It is so wide that a window that is looked at after every row still leaves the
truth outside once in many windows only (`bench/thresholds.py` measures how many). A metric that is
a share uses the bound of Chernoff and Hoeffding, which holds for any number of rows: the normal
interval, and Wilson's, are too narrow where errors are rare.
"""

from __future__ import annotations

import math

import numpy as np

from stream_monitor.arrays import Float

Interval = tuple[float, float]
"""The lower and the upper end."""
Z = 3.5
"""Normal quantile of the intervals of means."""
CERTAINTY = Z * Z / 2
"""
Nats of evidence against a value outside: with a chance of at most exp(-6.1), one in 457, the true
share is beyond one given end.
"""
STEPS_MAX = 60


def share_interval(share: float, rows: float) -> Interval:
    """
    Interval of a mean of values between 0 and 1, for example of a share.

    Parameters
    ----------
    share : float, ratio
    rows : float
        Independent rows, or effective ones.

    Returns
    -------
    lower, upper : float, ratio
        (0, 1) without rows.

    Notes
    -----
    The ends are the values q with rows · KL(share, q) = `CERTAINTY`, by Newton's method. For every
    law on [0, 1] the mean is beyond one end with a chance of at most exp(-`CERTAINTY`).

    References
    ----------
    W. Hoeffding, Probability inequalities for sums of bounded random variables, JASA 58 (1963),
    theorem 1.

    Examples
    --------
    >>> [round(end, 3) for end in share_interval(0.8, 1_000)]
    [0.753, 0.842]
    >>> [round(end, 4) for end in share_interval(0.0, 1_000)]
    [0.0, 0.0061]
    """
    if not rows > 0:
        return 0.0, 1.0
    share = min(max(share, 0.0), 1.0)
    limit = CERTAINTY / rows
    return 1 - _upper(1 - share, limit), _upper(share, limit)


def _upper(share: float, limit: float) -> float:
    """The greatest q with KL(share, q) <= limit."""
    if share >= 1:
        return 1.0
    if share <= 0:
        return -math.expm1(-limit)
    low, high = share, 1.0
    q = min(share + math.sqrt(2 * limit * share * (1 - share)) + limit, (share + 1) / 2)
    for _ in range(STEPS_MAX):
        if q >= 1:
            return 1.0
        over = share * math.log(share / q) + (1 - share) * math.log((1 - share) / (1 - q)) - limit
        low, high = (low, q) if over > 0 else (q, high)
        step = q - over * q * (1 - q) / (q - share)
        if not low < step < high:
            step = (low + high) / 2
        if abs(step - q) <= 1e-12 * (1 - share):
            return step
        q = step
    return q


def f1_interval(hits: float, predicted: float, actual: float) -> Interval:
    """
    Interval of F1 of one class.

    Parameters
    ----------
    hits, predicted, actual : float, events
        True positives, positive answers and positive labels.

    Notes
    -----
    F1 is 2j/(1 + j) of the share j of true positives among rows that are positive by answer or
    label. So its interval is that of a share.

    Examples
    --------
    >>> [round(end, 3) for end in f1_interval(400, 500, 500)]
    [0.748, 0.845]
    """
    either = predicted + actual - hits
    low, high = share_interval(hits / either if either else 0.0, either)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def weighted_intervals(hits: Float, predicted: Float, actual: Float) -> dict[str, Interval]:
    """
    Intervals of precision, recall and F1 that are averages over classes, weighted by their labels.

    Parameters
    ----------
    hits, predicted, actual : (classes,) float64, events

    Notes
    -----
    Weighted recall is the accuracy. For the others the delta method gives a variance that is too
    great rather than too small: a wrong row concerns two classes, so the sum over classes is
    doubled, and the weights' own error is added as if it were in step with it. One more right and
    one more wrong row of each class keep the variance above 0. The interval is that of a share with
    as many rows as give this variance.

    Examples
    --------
    >>> table = np.array([80.0, 90.0]), np.array([90.0, 110.0]), np.array([100.0, 100.0])
    >>> {name: [round(end, 2) for end in ends] for name, ends in weighted_intervals(*table).items()}
    {'precision': [0.69, 0.95], 'recall': [0.75, 0.92], 'f1': [0.74, 0.93]}
    """
    total = float(actual.sum())
    if not total:
        return {}
    weight, either = actual / total, predicted + actual
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(predicted > 0, hits / predicted, 0.0)
        f1 = np.where(either > 0, 2 * hits / either, 0.0)
        near = (hits + 1) / (predicted + 2)
        of_precision = np.where(predicted > 0, near * (1 - near) / predicted, 0.0)
        right, wrong = hits + 1, either - 2 * hits + 1
        of_f1 = 4 * right * wrong * (right + wrong) / (2 * right + wrong) ** 4
    found = {}
    for name, value, variance in (
        ("precision", precision, of_precision),
        ("f1", f1, of_f1),
    ):
        mean = float(weight @ value)
        spread = max(float(weight @ (value * value)) - mean * mean, 0.0) / total
        deviation = math.sqrt(2 * float(weight * weight @ variance)) + math.sqrt(spread)
        found[name] = _of_variance(mean, deviation**2, total)
    recall = share_interval(float(hits.sum()) / total, total)
    return {"precision": found["precision"], "recall": recall, "f1": found["f1"]}


def macro_intervals(hits: Float, predicted: Float, actual: Float) -> dict[str, Interval]:
    """
    Intervals of precision, recall and F1 that are plain averages over the classes that occur.

    Parameters
    ----------
    hits, predicted, actual : (classes,) float64, events

    Notes
    -----
    The delta method, as in `weighted_intervals`; the weights are known, so only the rows of each
    class vary. A class with few rows makes the interval wide.

    Examples
    --------
    >>> table = np.array([80.0, 90.0]), np.array([90.0, 110.0]), np.array([100.0, 100.0])
    >>> {name: [round(end, 2) for end in ends] for name, ends in macro_intervals(*table).items()}
    {'precision': [0.7, 0.95], 'recall': [0.7, 0.95], 'f1': [0.75, 0.92]}
    """
    there = predicted + actual > 0
    hits, predicted, actual = hits[there], predicted[there], actual[there]
    if not actual.sum():
        return {}
    found = {}
    for name, above, below in (
        ("precision", hits, predicted),
        ("recall", hits, actual),
        ("f1", 2 * hits, predicted + actual),
    ):
        rows = np.maximum(below, 1.0)
        mean = float(np.mean(above / rows))
        near = (above + 1) / (rows + 2)
        variance = 2 * float(np.sum(near * (1 - near) / rows)) / len(hits) ** 2
        found[name] = _of_variance(mean, variance, float(actual.sum()))
    return found


def auc_interval(negatives: Float, positives: Float) -> Interval | None:
    """
    Interval of the area under the ROC curve, from counts by distinct score or by bins of scores.

    Parameters
    ----------
    negatives, positives : (scores,) float64, events
        In ascending order of the score.

    Returns
    -------
    lower, upper : float, or None
        None if only one class is there. O(scores).

    Notes
    -----
    DeLong's variance. Where all pairs are in order it is 0, and the greatest possible variance,
    A(1 − A)/min(n₀, n₁), takes its place. The interval is that of a share with this variance.

    References
    ----------
    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Comparing the areas under two or more
    correlated receiver operating characteristic curves, Biometrics 44 (1988). Z. W. Birnbaum,
    O. M. Klose, Bounds for the variance of the Mann-Whitney statistic, Annals of Mathematical
    Statistics 28 (1957).

    Examples
    --------
    >>> low, high = auc_interval(np.array([300.0, 200.0, 0.0]), np.array([0.0, 200.0, 300.0]))
    >>> round(low, 3), round(high, 3)
    (0.896, 0.94)
    """
    n, m = float(negatives.sum()), float(positives.sum())
    if not n or not m:
        return None
    of_positive = (np.cumsum(negatives) - negatives / 2) / n
    of_negative = 1 - (np.cumsum(positives) - positives / 2) / m
    area = float(positives @ of_positive) / m
    variance = 0.0
    for weight, value, rows in ((positives, of_positive, m), (negatives, of_negative, n)):
        spread = float(weight @ (value - area) ** 2) / rows
        variance += spread / max(rows - 1, 1)
    return _of_variance(area, variance, min(n, m))


def mean_interval(mean: float, variance: float, rows: float) -> Interval:
    """
    Interval of a mean without bounds, by the variance of the rows (central limit theorem).

    Examples
    --------
    >>> mean_interval(3.0, 4.0, 100)
    (2.3, 3.7)
    """
    if not rows > 1 or not math.isfinite(variance):
        return -math.inf, math.inf
    half = Z * math.sqrt(max(variance, 0.0) / rows)
    return mean - half, mean + half


def calibration_interval(counts: Float, error: float, outcomes: Float) -> Interval:
    """
    Interval of the expected calibration error.

    Parameters
    ----------
    counts, outcomes : (bins,) float64
        Rows and positive outcomes of each bin.
    error : float, ratio
        The measured error.

    Notes
    -----
    The measured error is too great, because chance moves every bin away from its score. So the
    lower end leaves out what chance gives on average in each bin.

    Examples
    --------
    A calibrated score of two bins with 100 rows each, where chance alone gave 0.05:

    >>> low, high = calibration_interval(np.array([100.0, 100.0]), 0.05, np.array([20.0, 80.0]))
    >>> low, round(high, 2)
    (0.0, 0.15)
    """
    total = float(counts.sum())
    share = (outcomes + 1) / (counts + 2)
    variance = counts * share * (1 - share) / (total * total)
    half = Z * math.sqrt(float(variance.sum()))
    return max(error - float(np.sqrt(variance).sum()) - half, 0.0), min(error + half, 1.0)


def _of_variance(share: float, variance: float, least: float) -> Interval:
    """
    The interval of a share with this variance of the estimate; without a variance, of so many rows.
    """
    rows = share * (1 - share) / variance if variance > 0 else 0.0
    return share_interval(share, rows or least)
