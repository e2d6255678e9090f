"""
The traffic of a rollout, as events of an experiment (`docs/experiments.md`).

Rule of the file: what routers and the worker read of a rollout is made here and nowhere else.
"""

from __future__ import annotations

from typing import Any

from stream_monitor.lifecycle.events import Rollout
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.times import rfc3339


def _of_experiment(
    kind: str, name: str, experiment: str, now_ms: int, by: str = "controller"
) -> dict[str, Any]:
    return {
        "schema": 1,
        "type": kind,
        "model": name,
        "at": rfc3339(now_ms),
        "by": by,
        "experiment": experiment,
    }


def started(
    name: str, r: Rollout, weights: dict[str, float], loop: ModelLoop, now_ms: int
) -> dict[str, Any]:
    """A rollout begins to share the traffic; a rollback takes it at once, without us."""
    d = loop.deploy
    return {
        **_of_experiment("experiment_started", name, r.experiment, now_ms),
        "arms": [{"name": v, "version": v} for v in (r.against, r.version)],
        "weights": weights,
        "unit": d.unit,
        "primary": {"metric": d.metric, "effect": d.effect, "goal": d.goal},
        "maturity": f"{d.maturity_ms}ms",
        "settle": f"{d.settle_ms}ms",
        "report_at": d.min_labels,
        "on_rollback": "stop",
        "duration": [f"{d.min_time_ms}ms", f"{d.deadline_ms * len(r.stages) // 1_000}s"],
        "steps": [p for p in r.stages if 0 < p < 100],
    }


def changed(
    name: str, experiment: str, weights: dict[str, float], now_ms: int, because: str
) -> dict[str, Any]:
    """The next stage has other weights."""
    event = _of_experiment("experiment_changed", name, experiment, now_ms)
    return {**event, "weights": weights, "because": because}


def stopped(
    name: str, experiment: str, keep: str | None, now_ms: int, why: str, by: str = "controller"
) -> dict[str, Any]:
    """One version serves all; without `keep` the control does."""
    event = {**_of_experiment("experiment_stopped", name, experiment, now_ms, by), "because": why}
    return event if keep is None else {**event, "keep": keep}
