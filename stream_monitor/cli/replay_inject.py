"""
`stream-monitor replay --inject`: runs the trials and shows their table.

Rule of the file: people read the report that programs get (`injection` in the summary).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from stream_monitor.cli.rejudge_lines import columns, lasting

if TYPE_CHECKING:
    from stream_monitor.config.injection_settings import Injection
    from stream_monitor.inputs.events import EventStream
    from stream_monitor.inputs.merge import Event
    from stream_monitor.offline.replay import Replay
    from stream_monitor.offline.trials import Trials
    from stream_monitor.settings import CoreSettings

TELL_S = 10.0
FIRST_SHOWN = 2


def tried(
    injection: Injection,
    events: EventStream,
    replay: Callable[[], Replay],
    merge: Callable[[Iterator[Event]], Iterable[Any]],
    core: CoreSettings,
) -> Trials:
    """
    All trials, on all events of the input.

    On stderr it tells the rows a second, every ten seconds and at the end.
    """
    from stream_monitor.offline.injecting import Survey
    from stream_monitor.offline.trials import Trials

    survey = Survey(injection)
    survey.add(events.again())
    models = [core.models.get(name, core.defaults) for name in survey.models]
    rows = max((m.baseline.rows for m in models if m.baseline.source == "learn"), default=0)
    trials = Trials(injection, survey, replay, rows)
    began_s = told_s = time.monotonic()

    def show(done: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s >= TELL_S:
            told_s = now_s
            say(done, now_s - began_s)

    trials.run(merge(events), show)
    say(trials.rows, time.monotonic() - began_s)
    return trials


def say(rows: int, seconds: float) -> None:
    """Tell on stderr how many rows were replayed, in all runs together, and how fast."""
    rate = rows / max(seconds, 1e-3)
    print(f"replayed {rows:,} rows in {seconds:,.0f} s, {rate:,.0f} a second", file=sys.stderr)


def injection_lines(report: dict[str, Any]) -> Iterator[str]:
    """The report as lines of text."""
    clean = report["without_drifts"]
    a_day = "" if clean["a_day"] is None else f", {clean['a_day']:.3g} a day"
    yield ""
    yield (
        f"without drifts: {clean['alarms']} alarms in {report['rows']:,} rows and "
        f"{report['days']:.3g} days{a_day}"
        + (
            f" ({', '.join(f'{k} ×{n}' for k, n in clean['about'].items())})"
            if clean["about"]
            else ""
        )
    )
    head = [
        "drift",
        "found",
        "by chance",
        "rows until (p90)",
        "time until (p90)",
        "named first",
        "first alarm",
    ]
    yield from columns(head, [_cells(each) for each in report["drifts"]])


def _cells(found: dict[str, Any]) -> list[str]:
    rows, ms = found["delay_rows"], found["delay_ms"]
    named = found["named_first_share"]
    first = list(found["first"].items())
    return [
        found["drift"],
        f"{found['found']} of {found['runs']}",
        f"{found['by_chance_share']:.0%}" if found["runs"] else "–",
        f"{rows['median']:,.0f} ({rows['p90']:,.0f})" if rows else "–",
        f"{lasting(ms['median'] / 1e3)} ({lasting(ms['p90'] / 1e3)})" if ms else "–",
        "–" if named is None else f"{named:.0%}",
        ", ".join(f"{about} ×{n}" for about, n in first[:FIRST_SHOWN]),
    ]
