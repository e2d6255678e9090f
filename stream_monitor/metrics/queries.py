"""
PromQL for the catalogue.

Rule of the file: a query is made from the names and labels of the catalogue, so a renamed metric is
an error here and not an empty panel. Gauges are read with `max`, because during a move of a
partition two workers may both have reported a series within the lookback. Rates of counters are
added.
"""

from __future__ import annotations

from stream_monitor.metrics.catalogue import CATALOGUE
from stream_monitor.metrics.metric import Metric


def selector(name: str, *matchers: str) -> str:
    """
    A metric of the catalogue with matchers.

    Raises
    ------
    KeyError
        The catalogue does not have the metric.

    Examples
    --------
    >>> selector("model_accuracy", 'model="a"')
    'model_accuracy{model="a"}'
    >>> selector("stream_monitor_ready")
    'stream_monitor_ready'
    """
    metric = CATALOGUE[name]
    return f"{metric.name}{{{','.join(matchers)}}}" if matchers else metric.name


def labels_of(name: str) -> tuple[str, ...]:
    """Labels of a metric of the catalogue, in its order."""
    return CATALOGUE[name].labels


def gauge(name: str, *matchers: str, by: tuple[str, ...] | None = None) -> str:
    """
    Value of a gauge by its labels.

    Examples
    --------
    >>> gauge("model_f1", by=("model",))
    'max by (model) (model_f1)'
    """
    _is(name, "gauge", "summary")
    return (
        f"max by ({', '.join(labels_of(name) if by is None else by)}) ({selector(name, *matchers)})"
    )


def rate(name: str, *matchers: str, by: tuple[str, ...] | None = None, interval: str = "5m") -> str:
    """
    Increase of a counter per second.

    Examples
    --------
    >>> rate("model_predictions_total", by=("model",))
    'sum by (model) (rate(model_predictions_total[5m]))'
    """
    _is(name, "counter")
    return (
        f"sum by ({', '.join(labels_of(name) if by is None else by)}) "
        f"(rate({selector(name, *matchers)}[{interval}]))"
    )


def increase(
    name: str, *matchers: str, by: tuple[str, ...] | None = None, interval: str = "15m"
) -> str:
    """
    Increase of a counter in an interval.

    Examples
    --------
    >>> increase("stream_monitor_series_dropped_total", by=("instance",))
    'sum by (instance) (increase(stream_monitor_series_dropped_total[15m]))'
    """
    _is(name, "counter")
    return (
        f"sum by ({', '.join(labels_of(name) if by is None else by)}) "
        f"(increase({selector(name, *matchers)}[{interval}]))"
    )


def newly(name: str, *, by: tuple[str, ...], interval: str = "15m") -> str:
    """
    Condition that a counter grew in an interval, or is new and greater than 0. Prometheus sees no
    increase of a counter that appears with a value.

    Examples
    --------
    >>> newly("stream_monitor_limit_hits_total", by=("limit",)).partition(" or ")[2]
    '(sum by (limit) (stream_monitor_limit_hits_total) > 0 unless sum by (limit) (stream_monitor_limit_hits_total offset 15m))'
    """  # noqa: E501
    whole = f"sum by ({', '.join(by)})"
    return (
        f"{increase(name, by=by, interval=interval)} > 0 or ({whole} ({name}) > 0 unless {whole} "
        f"({name} offset {interval}))"
    )


def by_group(
    name: str,
    *matchers: str,
    by: tuple[str, ...],
    function: str = "sum",
    over: tuple[str, str] | None = None,
) -> str:
    """
    A metric of models, separately for each consumer group. `stream_monitor_config_info` names the
    group of an instance.

    `over` is a function of a range and its interval.

    Examples
    --------
    >>> by_group("model_f1", by=("model",), function="max")
    'max by (group, model) (model_f1 * on (job, instance) group_left (group) max by (job, instance, group) (stream_monitor_config_info))'
    """  # noqa: E501
    value, info = selector(name, *matchers), selector("stream_monitor_config_info")
    whose = f"max by (job, instance, group) ({info})"
    if over is not None:  # an instance that has gone meanwhile also counts in the range
        _is(name, "counter")
        value = f"{over[0]}({value}[{over[1]}])"
        whose = (
            "topk by (job, instance) (1, max by (job, instance, group) "
            f"(max_over_time({info}[{over[1]}])))"
        )
    return (
        f"{function} by ({', '.join(('group', *by))}) ({value} * on (job, instance) group_left "
        f"(group) {whose})"
    )


def quantile(share: float, name: str, *matchers: str, interval: str = "5m") -> str:
    """
    Quantile of a histogram by its labels.

    Examples
    --------
    >>> quantile(0.99, "model_prediction_latency_seconds")
    'histogram_quantile(0.99, sum by (model, version, le) (rate(model_prediction_latency_seconds_bucket[5m])))'
    """  # noqa: E501
    metric = _is(name, "histogram")
    matched = f"{{{','.join(matchers)}}}" if matchers else ""
    return (
        f"histogram_quantile({share}, sum by ({', '.join((*metric.labels, 'le'))}) "
        f"(rate({metric.name}_bucket{matched}[{interval}])))"
    )


def _is(name: str, *types: str) -> Metric:
    metric = CATALOGUE[name]
    if metric.type not in types:
        raise ValueError(f"{name} is a {metric.type}, not a {' or '.join(types)}")
    return metric
