"""
All metrics: those of every worker (`built_in.py`), of a controller (`of_the_loop.py`), of an
archive (`of_the_archive.py`), and those that users define.

Rule of the file: a metric that is not here does not exist. The exporter, the dashboards, the
alerting rules and `docs/metrics.md` read only the catalogue.

`model_*` metrics are computed from the log: `model` and `version` are their first labels, of
experiments `model` and `experiment`, and each series comes from one worker. `stream_monitor_*`
metrics belong to the process; if several partitions report the same series, their values are added.
Two gauges have a label `quantile`. Their type is `summary`, because Prometheus reserves that label
for summaries (`promtool check metrics`), but they have no `_sum` and `_count`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from math import isfinite

from stream_monitor.errors import ConfigError
from stream_monitor.metrics.built_in import OF_MODELS, OF_THE_PROCESS
from stream_monitor.metrics.metric import Metric, series_names
from stream_monitor.metrics.of_the_archive import OF_THE_ARCHIVE
from stream_monitor.metrics.of_the_loop import OF_THE_LOOP
from stream_monitor.settings import CoreSettings, CustomMetric

RESERVED_LABELS = frozenset({"model", "version", "le", "quantile", "job", "instance", "group"})
CUSTOM_PREFIX = "model_custom_"
PSEUDO_FEATURES = (
    "__prediction__",
    "__score__",
    "__error__",
    "__calibration__",
    "__latency__",
)


CATALOGUE: dict[str, Metric] = {
    metric.name: metric for metric in (*OF_MODELS, *OF_THE_PROCESS, *OF_THE_LOOP, *OF_THE_ARCHIVE)
}
"""Every metric by name, in the order of export."""


def custom_metric(name: str, settings: CustomMetric) -> Metric:
    """
    The family of one metric that a user defined: `model_custom_NAME`, with the labels model,
    version and the configured segments.

    A counter gets `_total` at its end if the name lacks it. Characters of a segment's name that a
    label must not contain become `_`.

    Examples
    --------
    >>> custom_metric(
    ...     "basket_value", CustomMetric(type="gauge", field="features.basket", labels=("country",))
    ... ).labels
    ('model', 'version', 'country')
    >>> custom_metric("refusals", CustomMetric(type="counter", field="prediction")).name
    'model_custom_refusals_total'
    """
    full = CUSTOM_PREFIX + name
    if settings.type == "counter" and not full.endswith("_total"):
        full += "_total"
    labels = (
        "model",
        "version",
        *(re.sub(r"^(?=\d)|[^a-zA-Z0-9_]", "_", label) for label in settings.labels),
    )
    buckets = tuple(sorted(settings.buckets)) if settings.type == "histogram" else ()
    return Metric(
        full,
        settings.type,
        labels,
        settings.help or f"{settings.field}, as defined under metrics.custom.{name}.",
        buckets,
    )


def _problem(name: str, metric: Metric, quantiles: tuple[float, ...]) -> str | None:
    """Why Prometheus would refuse a custom metric, or None."""
    if not re.fullmatch(r"[a-zA-Z0-9_]+", name):
        return "a name has letters, digits and _ only"
    ends = (
        ()
        if metric.type == "counter"
        else ("_total", "_bucket", "_sum", "_count", "_created", "_info")
    )
    end = next((end for end in ends if metric.name.endswith(end)), None)
    if end is not None:
        return (
            f"a {metric.type} has no name that ends with {end}, since Prometheus takes it for a "
            "series of another"
        )
    if metric.type == "summary" and len(set(quantiles)) < len(quantiles):
        return "a quantile is given twice"
    for label in metric.labels[2:]:
        if not label:
            return "a label needs a name"
        if label in RESERVED_LABELS or label.startswith("__"):
            return f"the label {label!r} is reserved"
        if metric.labels.count(label) > 1:
            return f"two segments both become the label {label!r}"
    edges = metric.buckets
    if metric.type == "histogram" and not (
        edges and all(map(isfinite, edges)) and all(low < high for low, high in pairwise(edges))
    ):
        return "buckets must be at least one finite number, each given once"
    return None


def custom_metrics(settings: CoreSettings) -> Mapping[str, Metric]:
    """
    All families that users defined, by their full name.

    Raises
    ------
    ConfigError
        A name, label or bucket that Prometheus would refuse, or two models that define one name
        with another type, other labels or other buckets.
    """
    found: dict[str, Metric] = {}
    problems: list[str] = []
    for where, model in (
        ("defaults", settings.defaults),
        *((f"models.{name}", entry) for name, entry in settings.models.items()),
    ):
        for name, entry in model.metrics.custom.items():
            metric = custom_metric(name, entry)
            problem = _problem(name, metric, entry.quantiles)
            other = found.setdefault(metric.name, metric)
            if problem is None and (other.type, other.labels, other.buckets) != (
                metric.type,
                metric.labels,
                metric.buckets,
            ):
                problem = (
                    "differs in type, labels or buckets from another metric of that name; one "
                    "name is one family, choose another name"
                )
            beside = next(
                (
                    n
                    for n, m in found.items()
                    if n != metric.name and series_names(m) & series_names(metric)
                ),
                None,
            )
            if problem is None and beside is not None:
                problem = f"has series of the same name as {beside}; choose another name"
            if problem:
                problems.append(f"{where}.metrics.custom.{name}: {problem}")
    if problems:
        raise ConfigError(problems)
    return found
