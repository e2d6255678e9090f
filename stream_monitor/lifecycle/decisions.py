"""
What is to be done next for a model.

Rule of the file: pure functions of the fold, the configuration, what EVALUATE wrote and the time.
One action at a time: each leads to an event, and the next decision reads it. What makes a rollout
go back comes first, and it asks nobody.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stream_monitor.lifecycle import before_after, rollout, triggers
from stream_monitor.lifecycle.actions import Action, Facts, Say, Work
from stream_monitor.lifecycle.events import Ended, Retraining
from stream_monitor.lifecycle.model import APPROVAL, DECIDE, Model, Run, ms_of
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.times import DAY_MS, rfc3339

SAID_AGAIN_MS = 30 * DAY_MS
"""`lifecycle` forgets after a year, so the stages are said again."""
PAUSES_MS = (5_000, 60_000)
"""Before the second start of a step, and before each later one: a remote may be away."""


def next_action(name: str, m: Model, loop: ModelLoop, facts: Facts, now_ms: int) -> Action | None:
    """
    The one thing to do now for a model; None: wait.

    Parameters
    ----------
    name : str
        The model.
    m : Model
    loop : ModelLoop
    facts : Facts
    now_ms : int
        Wall clock.
    """
    return (
        rollout.back(name, m, loop, facts, now_ms)
        or triggers.answer(name, m, loop, facts, now_ms)
        or _run(name, m, loop, now_ms)
        or rollout.forward(name, m, loop, facts, now_ms)
        or (before_after.compared(name, m, loop, facts, now_ms) if m.rollout is None else None)
        or triggers.policy(name, m, loop, facts, now_ms)
        or _said_again(m, now_ms)
    )


def _run(name: str, m: Model, loop: ModelLoop, now_ms: int) -> Action | None:
    run = m.runs.get(m.current or "")
    if run is None:
        return None
    at = rfc3339(now_ms)
    over = _over(run)
    if over is not None:
        end, reason = over
        return Say(Ended(model=name, at=at, run=run.run, end=end, reason=reason).named())
    if run.step is None:
        ended = Ended(model=name, at=at, run=run.run, end="done", version=run.version)
        return Say(ended.named())
    if run.step == APPROVAL:
        if not is_approved(run, loop):
            return None
        done = Retraining(
            model=name,
            at=at,
            run=run.run,
            step=APPROVAL,
            outcome="done",
            result={"by": run.approved_by},
        )
        return Say(done.named())
    if run.results.get(DECIDE, {}).get("decision") == "inconclusive" and not is_approved(run, loop):
        return None
    pause_ms = PAUSES_MS[min(run.attempt, len(PAUSES_MS) + 1) - 2] if run.attempt > 1 else 0
    if not run.started and now_ms - ms_of(run.changed) < pause_ms:
        return None
    if not run.started:
        began = Retraining(
            model=name, at=at, run=run.run, step=run.step, attempt=run.attempt, outcome="started"
        )
        return Say(began.named())
    return Work(run.run, run.step, run.attempt)


def is_approved(run: Run, loop: ModelLoop) -> bool:
    """Whether a person let a run go on; with `two_people` another one than who started it."""
    own = loop.limits.two_people and run.approved_by == run.trigger.by
    return run.approved_by is not None and not own


def _over(run: Run) -> tuple[Any, str] | None:
    if run.cancelled_by is not None:
        return "cancelled", f"cancelled by {run.cancelled_by}"
    if run.rejected_by is not None:
        return "rejected", f"rejected by {run.rejected_by}"
    if run.failed is not None:
        return "failed", run.failed
    decided = run.results.get(DECIDE, {})
    if decided.get("decision") == "reject":
        return "rejected", str(decided.get("reason", "the challenger is not better"))
    return None


def _said_again(m: Model, now_ms: int) -> Action | None:
    if m.stage is None or now_ms - ms_of(m.stage.at) < SAID_AGAIN_MS:
        return None
    said = msgspec.structs.replace(
        m.stage, at=rfc3339(now_ms), by="controller", answers="", epoch=None
    )
    return Say(said.named())
