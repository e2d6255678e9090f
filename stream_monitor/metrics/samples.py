"""
The values of state at one moment, before they are formatted.

Rule of the file: values only. A sample names its family in `catalogue.CATALOGUE` (or a custom one)
and gives its label values in the order of that family's labels. An undefined value gives no sample;
a value is never None and never NaN.
"""

from __future__ import annotations

from typing import NamedTuple


class Sample(NamedTuple):
    """
    One value of a counter, of a gauge, or of one quantile of a summary (then `quantile` is among
    the labels of the family).
    """

    name: str
    labels: tuple[str, ...]
    value: float


class HistogramSample(NamedTuple):
    """
    One series of a histogram.

    `counts` are per bucket, not cumulative. The last one is the bucket up to +Inf, so there is one
    more than there are edges. `edges` are the upper bounds if they differ by series
    (`model_feature_values`); empty means the `buckets` of the family.
    """

    name: str
    labels: tuple[str, ...]
    counts: tuple[float, ...]
    sum: float
    edges: tuple[float, ...] = ()


class SummarySample(NamedTuple):
    """
    One series of a custom summary: pairs of quantile and value, and the totals.

    Its labels do not contain `quantile`.
    """

    name: str
    labels: tuple[str, ...]
    quantiles: tuple[tuple[float, float], ...]
    observations: float
    sum: float


AnySample = Sample | HistogramSample | SummarySample
