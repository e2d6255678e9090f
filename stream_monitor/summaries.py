"""
The part of `summary.json` that a shard knows.

Rule of the file: it reads the parts of a shard and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stream_monitor.alerts.lifecycle import Alerts
from stream_monitor.experiments.exposition import experiment_summaries
from stream_monitor.experiments.registry import Experiments
from stream_monitor.join.store import StoreState
from stream_monitor.monitors.exposition import version_summary
from stream_monitor.monitors.version import Version


def models_of(versions: Sequence[Version], store: StoreState) -> dict[str, Any]:
    """Models with their versions, and what waits for labels, for programs."""
    models: dict[str, Any] = {}
    for code, version in enumerate(versions):
        of_model = models.setdefault(version.model, {"versions": {}})["versions"]
        waiting = {
            "pending": int(store.pending[code]),
            "expired": int(store.expired[code]),
            "evicted": int(store.evicted[code]),
        }
        of_model[version.name] = version_summary(version, waiting)
    return models


def experiments_of(experiments: Experiments, log_ms: int) -> dict[str, Any]:
    """Experiments, if there are any."""
    if not experiments.state.of_model:
        return {}
    return {"experiments": experiment_summaries(experiments, log_ms)}


def alerts_of(alerts: Alerts) -> dict[str, int]:
    """How many alerts there are, by what became of them."""
    return {
        "firing": sum(1 for _ in alerts.firing()),
        "resolved": alerts.counts["resolved"],
        "notifications": alerts.notified,
    }
