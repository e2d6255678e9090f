"""
The experiments of a replay, as lines for a terminal.

Rule of the file: the lines are those of `experiment status`; here they are of looks, not only of
verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from stream_monitor.cli.experiment_board import Ends, Evidence, VerdictEvent
from stream_monitor.cli.experiment_status import arm_lines
from stream_monitor.cli.terminal import readable
from stream_monitor.experiments.definition import Definition
from stream_monitor.times import rfc3339

if TYPE_CHECKING:
    from stream_monitor.offline.replay import Course

APART = 1.7
"""Each line is of a time so many times as late as the one before it."""
WIDER = 8
"""An interval that is so many times as wide as the last one is not drawn."""


def outcome_lines(
    definitions: Iterable[Definition], summary: Mapping[str, Any], courses: Sequence[Course]
) -> list[str]:
    """
    How each experiment went.

    Parameters
    ----------
    definitions : iterable of Definition
    summary : mapping
        The content of `summary.json`.
    courses : sequence of Course
        In the order of time.
    """
    lines = []
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
            mine = [c for c in courses if (c.model, c.experiment, c.arm) == (d.model, d.name, arm)]
            at = rfc3339(mine[-1].time_ms) if mine else ""
            lines += arm_lines(d, arm, [*_some(d, mine), _last(e, d, arm, found, at)])
    return [readable(line) for line in lines]


def _some(d: Definition, courses: Sequence[Course]) -> list[VerdictEvent]:
    """Looks before the last one; not those whose interval would make the others points."""
    out, hours = [], 0.0
    widest = WIDER * (courses[-1].high - courses[-1].low) if courses else 0.0
    for c in courses[:-1]:
        if c.high - c.low > widest:
            continue
        if c.hours >= APART * hours and c.hours * APART <= courses[-1].hours * math.sqrt(APART):
            hours = c.hours
            out.append(_look(d, c))
    return out[-8:]


def _look(d: Definition, c: Course) -> VerdictEvent:
    ends: Ends = _finite(c.low), _finite(c.high)
    return VerdictEvent(
        model=c.model,
        experiment=c.experiment,
        id="",
        arm=c.arm,
        phase=c.phase,
        verdict=c.verdict,
        at=rfc3339(c.time_ms),
        hours=c.hours,
        evidence={d.outcomes[0].metric: Evidence(c.estimate, ends, c.ready)},
    )


def _last(
    e: Mapping[str, Any], d: Definition, arm: str, found: Mapping[str, Any], at: str
) -> VerdictEvent:
    event = {
        **found,
        **{key: e[key] for key in ("phase", "hours", "units", "left_out")},
        "model": d.model,
        "experiment": d.name,
        "id": "",
        "arm": arm,
        "at": at,
    }
    return msgspec.convert(event, VerdictEvent)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
