"""
One family of series: its name, type, labels and meaning.

Rule of the file: it describes a family and the names of its series. It does not know which families
exist.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

MetricType = Literal["counter", "gauge", "histogram", "summary"]

SUFFIXES: dict[MetricType, tuple[str, ...]] = {
    "counter": ("_total", "_created"),
    "gauge": (),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "summary": ("_sum", "_count", "_created"),
}
"""Suffixes of the series of a family, besides its own name."""


class Metric(Struct, frozen=True):
    """One family of series."""

    name: str
    type: MetricType
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram without +Inf; empty if every series has bounds of its own."""


def series_names(metric: Metric) -> frozenset[str]:
    """
    Every name that a series of a family may have, and the name of the family itself.

    Examples
    --------
    >>> sorted(series_names(Metric("shop_orders_total", "counter", (), "Orders.")))
    ['shop_orders', 'shop_orders_created', 'shop_orders_total']
    """
    base = metric.name.removesuffix("_total") if metric.type == "counter" else metric.name
    return frozenset({metric.name, base, *(base + suffix for suffix in SUFFIXES[metric.type])})
