"""
Which settings decide what a monitor has counted, by part of its state.

Rule of the file: a part of the state has a name, and goes on after a restart only if the settings
beside its name are the same. Otherwise it begins again, and this is reported. A setting that is in
no definition is read at each judgement, so it counts from the restart on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stream_monitor.detectors.base import METHODS
from stream_monitor.settings import CustomMetric, Feature, Limits, ModelSettings
from stream_monitor.windows.names import last_n

Definition = dict[str, Any]
"""Values by key of the configuration."""
Definitions = dict[str, dict[str, Definition]]
"""By part of the state, then by name within it; the name is empty if there is only one."""
ALWAYS = ("feature",)
"""Parts that are there without a definition too: none is an empty one."""


def definitions(settings: ModelSettings, limits: Limits) -> Definitions:
    """
    The definitions of all parts of the state of a model version.

    Examples
    --------
    >>> definitions(ModelSettings(), Limits())["outputs"][""]["baseline.rows"]
    5000
    """
    counts = [n for w in settings.windows if (n := last_n(w)) is not None]
    anomalies = settings.anomalies
    fences = {f"anomalies.{key}": getattr(anomalies, key) for key in ("fence", "reference")}
    fences |= (
        {"anomalies.trailing_rows": anomalies.trailing_rows}
        if anomalies.reference == "trailing"
        else {}
    )
    drift = settings.drift
    signals = {
        "errors": drift.errors,
        "score": drift.score,
        "prediction": drift.prediction,
        "features": drift.features,
        "calibration": drift.calibration,
        "latency": drift.latency,
    }
    return {
        "performance": {"": {"task": settings.task, "positive_class": settings.positive_class}},
        "maturity": {"": {"labels.max_delay": settings.labels.max_delay_ms}},
        "trend": {"": {"windows": min(counts, default=0)}},
        "level": {
            "": {
                f"baseline.{key}": getattr(settings.baseline, key)
                for key in ("rows", "source", "path")
            }
        },
        "baseline": {"": _baseline(settings, limits)},
        "outputs": {
            "": {"baseline.rows": settings.baseline.rows, "limits.categories": limits.categories}
        },
        "fences": {"": fences},
        "feature": {
            name: found for name, rule in settings.features.items() if (found := _feature(rule))
        },
        "detector": {
            f"{signal}.{m}": _detector(m, p)
            for signal, methods in signals.items()
            for m, p in methods.items()
        },
        "custom metric": {
            name: _custom(metric) for name, metric in settings.metrics.custom.items()
        },
        "segment": {segment.name: {"cut": list(segment.cut)} for segment in settings.segments},
    }


def _baseline(settings: ModelSettings, limits: Limits) -> Definition:
    if settings.baseline.source == "file":
        return {"baseline.source": "file", "baseline.path": settings.baseline.path}
    types = {f"features.{name}.type": type_of(rule) for name, rule in settings.features.items()}
    bounds = {"limits.features": limits.features, "limits.categories": limits.categories}
    return {"baseline.source": "learn", "baseline.rows": settings.baseline.rows, **bounds, **types}


def type_of(rule: Feature) -> str:
    """
    The type as which a feature is learnt. Values of a unique one are not counted one by one, unless
    they are numbers.
    """
    return "text" if rule.unique and rule.type == "category" else rule.type


def _detector(method: str, parameters: Mapping[str, float]) -> Definition:
    known = METHODS[method]
    return {
        key: value
        for key, value in {**known.parameters, **parameters}.items()
        if key not in known.limits
    }


def _feature(rule: Feature) -> Definition:
    categories = None if rule.categories is None else sorted(set(rule.categories))
    found = {
        "min": rule.min,
        "max": rule.max,
        "categories": categories,
        "pattern": rule.pattern,
    }
    return {key: value for key, value in found.items() if value is not None}


def _custom(metric: CustomMetric) -> Definition:
    buckets = {"buckets": sorted(metric.buckets)} if metric.type == "histogram" else {}
    return {"type": metric.type, "field": metric.field, "labels": sorted(metric.labels), **buckets}


class Changes:
    """
    Differences between the definitions of a snapshot and the present ones, and the parts that began
    again because of them.

    Parameters
    ----------
    before, now : mapping of part to name to Definition

    Examples
    --------
    >>> before, now = (
    ...     {"segment": {"age": {"cut": [18.0]}, "x": {}}},
    ...     {"segment": {"age": {"cut": [65.0]}, "y": {}}},
    ... )
    >>> changes = Changes(before, now)
    >>> changes.keys("segment", "age"), changes.keys("segment", "x"), changes.keys("segment", "y")
    (['cut'], [], [])
    """

    def __init__(self, before: Mapping[str, Mapping[str, Definition]], now: Definitions) -> None:
        self.before, self.now = before, now
        self.anew: list[str] = []
        """The parts that began again, as a text for people."""

    def keys(self, part: str, name: str = "") -> list[str]:
        """Keys of the definition of a part that is there before and now, and differs in them."""
        there: Definition | None = {} if part in ALWAYS else None
        before, now = (
            self.before.get(part, {}).get(name, there),
            self.now.get(part, {}).get(name, there),
        )
        if before is None or now is None:
            return []
        return sorted(key for key in {**before, **now} if before.get(key) != now.get(key))

    def names(self, part: str) -> Iterator[str]:
        """Names of a part whose definition differs."""
        names = dict.fromkeys([*self.before.get(part, {}), *self.now.get(part, {})])
        return (name for name in sorted(names) if self.keys(part, name))

    def begins_anew(self, what: str, keys: list[str]) -> None:
        """Note that a part of the state is not taken over."""
        self.anew.append(f"{what} ({', '.join(keys)})")
