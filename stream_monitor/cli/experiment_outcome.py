"""
The experiments of a replay, as lines for a terminal.

Rule of the file: the lines are those of `experiment status`, and the last one is of the end of the
input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from stream_monitor.cli.experiment_board import VerdictEvent
from stream_monitor.cli.experiment_status import arm_lines
from stream_monitor.cli.terminal import readable
from stream_monitor.experiments.definition import Definition
from stream_monitor.experiments.telling import PROGRESS
from stream_monitor.times import rfc3339


def outcome_lines(
    definitions: Iterable[Definition],
    summary: Mapping[str, Any],
    told: Sequence[bytes],
    now_ms: int,
) -> list[str]:
    """
    How each experiment went.

    Parameters
    ----------
    definitions : iterable of Definition
    summary : mapping
        The content of `summary.json`.
    told : sequence of bytes
        Verdicts, and numbers between them, in the order of time.
    now_ms : int
        Log time at the end.
    """
    lines = []
    looks = [msgspec.json.decode(value, type=VerdictEvent) for value in told]
    for d in definitions:
        e = summary.get("experiments", {}).get(d.model, {}).get(d.name)
        if e is None:
            continue
        weights = " · ".join(f"{arm} {w:g}" for arm, w in e["weights"].items())
        primary = d.outcomes[0]
        lines.append(
            f"experiment {d.name}  {d.model}  {weights} %  phase {e['phase']}  {primary.metric} "
            f"{primary.goal}, effect {primary.effect:g}"
        )
        for arm, found in e["arms"].items():
            mine = [c for c in looks if (c.model, c.experiment, c.arm) == (d.model, d.name, arm)]
            before = [c for c in mine if c.hours < e["hours"]]
            at = rfc3339(now_ms) if e["rows"] else ""
            lines += arm_lines(d, arm, [*before, _last(e, d, arm, found, at)])
    return [readable(line) for line in lines]


def _last(
    e: Mapping[str, Any], d: Definition, arm: str, found: Mapping[str, Any], at: str
) -> VerdictEvent:
    event = {
        **found,
        **{key: e[key] for key in ("phase", "hours", "units", "left_out")},
        "type": PROGRESS,
        "complete": e.get("complete", {}),
        "model": d.model,
        "experiment": d.name,
        "id": "",
        "arm": arm,
        "at": at,
    }
    return msgspec.convert(event, VerdictEvent)
