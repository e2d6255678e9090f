"""
What starts a retraining, and what protects against too many.

Rule of the file: the limits are checked when a trigger is answered, and the answer is an event, so
a configuration that changes later changes no past decision. A person is only stopped by a run or a
rollout that is under way.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from stream_monitor.lifecycle import schedule
from stream_monitor.lifecycle.actions import Action, Facts, Firing, Say
from stream_monitor.lifecycle.events import Accepted, RefusalKind, Refused, Trigger, run_of
from stream_monitor.lifecycle.model import Model, ms_of
from stream_monitor.lifecycle.plan import steps_of
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.times import DAY_MS, rfc3339

SEVERITIES = ("info", "warning", "critical")
BLOCKING = ("data_quality", "freshness")
"""Kinds of alerts during which nothing is trained: the fault would be trained in."""
AFTER_ROLLBACK = 4
"""Cooldowns after a rollback."""


class Refusal(NamedTuple):
    """Why no run may begin."""

    kind: RefusalKind
    words: str


def answer(name: str, m: Model, loop: ModelLoop, facts: Facts, now_ms: int) -> Action | None:
    """The answer to the oldest trigger that has none."""
    if not m.pending:
        return None
    trigger = next(iter(m.pending.values()))
    at, why = rfc3339(now_ms), refusal(name, m, loop, facts, trigger.cause, now_ms)
    if why is not None:
        refused = Refused(model=name, at=at, trigger=trigger.id, reason=why.words, kind=why.kind)
        return Say(refused.named())
    since_ms = now_ms - loop.collect.range_ms if loop.collect else now_ms
    if loop.collect and loop.collect.since_alert and trigger.starts_at:
        since_ms = max(since_ms, ms_of(trigger.starts_at))
    accepted = Accepted(
        model=name,
        at=at,
        trigger=trigger.id,
        run=run_of(trigger.id),
        steps=steps_of(loop),
        since=rfc3339(since_ms),
        until=at,
        approval=loop.limits.approval == "run",
    )
    return Say(accepted.named())


def refusal(
    name: str, m: Model, loop: ModelLoop, facts: Facts, cause: str, now_ms: int
) -> Refusal | None:
    """Why no run may begin now; None: it may."""
    if m.current is not None:
        return Refusal("run", f"run {m.current} is under way")
    if m.rollout is not None:
        return Refusal("rollout", f"the rollout of {m.rollout.version} is under way")
    if cause == "person":
        return None
    return _too_soon(m, loop, now_ms) or _too_little(name, m, loop, facts)


def _too_soon(m: Model, loop: ModelLoop, now_ms: int) -> Refusal | None:
    limits = loop.limits
    if (by := m.paused_by(now_ms)) is not None:
        return Refusal("paused", f"paused by {by}")
    ended = [ms_of(r.changed) for r in m.runs.values()]
    wait_ms = max(ended, default=-limits.cooldown_ms) + limits.cooldown_ms - now_ms
    if wait_ms > 0:
        ago = f"the last run ended less than {limits.cooldown_ms // 1_000} s ago"
        return Refusal("cooldown", f"cooldown: {ago}")
    blocked_ms = ms_of(m.rolled_back) + AFTER_ROLLBACK * limits.cooldown_ms
    if m.rolled_back is not None and now_ms < blocked_ms:
        return Refusal(
            "rolled_back", "a version was rolled back; `retrain run` or `deploy resume` goes on"
        )
    week = sum(r.automatic and now_ms - ms_of(r.at) < 7 * DAY_MS for r in m.runs.values())
    if week >= limits.max_a_week:
        return Refusal(
            "max_a_week", f"{week} runs in seven days, and max_a_week is {limits.max_a_week}"
        )
    return None


def _too_little(name: str, m: Model, loop: ModelLoop, facts: Facts) -> Refusal | None:
    for alert in _live(name, m, facts):
        if alert.kind in BLOCKING:
            return Refusal(
                "bad_data", f"{alert.kind} fires, and a fault of the input would be trained in"
            )
    champion = m.versions.get(m.champion or "")
    trained = m.runs.get(champion.run or "") if champion else None
    since_ms = ms_of(trained.until) if trained else 0
    have = facts.labels(name, None, since_ms)
    if have < loop.limits.min_new_labels:
        return Refusal(
            "few_labels", f"{have} new labels, and min_new_labels is {loop.limits.min_new_labels}"
        )
    return None


def _live(name: str, m: Model, facts: Facts) -> list[Firing]:
    """
    Alerts on what serves. A version that was retired has no traffic: its alerts never end, and
    would start runs, or block them, for ever.
    """
    return [a for a in facts.firing(name) if m.stages.get(a.version, "production") == "production"]


def policy(name: str, m: Model, loop: ModelLoop, facts: Facts, now_ms: int) -> Action | None:
    """A trigger that the configuration asks for."""
    found = (
        _of_alerts(name, m, loop, facts, now_ms)
        or _of_schedule(name, m, loop, now_ms)
        or _of_labels(name, m, loop, facts, now_ms)
    )
    return Say(found) if found is not None else None


def _of_alerts(name: str, m: Model, loop: ModelLoop, facts: Facts, now_ms: int) -> Trigger | None:
    wanted = loop.triggers.alerts
    if wanted is None:
        return None
    for alert in _live(name, m, facts):
        severe = SEVERITIES.index(alert.severity) >= SEVERITIES.index(wanted.severity)
        if alert.kind in wanted.kinds and severe and now_ms - alert.starts_ms >= wanted.for_ms:
            found = _of_episode(name, m, alert, now_ms)
            refused = found.again > 0
            if found.id in m.answered or found.id in m.pending:
                continue
            if not refused or refusal(name, m, loop, facts, "alert", now_ms) is None:
                return found
    return None


def _of_episode(name: str, m: Model, alert: Firing, now_ms: int) -> Trigger:
    """The trigger of an episode: the first, or the one after it was refused."""
    trigger = Trigger(
        model=name,
        at=rfc3339(now_ms),
        cause="alert",
        fingerprint=alert.fingerprint,
        starts_at=rfc3339(alert.starts_ms),
        comment=alert.summary,
    ).named()
    held_back = trigger.id in m.held_back
    return msgspec.structs.replace(trigger, again=1).named() if held_back else trigger


def _of_schedule(name: str, m: Model, loop: ModelLoop, now_ms: int) -> Trigger | None:
    """
    The newest time that is over, and none before it: who was away for several gets one run. A new
    schedule begins with its next time, or with one of the last day.
    """
    if loop.triggers.schedule is None:
        return None
    due_ms = schedule.last_before(loop.triggers.schedule, now_ms)
    if due_ms is None or (m.scheduled is None and now_ms - due_ms > DAY_MS):
        return None
    found = Trigger(model=name, at=rfc3339(due_ms), cause="schedule").named()
    return None if found.id in m.answered or found.id in m.pending else found


def _of_labels(name: str, m: Model, loop: ModelLoop, facts: Facts, now_ms: int) -> Trigger | None:
    wanted = loop.triggers.new_labels
    if wanted is None or m.current is not None or m.rollout is not None:
        return None
    since_ms = max((ms_of(r.until) for r in m.runs.values()), default=0)
    if facts.labels(name, None, since_ms) < wanted:
        return None
    if refusal(name, m, loop, facts, "labels", now_ms) is not None:
        return None
    return Trigger(model=name, at=rfc3339(now_ms), cause="labels").named()
