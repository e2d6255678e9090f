"""
Panels of a dashboard by what they show: gauges, rates, increases, one number.

Rule of the file: titles of series, units, legends and descriptions come from the catalogue unless a
better word is given. This module does not know how Grafana writes a panel.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stream_monitor.metrics import queries
from stream_monitor.metrics.catalogue import CATALOGUE

PLACE = ('job=~"$job"', 'instance=~"$instance"')
PANEL_TYPES = Literal["timeseries", "stat", "table"]


class Panel(Struct, frozen=True):
    """One panel: pairs of expression and legend."""

    title: str
    targets: tuple[tuple[str, str], ...]
    unit: str
    description: str
    type: PANEL_TYPES = "timeseries"
    width: int = 8
    height: int = 8
    minimum: float | None = 0.0
    maximum: float | None = None


Row = tuple[str, tuple[Panel, ...]]


def matchers(name: str) -> tuple[str, ...]:
    """Matchers for the variables among the labels of a metric."""
    known = [
        label
        for label in ("model", "version", "window", "feature", "segment", "experiment")
        if label in CATALOGUE[name].labels and name.startswith("model_")
    ]
    return (*PLACE, *(f'{label}=~"${label}"' for label in known))


def legend(labels: tuple[str, ...]) -> str:
    """The text that Grafana writes beside a line: the values of these labels."""
    return " ".join(f"{{{{{label}}}}}" for label in labels) or "all"


def _unit(name: str) -> str:
    """Grafana's unit of a metric, by the end of its name."""
    for suffix, unit in (
        ("_timestamp_seconds", "dateTimeFromNow"),
        ("_seconds", "s"),
        ("_bytes", "decbytes"),
        ("_ratio", "percentunit"),
        ("_accuracy", "percentunit"),
        ("_total", "ops"),
    ):
        if name.endswith(suffix):
            return unit
    return "short"


def _title(name: str) -> str:
    """The name of a metric in words."""
    return (
        name.removeprefix("model_")
        .removeprefix("stream_monitor_")
        .removesuffix("_total")
        .replace("_", " ")
        .capitalize()
    )


def gauges(
    title: str,
    *names: str,
    unit: str | None = None,
    maximum: float | None = None,
    minimum: float | None = 0.0,
    width: int = 8,
) -> Panel:
    """Gauges over time, by all their labels."""
    targets = tuple(
        (
            queries.gauge(name, *matchers(name)),
            (f"{_title(name)} " if len(names) > 1 else "") + legend(CATALOGUE[name].labels),
        )
        for name in names
    )
    description = " ".join(dict.fromkeys(CATALOGUE[name].help for name in names))
    return Panel(
        title,
        targets,
        unit or _unit(names[0]),
        description,
        minimum=minimum,
        maximum=maximum,
        width=width,
    )


def rates(
    title: str, *names: str, unit: str = "ops", by: tuple[str, ...] | None = None, width: int = 8
) -> Panel:
    """Counters as rates per second."""
    targets = tuple(
        (
            queries.rate(name, *matchers(name), by=by, interval="$__rate_interval"),
            (f"{_title(name)} " if len(names) > 1 else "")
            + legend(CATALOGUE[name].labels if by is None else by),
        )
        for name in names
    )
    return Panel(
        title,
        targets,
        unit,
        " ".join(f"Per second: {CATALOGUE[name].help}" for name in names),
        width=width,
    )


def increases(title: str, *names: str, width: int = 8) -> Panel:
    """Counters that should not increase, by process."""
    targets = tuple(
        (
            queries.increase(
                name,
                *matchers(name),
                by=("instance", *CATALOGUE[name].labels),
                interval="$__rate_interval",
            ),
            f"{_title(name)} {legend(('instance', *CATALOGUE[name].labels))}",
        )
        for name in names
    )
    return Panel(
        title, targets, "short", " ".join(CATALOGUE[name].help for name in names), width=width
    )


def stat(title: str, name: str, expression: str, *, maximum: float | None = None) -> Panel:
    """One number, with unit and description of the metric."""
    return Panel(
        title,
        ((expression, title),),
        _unit(name),
        CATALOGUE[name].help,
        type="stat",
        width=6,
        height=4,
        maximum=maximum,
    )


def by_instance(title: str, name: str) -> Panel:
    """A gauge of the process over time, one line per worker."""
    return Panel(
        title,
        ((queries.gauge(name, *PLACE, by=("instance",)), "{{instance}}"),),
        _unit(name),
        CATALOGUE[name].help,
    )
