"""
What `rejudge` found, for programs and for people.

Rule of the file: people read the report that programs get. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from stream_monitor.offline.alarms import Alarm, Beside, counts, side_by_side
from stream_monitor.offline.rejudging import Rejudging
from stream_monitor.times import DAY_MS, HOUR_MS, MINUTE_MS, rfc3339

UNREADABLE_SHOWN = 3


def report_of(rejudging: Rejudging, notes: list[str], budget: float) -> dict[str, Any]:
    """
    The comparison as JSON.

    Parameters
    ----------
    rejudging : Rejudging
        At its end.
    notes : list of str
    budget : float, alarms a day
        Of each model.
    """
    found = rejudging.found
    rows = side_by_side(found.were, found.would)
    judged: dict[str, int] = {}
    for (model, _), from_ms in found.judged.items():
        judged[model] = min(from_ms, judged.get(model, from_ms))
    return {
        "schema": 1,
        "since": rfc3339(rejudging.since_ms),
        "until": rfc3339(rejudging.end_ms),
        "rows": rejudging.rows,
        "notes": notes,
        "began_anew": found.anew,
        "learning": [" ".join(filter(None, key)) for key in sorted(set(found.learning))],
        "unreadable": [u._asdict() for u in found.unreadable],
        "models": {
            c.model: {
                "compared_from": rfc3339(judged[c.model]),
                "days": c.days,
                "were": c.was,
                "would_have_been": c.would,
                "both": c.both,
                "were_a_day": c.a_day(c.was),
                "would_have_been_a_day": c.a_day(c.would),
                "budget_a_day": budget,
            }
            for c in counts(rows, judged, rejudging.end_ms)
        },
        "alarms": [_row(row, rejudging.end_ms) for row in rows],
        "verdicts": _verdicts(found.verdicts_were, found.verdicts_would),
    }


def _row(row: Beside, end_ms: int) -> dict[str, Any]:
    one = row.was or row.would
    assert one is not None
    return {
        "model": one.model,
        "version": one.version,
        "segment": one.segment,
        "kind": one.kind,
        "subject": one.subject,
        "in": row.where,
        "was": _alarm(row.was, end_ms),
        "would_have_been": _alarm(row.would, end_ms),
    }


def _alarm(alarm: Alarm | None, end_ms: int) -> dict[str, Any] | None:
    if alarm is None:
        return None
    last_ms = end_ms if alarm.end_ms is None else alarm.end_ms
    return {
        "starts_at": rfc3339(alarm.start_ms),
        "ends_at": None if alarm.end_ms is None else rfc3339(alarm.end_ms),
        "seconds": max(last_ms - alarm.start_ms, 0) / 1e3,
        "severity": alarm.severity,
        "detector": alarm.detector,
        "summary": alarm.summary,
    }


def _verdicts(were: list[dict[str, Any]], would: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Verdicts on experiments by their id, which is the same in both folds."""
    sides = [{v["id"]: v for v in side} for side in (were, would)]
    found = []
    for id_ in dict.fromkeys([*sides[0], *sides[1]]):
        was, other = (side.get(id_) for side in sides)
        one = was or other or {}
        found.append(
            {
                **{key: one[key] for key in ("model", "experiment", "arm", "phase", "verdict")},
                "was": was and was["at"],
                "would_have_been": other and other["at"],
            }
        )
    return found


def lasting(seconds: float) -> str:
    """
    A length of time, briefly.

    >>> lasting(42), lasting(7_500), lasting(200_000)
    ('42 s', '2 h 5 min', '2 d 7 h')
    """
    ms = int(seconds * 1_000)
    for unit_ms, unit, below_ms, below in (
        (DAY_MS, "d", HOUR_MS, "h"),
        (HOUR_MS, "h", MINUTE_MS, "min"),
        (MINUTE_MS, "min", 1_000, "s"),
    ):
        if ms >= unit_ms:
            rest = ms % unit_ms // below_ms
            return f"{ms // unit_ms} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{ms // 1_000} s"


def lines_of(report: dict[str, Any]) -> Iterator[str]:
    """The report as lines of text."""
    for note in report["notes"]:
        yield f"note: {note}"
    for part in report["began_anew"]:
        yield f"note: the new configuration begins anew with {part}"
    if report["learning"]:
        yield f"note: still learning, so not compared: {', '.join(report['learning'])}"
    bad = report["unreadable"]
    for each in bad[:UNREADABLE_SHOWN]:
        yield f"note: observations/{each['partition']}@{each['offset']} is left out: {each['why']}"
    if len(bad) > UNREADABLE_SHOWN:
        yield f"note: {len(bad) - UNREADABLE_SHOWN} more records are left out"
    yield f"{report['rows']:,} rows, compared from {report['since']} to {report['until']}"
    if report["alarms"]:
        yield ""
        yield from columns(
            ["model", "kind", "subject", "was", "would have been"],
            [
                [
                    " ".join(filter(None, (a["model"], a["version"], a["segment"]))),
                    a["kind"],
                    a["subject"],
                    _cell(a["was"]),
                    _cell(a["would_have_been"]),
                ]
                for a in report["alarms"]
            ],
        )
    for v in report["verdicts"]:
        yield (
            f"experiment {v['experiment']} of {v['model']}: {v['verdict']} of {v['arm']} "
            f"(phase {v['phase']}): was {v['was'] or '–'}, would have been "
            f"{v['would_have_been'] or '–'}"
        )
    yield ""
    yield from columns(
        ["model", "days", "were", "would have been", "both", "only were", "only would", "budget"],
        [
            [
                name,
                f"{m['days']:.2f}",
                f"{m['were']} ({m['were_a_day']:.3g} a day)",
                f"{m['would_have_been']} ({m['would_have_been_a_day']:.3g} a day)",
                str(m["both"]),
                str(m["were"] - m["both"]),
                str(m["would_have_been"] - m["both"]),
                f"{m['budget_a_day']:.3g} a day",
            ]
            for name, m in report["models"].items()
        ],
    )


def _cell(alarm: dict[str, Any] | None) -> str:
    if alarm is None:
        return "–"
    still = "" if alarm["ends_at"] else ", still fires"
    return (
        f"{alarm['starts_at'][:19]} {alarm['severity']} by {alarm['detector']}, "
        f"{lasting(alarm['seconds'])}{still}"
    )


def columns(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Rows of cells as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip_longest(head, *rows, fillvalue="")]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
