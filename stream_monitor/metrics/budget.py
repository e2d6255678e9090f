"""
Chooses the series that are left out if there are more than `limits.series`.

Rule of the file: fair first, then least needed. Models below their fair share keep everything. A
model above it loses whole families, details by feature before all others. So a flood of features or
versions of one model never takes a series from another model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from stream_monitor.metrics.metric import Metric


def fair_share(totals: Mapping[str, int], limit: int) -> float:
    """
    Largest share at which the sum of `min(total, share)` stays within the limit.

    Parameters
    ----------
    totals : mapping of str to int, series
        Series of each model.
    limit : int, series
        Greatest number of series of all models together.

    Returns
    -------
    float, series
        Infinity if everything fits.

    Examples
    --------
    >>> fair_share({"a": 10, "b": 100, "c": 100}, 110)
    50.0
    >>> fair_share({"a": 10}, 110)
    inf
    """
    left = float(max(limit, 0))
    for rank, total in enumerate(sorted(totals.values())):
        share = left / (len(totals) - rank)
        if total > share:
            return share
        left -= total
    return float("inf")


def drop_order(families: Mapping[str, Metric]) -> list[str]:
    """
    Names of families in the order in which they are dropped.

    Histograms by feature, other detail by feature, detail by segment and custom metrics, other
    histograms, the rest. Within each group the last of the catalogue is dropped first.
    """

    def tier(metric: Metric) -> int:
        if "feature" in metric.labels:
            return 0 if metric.type == "histogram" else 1
        if "segment" in metric.labels or metric.name.startswith("model_custom_"):
            return 2
        return 3 if metric.type == "histogram" else 4

    position = {name: place for place, name in enumerate(families)}
    return sorted(families, key=lambda name: (tier(families[name]), -position[name]))


def left_out(
    counts: Mapping[tuple[str, str], int], families: Mapping[str, Metric], limit: int
) -> set[tuple[str, str]]:
    """
    Pairs of model and family that do not fit.

    Parameters
    ----------
    counts : mapping of (model, family) to series
        The model is empty for families of the process, which are never left out.
    families : mapping of name to metric
        In the order of the catalogue.
    limit : int, series
        Greatest number of series of the process and all models together.

    Returns
    -------
    set of (model, family)

    Notes
    -----
    O(models · families), and only one sum if everything fits.
    """
    if sum(counts.values()) <= limit:
        return set()
    totals: dict[str, int] = defaultdict(int)
    reserved = 0
    for (model, _), series in counts.items():
        if model:
            totals[model] += series
        else:
            reserved += series
    share = fair_share(totals, limit - reserved)
    order = drop_order(families)
    dropped: set[tuple[str, str]] = set()
    for model, total in totals.items():
        left = total
        for name in order:
            if left <= share:
                break
            if series := counts.get((model, name), 0):
                dropped.add((model, name))
                left -= series
    return dropped
