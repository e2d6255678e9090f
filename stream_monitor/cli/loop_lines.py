"""
A run and a rollout in lines for people: what happens, since when, what it waits for and who may end
the waiting; afterwards why.

Rule of the file: values in, lines out; nothing is read and nothing is printed. Text of a topic has
no control characters when it leaves here.
"""

from __future__ import annotations

from collections.abc import Iterable
from shlex import quote
from typing import TYPE_CHECKING

from stream_monitor.alerts.wording import duration
from stream_monitor.cli.terminal import readable
from stream_monitor.lifecycle import before_after, triggers
from stream_monitor.lifecycle.model import APPROVAL, COLLECT, DECIDE, REGISTER, Model, Run, ms_of
from stream_monitor.times import DAY_MS, HOUR_MS

if TYPE_CHECKING:
    from stream_monitor.lifecycle.actions import Facts
    from stream_monitor.lifecycle.events import Rollout
    from stream_monitor.lifecycle_settings import ModelLoop

SILENT_MS = 30_000
"""Longer, and a controller that should go on is probably away."""
AWAY = "is `stream-monitor controller` running?"


def ago(at: str, now_ms: int) -> str:
    """
    How long ago a time was, for people.

    >>> ago("1970-01-01T00:00:01Z", 22_000)
    '21 s ago'
    """
    return f"{duration(max(now_ms - ms_of(at), 0) // 1_000)} ago"


def indented(facts: Iterable[tuple[str, str | None]]) -> list[str]:
    """
    Lines of facts that are known, each behind its name.

    >>> indented([("why", "an alert"), ("decided", None)])
    ['  why      an alert']
    """
    return [readable(f"  {name:<8} {text}") for name, text in facts if text]


def why(run: Run) -> str:
    """What asked for a run, with the numbers of the alert."""
    asked = run.trigger
    if asked.cause == "person":
        return f"{asked.by} asked for it" + (f": {asked.comment}" if asked.comment else "")
    about = asked.comment or {"labels": "enough new labels", "schedule": "the schedule"}.get(
        asked.cause, ""
    )
    return f"{asked.cause}: {about}" if about else asked.cause


def decided(run: Run) -> str | None:
    """The decision on the challenger, with its numbers."""
    found = run.results.get(DECIDE, {})
    return f"{found['decision']}: {found.get('reason', '')}" if "decision" in found else None


def ending(run: Run) -> str:
    """How a run ended."""
    same = run.reason == run.results.get(DECIDE, {}).get("reason")
    because = f": {run.reason}" if run.reason and not same else ""
    return f"{run.end}{f', {run.version}' if run.version else ''}{because}"


def wait_of(run: Run, loop: ModelLoop, now_ms: int) -> tuple[str, str]:
    """What a run waits for, and how the waiting can be ended."""
    cancel = f"stream-monitor retrain cancel {run.run}"
    approve = f"stream-monitor retrain approve {run.run}"
    people = f", not by {run.trigger.by}" if loop.limits.two_people else ""
    if run.step == APPROVAL and run.approved_by is None:
        return f"a person{people} (limits.approval is run)", f"{approve}, or {cancel}"
    if run.results.get(DECIDE, {}).get("decision") == "inconclusive" and run.approved_by is None:
        return f"a person{people}: the decision is inconclusive", f"{approve}, or {cancel}"
    silent = now_ms - ms_of(run.changed) > SILENT_MS
    if run.step is None or not run.started:
        return "the controller" + (f"; {AWAY}" if silent else ""), cancel
    if run.step in (DECIDE, REGISTER):
        return "the controller, which does this step itself", cancel
    limit_s = _limit_ms(run.step, loop) // 1_000
    return f"the end of its command, at most {duration(limit_s)}", cancel


def _limit_ms(step: str, loop: ModelLoop) -> int:
    known = {s.name: s.timeout_ms for s in loop.steps}
    return known.get(step, HOUR_MS if step == COLLECT else DAY_MS)


def run_lines(name: str, run: Run, loop: ModelLoop, now_ms: int) -> list[str]:
    """The run that is under way."""
    place = (
        f"step {run.steps.index(run.step) + 1} of {len(run.steps)}"
        if (run.step in run.steps)
        else "before its first step"
        if run.step
        else "ending"
    )
    again = f", attempt {run.attempt}" if run.attempt > 1 else ""
    waits, end = wait_of(run, loop, now_ms)
    steps = " → ".join(f"[{s}]" if s == run.step else s for s in run.steps)
    return [
        readable(f"{name}  run {run.run}: {run.step or 'ending'} ({place}){again}"),
        *indented(
            [
                ("since", f"{ago(run.changed, now_ms)}; the run began {ago(run.at, now_ms)}"),
                ("why", why(run)),
                ("steps", steps),
                ("decided", decided(run)),
                ("waits", f"for {waits}"),
                ("to end", end),
            ]
        ),
    ]


def idle_lines(name: str, m: Model, loop: ModelLoop, facts: Facts, now_ms: int) -> list[str]:
    """No run is under way: what was last, and what the next one waits for."""
    if m.pending:
        oldest = next(iter(m.pending.values()))
        silent = now_ms - ms_of(oldest.at) > SILENT_MS
        lines = [f"{name}  a run is asked for since {ago(oldest.at, now_ms)}, and not answered yet"]
        return lines + indented([("waits", "for the controller" + (f"; {AWAY}" if silent else ""))])
    last = next(reversed(m.runs.values()), None)
    lines = [f"{name}  no run is under way"]
    if last is not None:
        lines += indented(
            [
                ("last", f"run {last.run} ended {ago(last.changed, now_ms)}: {ending(last)}"),
                ("why", why(last)),
                ("decided", decided(last)),
            ]
        )
    return lines + indented([("next", _next(name, m, loop, facts, now_ms))])


def _next(name: str, m: Model, loop: ModelLoop, facts: Facts, now_ms: int) -> str:
    """What would start a run, and what holds it up."""
    held = triggers.refusal(name, m, loop, facts, "alert", now_ms)
    wanted = loop.triggers
    if held is not None:
        by_hand = "" if held.kind in ("run", "rollout") else "; `stream-monitor retrain run` may"
        return f"none begins by itself now: {held.words}{by_hand}"
    of = wanted.alerts
    if of is not None:
        for alert in facts.firing(name):
            left_s = (alert.starts_ms + of.for_ms - now_ms) // 1_000
            if alert.kind in of.kinds and left_s > 0:
                return f"in {duration(left_s)}, if this alert still fires: {alert.summary}"
    causes = [
        *(["an alert"] if wanted.alerts is not None else []),
        *([f"the schedule {wanted.schedule}"] if wanted.schedule else []),
        *([f"{wanted.new_labels:,} new labels"] if wanted.new_labels else []),
        f"`stream-monitor retrain run {quote(name)}`",
    ]
    return f"begins by {' or '.join(causes)}"


def refusal_lines(m: Model, now_ms: int) -> list[str]:
    """The newest request that was refused, and why."""
    return indented(
        ("refused", f"{ago(each.at, now_ms)}: {each.reason}") for each in m.refused[-1:]
    )


def history_lines(name: str, run: Run, now_ms: int) -> list[str]:
    """One run: when, how it ended, and why."""
    took = duration(max(ms_of(run.changed) - ms_of(run.at), 0) // 1_000)
    how = ending(run) if run.end else f"under way, at {run.step or 'its end'}"
    who = f"by {run.approved_by}" if run.approved_by else None
    return [
        readable(f"{name}  {run.run}  {ago(run.at, now_ms)}, {took}  {how}"),
        *indented([("why", why(run)), ("decided", decided(run)), ("approved", who)]),
    ]


def rollout_lines(
    name: str, m: Model, r: Rollout, loop: ModelLoop, waits: str | None, now_ms: int
) -> list[str]:
    """The rollout that is under way."""
    back = f"stream-monitor deploy rollback --model {quote(name)}"
    on = f"stream-monitor deploy promote --model {quote(name)}"
    percent = f"{r.stages[r.step]:g} % of the traffic"
    place = f"stage {r.step + 1} of {len(r.stages)}, {percent}"
    if r.state == "watch":
        left_s = max(ms_of(r.since) + loop.deploy.watch_ms - now_ms, 0) // 1_000
        place = f"in production, {percent}, watched for faults"
        waits, end = f"{duration(left_s)} more; a critical alert on it takes it back", back
    elif waits is None:
        waits, end = f"the controller; {AWAY}", f"{back} (goes back)"
    elif m.paused is not None:
        end = f"stream-monitor deploy resume {quote(name)} (goes on), or {back} (goes back)"
    else:
        end = f"{on} (goes on), or {back} (goes back)"
    because = m.runs.get(r.run or "")
    known = m.versions.get(r.version)
    baseline = (
        f"{known.reference[:12]} of {r.version}: workers use it from its place in the log on; "
        "`model_info` shows it"
        if known is not None and known.reference
        else None
    )
    return indented(
        [
            ("rollout", f"{r.version} against {r.against or 'nothing'}: {place}"),
            ("since", ago(r.since, now_ms)),
            ("waits", f"for {waits}"),
            ("to end", end),
            ("why", f"run {because.run}, {why(because)}" if because else None),
            ("decided", decided(because) if because else None),
            ("baseline", baseline),
            ("verdicts", f"experiment {r.experiment}: stream-monitor experiment status"),
        ]
    )


def compared_line(m: Model, loop: ModelLoop, now_ms: int) -> str | None:
    """Before and after the newest promotion, in the metrics of both, or why it is not compared."""
    c, p = m.compared, m.promoted
    if p is not None and p.against is not None and m.champion == p.version:
        what = f"{p.against} → {p.version}: not compared"
        if before_after.is_wanted(m, loop, now_ms):
            return (
                f"{what} yet; {before_after.waits_for(m, loop, now_ms)}"
                if m.rollout is None or m.rollout.state == "watch"
                else None
            )
        if c is None or c.experiment != p.experiment:
            return f"{what}, no whole minute of `history` of both has labels"
    if c is None or m.stages.get(c.version) != "production":
        return None
    both = before_after.in_both(c.before, c.after)
    numbers = ", ".join(f"{n} {c.before[n]:.4g} → {c.after[n]:.4g}" for n in both)
    labels = f"{int(c.before.get('labels', 0)):,} and {int(c.after.get('labels', 0)):,} labels"
    if not both:
        return f"{c.against} → {c.version}: not compared, no whole minute of both has labels"
    return f"{c.against} → {c.version}: {numbers} ({labels})"


def deploy_lines(name: str, m: Model, loop: ModelLoop, waits: str | None, now_ms: int) -> list[str]:
    """Stages of all versions, the rollout, and why the last change was made."""
    from stream_monitor.lifecycle.tags import in_order

    used = ", ".join(f"{v} {s}" for v in in_order(m.stages) if (s := m.stages[v]) != "retired")
    none = "no version is deployed; `stream-monitor models promote VERSION` says which one is"
    lines = [readable(f"{name}  {used or none}")]
    if m.rollout is not None:
        lines += rollout_lines(name, m, m.rollout, loop, waits, now_ms)
    last, paused = m.stage, m.paused
    asked = m.asked
    return lines + indented(
        [
            (
                "asked",
                f"{asked.what} {asked.version or ''}".strip() + f" by {asked.by}, "
                f"{ago(asked.at, now_ms)}; the controller has not done it yet"
                if asked
                else None,
            ),
            ("last", f"{ago(last.at, now_ms)} by {last.by}: {last.reason}" if last else None),
            ("after", compared_line(m, loop, now_ms)),
            (
                "paused",
                f"by {paused.by}, {ago(paused.at, now_ms)}; "
                f"`stream-monitor deploy resume {quote(name)}` goes on"
                if paused
                else None,
            ),
        ]
    )
