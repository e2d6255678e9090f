"""
Experiments as the JSON objects of `--json`.

Rule of the file: pure functions of what the board knows. A key is there always, so that programs
need not ask.
"""

from __future__ import annotations

from typing import Any

from stream_monitor.cli.experiment_board import Known, RefusedEvent
from stream_monitor.experiments.telling import PROGRESS, VERDICT


def _refusal(refusal: RefusedEvent) -> dict[str, str]:
    return {"type": refusal.refused, "reason": refusal.reason, "at": refusal.at}


def as_object(known: Known, *, whole: bool) -> dict[str, Any]:
    """An experiment as a JSON object; `whole`: with its events."""
    newest = {arm: known.newest(arm) for arm in known.names[1:]}
    events = {
        "started_event": known.started,
        "changes": known.changes,
        "verdicts": [e for e in known.told if e["type"] == VERDICT],
        "progress": [e for e in known.told if e["type"] == PROGRESS],
    }
    return {
        "experiment": known.definition.name,
        "model": known.definition.model,
        "running": known.is_running,
        "started": known.started.get("at"),
        "stopped": None if known.stopped is None else known.stopped.get("at"),
        "kept": None if known.stopped is None else known.stopped.get("keep"),
        "weights": known.percent,
        "phase": known.phase,
        "refused": [_refusal(r) for r in known.refusals],
        "arms": {
            arm: None
            if v is None
            else {"verdict": v.verdict, "because": v.because, "phase": v.phase, "at": v.at}
            for arm, v in newest.items()
        },
        **(events if whole else {}),
    }


def unread(refusal: RefusedEvent) -> dict[str, Any]:
    """An experiment of which only the refusal is known."""
    return {
        "experiment": refusal.experiment,
        "model": refusal.model,
        "running": False,
        "refused": [_refusal(refusal)],
    }
