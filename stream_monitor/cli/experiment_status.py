"""
How an experiment stands, as lines for a terminal.

Rule of the file: pure functions of the events of `lifecycle`. Numbers are those that the worker
told, with verdicts and between them, and each line says of what time they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stream_monitor.alerts.wording import duration
from stream_monitor.cli.experiment_board import Evidence, Known, VerdictEvent
from stream_monitor.cli.experiment_waits import missing
from stream_monitor.cli.terminal import readable
from stream_monitor.events.parse import text_time
from stream_monitor.experiments.definition import Definition
from stream_monitor.experiments.measures import Outcome
from stream_monitor.experiments.telling import VERDICT
from stream_monitor.experiments.words import LEFT_OUT, MEANINGS, PEEKED

COLUMNS = 61
"""Width of the drawing; the middle is no difference."""
LABEL_COLUMNS = 20
APART = 1.4
"""Numbers between verdicts are drawn if the next line is of an age so many times as great."""
NEAR = 1.1
"""Those that are so little later than a verdict are not drawn beside it."""
WIDER = 8
"""An interval that is so many times as wide as the newest one is not drawn."""
ASCII = str.maketrans("├┤─│┼●·−", "||-|+o,-")


class Look(NamedTuple):
    """An estimate with its interval; an end that is None is infinite."""

    estimate: float
    low: float
    high: float


def line(known: Known) -> str:
    """An experiment in one line."""
    d = known.definition
    weights = " · ".join(f"{name} {percent:g}" for name, percent in known.percent.items())
    since = "started at " if known.refused else "running since "
    state = (
        f"{since}{_moment(known.started.get('at'))}"
        if known.stopped is None
        else f"stopped at {_moment(known.stopped.get('at'))}"
    )
    if known.refused:
        return readable(f"{d.name}  {d.model}  {weights} %  {state}  {known.refusals[-1].text}")
    if known.stopped is not None and known.stopped.get("keep") is not None:
        state += f", {known.stopped['keep']} kept"
    verdicts = [
        f"{arm} {v.verdict} at {_moment(v.at)}"
        for arm in known.names[1:]
        if (v := known.newest(arm)) is not None
    ]
    told = "; ".join(verdicts) or "no verdict yet"
    return readable(f"{d.name}  {d.model}  {weights} %  phase {known.phase}  {state}  {told}")


def drawing(known: Known, now_ms: int) -> list[str]:
    """
    How each arm stands, by what the worker told.

    Parameters
    ----------
    known : Known
    now_ms : int
        The time now: numbers say how old they are.
    """
    d = known.definition
    unit = "units are events" if d.unit == "event" else f"unit: {d.unit}"
    primary = d.outcomes[0]
    lines = [line(known), f"  {primary.metric} {primary.goal}, effect {primary.effect:g}; {unit}"]
    lines += [f"  {r.text}" for r in known.refusals if not known.refused]
    if known.refused and known.stopped is None:
        lines.append("  nothing judges it, and routers may split: stop it, and start another one")
    pairs = zip(known.names, known.declared, known.weights, strict=True)
    held = [name for name, declared, weight in pairs if declared and not weight]
    if held and known.is_running:
        lines.append(
            f"  {', '.join(held)}: rolled back, {known.names[0]} has the traffic. Write it down "
            f"with `stream-monitor experiment change {d.name} --weights …`, or stop the experiment"
        )
    none = []
    for arm in known.names[1:]:
        looks = [v for v in known.looks.values() if v.arm == arm]
        none += [] if looks or known.refused else [arm]
        if looks:
            lines += ["", *arm_lines(d, arm, looks, now_ms if known.is_running else None)]
    if none:
        lines.append(
            f"  {', '.join(none)}: no numbers yet; the first ones come when the experiment is an "
            "hour old. Until then the gauges of the worker have them (model_experiment_…)"
        )
    return [readable(text) for text in lines]


def arm_lines(
    d: Definition, arm: str, looks: Sequence[VerdictEvent], now_ms: int | None = None
) -> list[str]:
    """
    How an arm stood at verdicts and between them, the newest at the end.

    Parameters
    ----------
    d : Definition
    arm : str
    looks : sequence of VerdictEvent
        At least one, the oldest first.
    now_ms : int, optional
        The time now; without it, nothing is said of the age of the numbers.
    """
    newest, outcomes = looks[-1], d.outcomes
    because = ", ".join(f"{b} ({MEANINGS[b]})" if b in MEANINGS else b for b in newest.because)
    age = _ago(newest.at, now_ms)
    lines = [
        f"  {arm}: {newest.verdict}{f' because of {because}' if because else ''}",
        f"    as of {_moment(newest.at)}{age}, phase {newest.phase}; {_counts(newest, arm)}",
    ]
    told = next((v for v in reversed(looks) if v.type == VERDICT), None)
    if told is not None and told.verdict != newest.verdict:
        lines.append(f"    {told.verdict} was told at {_moment(told.at)}")
    waits = missing(d, newest)
    if newest.units and not any(newest.units.values()) and not newest.left_out:
        lines.append(f"    no call of model {d.model} has come")
    elif waits:
        lines.append(f"    a promotion waits for {'; '.join(waits)}")
    lines += _history(d.arms[0].name, arm, outcomes[0], chosen(outcomes[0], looks))
    for outcome in outcomes[1:]:
        look, ready = _look(newest, outcome)
        if look is not None:
            not_ready = "" if ready else "  not ready"
            lines.append(f"    guard {outcome.metric}  {_numbers(outcome, look)}{not_ready}")
    lines += [f"    guard {_raced(o.name, newest.evidence, arm)}" for o in d.races]
    lines += _labels(newest, outcomes)
    lines += _planned(newest, outcomes)
    if newest.left_out:
        out = "; ".join(
            f"{n:,} {reason} ({LEFT_OUT.get(reason, reason)})"
            for reason, n in newest.left_out.items()
        )
        lines.append(f"    calls left out: {out}")
    return lines


def chosen(outcome: Outcome, looks: Sequence[VerdictEvent]) -> list[VerdictEvent]:
    """
    The looks that are drawn: the newest, the verdicts, and of the others as many as a person reads.

    Those between verdicts get rarer with age as the intervals get narrower more slowly; those so
    wide that the others would be points are left out.
    """
    look, _ = _look(looks[-1], outcome)
    widest = math.inf if look is None else WIDER * (look.high - look.low)
    out, hours = [looks[-1]], looks[-1].hours
    for told in reversed(looks[:-1]):
        look, _ = _look(told, outcome)
        wide = look is None or look.high - look.low > widest
        if told.type == VERDICT:
            if len(out) > 1 and out[-1].type != VERDICT and hours <= told.hours * NEAR:
                out.pop()
        elif wide or told.hours * APART > hours:
            continue
        out.append(told)
        hours = told.hours
    return out[::-1]


def _labels(told: VerdictEvent, outcomes: Sequence[Outcome]) -> list[str]:
    """Which share of the mature calls has a label, in control and arm."""
    found = next((told.evidence.get(o.metric) for o in outcomes if o.needs_label), None)
    if found is None or found.coverage is None:
        return []
    control, arm = ("none" if x is None else f"{100 * x:.3g} %" for x in found.coverage)
    return [f"    labels of calls that are mature: control {control}, arm {arm}"]


def _ago(at: str, now_ms: int | None) -> str:
    """
    How old numbers are.

    >>> _ago("2026-11-02T09:00:00Z", 1_793_620_800_000)
    ' (3 h ago)'
    """
    at_ms = text_time(at)
    if now_ms is None or at_ms is None:
        return ""
    return f" ({duration(max(now_ms - at_ms, 0) / 1_000)} ago)"


def _counts(verdict: VerdictEvent, arm: str) -> str:
    """Units, sample ratio and failures of a verdict."""
    units = " · ".join(f"{name} {n:,}" for name, n in verdict.units.items())
    parts = [f"units {units}"] if units else []
    if verdict.complete:
        complete = " · ".join(f"{name} {n:,}" for name, n in verdict.complete.items())
        parts.append(f"complete windows {complete}")
    ratio = verdict.evidence.get("sample_ratio")
    if ratio is not None and ratio.e is not None:
        parts.append(f"sample ratio {_evidence(ratio.e, ratio.needed)}")
    if "failures" in verdict.evidence:
        parts.append(_raced("failures", verdict.evidence, arm))
    return "  ".join(parts)


def _raced(name: str, evidence: Mapping[str, Evidence], arm: str) -> str:
    """The race of first failures of this name."""
    race = evidence.get(name)
    if race is None or race.first is None:
        return f"{name}  nothing is known yet"
    found = "" if race.e is None else f" {_evidence(race.e, race.needed)}"
    return (
        f"{name} {race.first[1]:,} of {sum(race.first):,} in {arm}, expected "
        f"{100 * race.share:.3g} %{found}"
    )


def _evidence(e: float, needed: float) -> str:
    return f"fine ({e:.3g} of {needed:,.0f})" if e < needed else f"BROKEN (over {needed:,.0f})"


def _look(verdict: VerdictEvent, outcome: Outcome) -> tuple[Look | None, bool]:
    found = verdict.evidence.get(outcome.metric)
    if found is None or found.interval is None or found.estimate is None:
        return None, False
    low, high = found.interval
    ends = -math.inf if low is None else low, math.inf if high is None else high
    return Look(found.estimate, *ends), found.ready


def _history(
    control: str, arm: str, outcome: Outcome, verdicts: Sequence[VerdictEvent]
) -> list[str]:
    """The sequence of the primary outcome, a line a look."""
    looks = [(v, *_look(v, outcome)) for v in verdicts]
    ends = [abs(x) for _, look, _ in looks if look for x in look if math.isfinite(x)]
    if not ends:
        return [f"    {outcome.metric}: too few units of one arm for an estimate"]
    limit = _rounded_up(max(ends) or outcome.effect)
    percent = _is_percent(outcome)
    edge = f"{100 * limit:g} %" if percent else f"{limit:g}"
    title = f"{outcome.metric}, {arm} {'/' if outcome.is_log else '−'} {control}"
    axis = f"-{edge}".ljust(COLUMNS // 2) + "0" + f"+{edge}".rjust(COLUMNS // 2)
    lines = [f"{'':{LABEL_COLUMNS}}{axis}  {title}"]
    phase = verdicts[0].phase
    for v, look, ready in looks:
        if v.phase != phase:
            phase = v.phase
            lines.append(f"{f'    phase {phase}':{LABEL_COLUMNS}}{'─' * COLUMNS}")
        if look is None:
            continue
        drawn = _drawn(look, limit)
        waits = "" if ready else "  not ready"
        lines.append(
            f"{f'    {_age(v.hours)}':{LABEL_COLUMNS}}{drawn}  {_numbers(outcome, look)}  "
            f"{v.verdict}{waits}"
        )
    return lines


def _drawn(look: Look, limit: float) -> str:
    """
    An interval on the axis from -limit to limit.

    >>> _drawn(Look(0.0, -0.5, 0.5), 1.0).strip()
    '├──────────────●──────────────┤'
    """
    low, high = max(look.low, -limit), min(look.high, limit)
    cells = [" "] * COLUMNS
    a, b = _column(low, limit), _column(high, limit)
    cells[a : b + 1] = "─" * (b + 1 - a)
    cells[a] = "├" if look.low >= -limit else "─"
    cells[b] = "┤" if look.high <= limit else "─"
    middle = _column(0, limit)
    cells[middle] = "┼" if a < middle < b else cells[middle] if a <= middle <= b else "│"
    cells[_column(min(max(look.estimate, -limit), limit), limit)] = "●"
    return "".join(cells)


def _column(x: float, limit: float) -> int:
    return round((x + limit) / (2 * limit) * (COLUMNS - 1))


def _rounded_up(x: float) -> float:
    """
    The next of 1, 1.5, 2, 3, 5, 7 times a power of ten.

    >>> _rounded_up(0.041), _rounded_up(7.0), _rounded_up(80.0)
    (0.05, 7.0, 100.0)
    """
    power = 10.0 ** math.floor(math.log10(x))
    step = next((s for s in (1, 1.5, 2, 3, 5, 7, 10) if s * power >= x * (1 - 1e-9)), 10)
    return float(f"{step * power:.3g}")


def _is_percent(outcome: Outcome) -> bool:
    return outcome.is_log or outcome.is_share


def _numbers(outcome: Outcome, look: Look) -> str:
    """The estimate and its interval in the unit of the axis."""
    scale, unit = (100, " %") if _is_percent(outcome) else (1, "")
    values = [f"{scale * x:+.3g}" if math.isfinite(x) else f"{x:+}" for x in look]
    return f"{values[0]} [{values[1]}, {values[2]}]{unit}"


def _planned(verdict: VerdictEvent, outcomes: Sequence[Outcome]) -> list[str]:
    """What a textbook says, with its warning."""
    found = verdict.fixed_horizon.get(outcomes[0].metric)
    if found is None:
        return []
    parts = [] if found.t is None else [f"t {found.t:.3g}"]
    parts += [] if found.p is None else [f"p {found.p:.2g}"]
    for name, size, ends in (("d", found.d, found.d_interval), ("h", found.h, found.h_interval)):
        if size is not None:
            low, high = ("?" if x is None else f"{x:.2g}" for x in ends)
            parts.append(f"{name} {size:.2g} [{low}, {high}]")
    return [f"    at one planned look: {', '.join(parts)}. {PEEKED}"]


def _age(hours: float) -> str:
    """
    The age of an experiment.

    >>> _age(6.04), _age(49.0), _age(0.2)
    ('6 h', 'day 2', '12 min')
    """
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.0f} h" if hours < 24 else f"day {hours / 24:.0f}"


def _moment(at: Any) -> str:
    """
    A time of an event, without its fraction; where no row came, there is none.

    >>> _moment("2026-11-02T09:00:00.123Z"), _moment("")
    ('2026-11-02 09:00:00Z', 'the start')
    """
    if not at:
        return "the start"
    text = str(at).partition(".")[0].removesuffix("Z").replace("T", " ")
    return f"{text}Z"
