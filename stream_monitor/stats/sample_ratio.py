"""
Sample ratio mismatch: whether units arrive in the arms as the weights say, looked at at any time.

Rule of the file: counts are of units seen for the first time, never of events, because the events
of a unit come together. A mismatch means that assignment or logging is broken, and then no other
number of the experiment can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CONCENTRATION = 100.0
"""
Concentration of the Dirichlet distribution around the weights; it finds 50→52 % as well as 50→55 %.
"""


def log_evidence_of_mismatch(
    counts: Sequence[float], weights: Sequence[float], concentration: float = CONCENTRATION
) -> float:
    """
    Logarithm of the evidence that units do not follow the weights.

    Parameters
    ----------
    counts : (arms,) int
        Units that were first seen in each arm.
    weights : (arms,) float
        Declared weights, on any scale.
    concentration : float

    Returns
    -------
    float
        It exceeds log(1/alpha) at any look with a chance of at most alpha if units follow the
        weights; this is exact from the first unit on. It is infinite if an arm of weight 0 has
        units. After a change of weights the evidence of new units is added to what was found before
        it.

    Raises
    ------
    ValueError
        Lengths differ; a count or weight is negative or no number; all weights are 0.

    References
    ----------
    M. Lindon, A. Malek, Anytime-valid inference for multinomial count data, NeurIPS 2022.

    Examples
    --------
    >>> round(log_evidence_of_mismatch([5_000, 5_000], [50, 50]), 2)
    -2.31
    >>> round(log_evidence_of_mismatch([4_700, 5_300], [50, 50]), 2)
    15.52
    >>> log_evidence_of_mismatch([10, 10, 1], [50, 50, 0])
    inf
    """
    if len(counts) != len(weights):
        raise ValueError(f"{len(counts)} counts, but {len(weights)} weights")
    for name, values in (("counts", counts), ("weights", weights)):
        if not all(0 <= v < math.inf for v in values):
            raise ValueError(f"{name}: expected numbers from 0 on, got {list(values)}")
    total = math.fsum(weights)
    if not total > 0:
        raise ValueError(f"weights: expected one above 0, got {list(weights)}")
    n, c, log_gamma = math.fsum(counts), concentration, math.lgamma
    found = log_gamma(c) - log_gamma(c + n)
    for count, weight in zip(counts, weights, strict=True):
        share = weight / total
        if share > 0:
            found += log_gamma(c * share + count) - log_gamma(c * share) - count * math.log(share)
        elif count:
            return math.inf
    return found
