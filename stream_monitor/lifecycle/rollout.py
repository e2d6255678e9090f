"""
A version on its way into production, and the way back.

Rule of the file: back comes first, asks nobody and needs no labels. Forward needs time, labels and
no alert; without data a stage waits, and at its deadline a person is asked. A person's word about
the weights stands: the rollout pauses.

The traffic is that of an experiment (`docs/experiments.md`). A controller that dies between two
events says the second when it comes back, and what is said until then is right for the routers: on
the way back the experiment ends before the stage changes, at a promotion after it.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec

from stream_monitor.lifecycle import before_after, people, traffic
from stream_monitor.lifecycle.actions import Action, Execute, Facts, Firing, Say, Tell
from stream_monitor.lifecycle.events import Deployment, Rollout, Stage, StageName
from stream_monitor.lifecycle.model import Model, Trial, ms_of
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.times import rfc3339

HOLDING = ("warning", "critical")
WaitKind = Literal[
    "approval",
    "inconclusive",
    "deadline",
    "mismatch",
    "refused",
    "weights",
    "paused",
    "alert",
    "time",
    "labels",
]


class Wait(NamedTuple):
    """What a run or a rollout waits for."""

    kind: WaitKind
    words: str


# ---- back


def back(name: str, m: Model, loop: ModelLoop, facts: Facts, now_ms: int) -> Action | None:
    """What takes a rollout back: its commands in reverse order, its traffic, its stage."""
    loose = next((n for n, t in m.trials.items() if _is_loose(m, n, t)), None)
    if loose is not None:
        keep = m.champion if m.champion in m.trials[loose].weights else None
        return Tell(traffic.stopped(name, loose, keep, now_ms, "its rollout is over"))
    r = m.rollout
    why = _why_back(name, m, r, facts, loop, now_ms) if r is not None else None
    if r is not None and why is not None and r.against is not None:
        trial = m.trials.get(r.experiment)
        if trial is not None and (not trial.stopped or trial.keep == r.version):
            return Tell(traffic.stopped(name, r.experiment, r.against, now_ms, why))
    undo = _undo(m, loop)
    if undo is not None or r is None or why is None:
        return undo
    stages: dict[str, StageName] = {**m.stages, r.version: "retired"}
    if r.against is not None:
        stages[r.against] = "production"
    return Say(_stage(name, m, stages, None, why, now_ms))


def _is_loose(m: Model, experiment: str, trial: Trial) -> bool:
    """An experiment of a rollout that is over, because a person named the stages."""
    under_way = m.rollout is not None and m.rollout.experiment == experiment
    return trial.of_rollout and not trial.stopped and not under_way


def _why_back(
    name: str, m: Model, r: Rollout, facts: Facts, loop: ModelLoop, now_ms: int
) -> str | None:
    if m.asked is not None and m.asked.what == "rollback" and m.asked.version in (None, r.version):
        return f"{m.asked.by} asked for it"
    if r.version in m.rejected:
        return f"rejected by {m.rejected[r.version]}"
    trial = m.trials.get(r.experiment)
    if trial is not None and trial.verdicts.get(r.version) == "rollback":
        because = ", ".join(trial.difference(n) for n in trial.because.get(r.version, []))
        return f"verdict rollback of {r.experiment}: {because}{trial.counted}"
    failed = next((d for d in m.deployments.get(r.experiment, []) if d.outcome == "failed"), None)
    if failed is not None:
        return f"the command {failed.command} failed at stage {failed.step + 1}"
    for alert in _alerts(name, r, m, facts):
        if alert.severity == "critical":
            return f"alert: {alert.summary}"
    if trial is not None and trial.stopped and trial.keep != r.version and r.against is not None:
        return f"{r.experiment} was stopped"
    if loop.deploy.on_deadline == "rollback" and _is_late(r, loop, now_ms):
        return f"the deadline of stage {r.step + 1} is over"
    return None


def _alerts(name: str, r: Rollout, m: Model, facts: Facts) -> list[Firing]:
    """Alerts on the version that began in its rollout."""
    trial = m.trials.get(r.experiment)
    began_ms = ms_of(trial.at) if trial else ms_of(r.since)
    return [
        a
        for a in facts.firing(name)
        if a.version == r.version and a.starts_ms >= began_ms and a.kind != "experiment"
    ]


def _undo(m: Model, loop: ModelLoop) -> Execute | None:
    """The last command of a deployment that failed or was taken back, and still stands."""
    experiment = _gone_back(m)
    if experiment is None:
        return None
    done: list[Deployment] = []
    for d in m.deployments[experiment]:
        if d.outcome == "done":
            done.append(d)
        else:
            done = [s for s in done if (s.step, s.command) != (d.step, d.command)]
    with_rollback = {c.name for c in loop.deploy.commands if c.rollback}
    left = [d for d in done if d.command in with_rollback]
    return Execute(experiment, left[-1].step, left[-1].command, undo=True) if left else None


def _gone_back(m: Model) -> str | None:
    """The experiment of the newest deployment, if it failed or its version was taken back."""
    newest = next(reversed(m.deployments), None)
    if newest is None:
        return None
    under_way = m.rollout is not None and m.rollout.experiment == newest
    failed = any(d.outcome == "failed" for d in m.deployments[newest])
    kept = m.trials[newest].keep if newest in m.trials else None
    version = newest.rpartition("-")[0]  # a person's rollback leaves no rollout to ask
    retired = not under_way and m.stages.get(version, "retired") == "retired"
    return newest if failed or retired or (under_way and kept not in (None, version)) else None


# ---- forward


def forward(name: str, m: Model, loop: ModelLoop, facts: Facts, now_ms: int) -> Action | None:
    """The next thing on the way into production."""
    r = m.rollout
    why_not = _why_not(m, loop)
    if why_not is not None:
        return Say(_stage(name, m, m.stages, r, why_not, now_ms))
    if r is None:
        return _begin(name, m, loop, now_ms)
    percent = r.stages[r.step]
    if r.state == "watch":
        return _watched(name, m, r, loop, facts, now_ms)
    trial = m.trials.get(r.experiment)
    by_hand = trial is not None and trial.by != "controller" and not trial.stopped
    if by_hand and r.state != "paused":
        paused = msgspec.structs.replace(r, state="paused")
        why = f"{trial.by if trial else ''} changed the weights by hand"
        return Say(_stage(name, m, m.stages, paused, why, now_ms))
    if by_hand:
        return _next_stage(name, m, r, loop, facts, now_ms)
    if r.state == "paused":
        running = msgspec.structs.replace(r, state="running", since=rfc3339(now_ms))
        return Say(_stage(name, m, m.stages, running, "it goes on", now_ms))
    kept = trial is not None and trial.keep == r.version
    return (
        _deploy(name, m, r, percent, loop, now_ms)
        or (_promote(name, m, r, now_ms) if percent == 100 or kept else None)
        or _next_stage(name, m, r, loop, facts, now_ms)
    )


def _why_not(m: Model, loop: ModelLoop) -> str | None:
    """Why what a person asks for cannot be done; it is said, so that it is not done later."""
    asked, r = m.asked, m.rollout
    if asked is None:
        return None
    what = f"{asked.by} asked for {asked.what} {asked.version or ''}".rstrip()
    if r is None and (asked.what == "rollback" or asked.version is None):
        return f"{what}, and there is no rollout"
    if r is None and asked.version not in m.versions and asked.version not in m.deployed:
        return f"{what}, and there is no such version"
    if r is not None and (asked.what != "promote" or asked.version not in (None, r.version)):
        return f"{what}, and the rollout of {r.version} is under way"
    if r is not None and r.state == "watch":
        return f"{what}, and it is in production"
    if asked.what == "promote":
        lacks = people.lacks_another(m, loop, r.version if r else asked.version, asked.by)
        return f"{what}, and {lacks}" if lacks is not None else None
    return None


def _begin(name: str, m: Model, loop: ModelLoop, now_ms: int) -> Action | None:
    asked = m.asked
    wanted = asked.version if asked is not None and asked.what in ("start", "promote") else None
    reason, run = (f"{asked.by} asked for it" if asked is not None else ""), None
    if wanted is None:
        last = next(reversed(m.runs.values()), None)
        if last is None or last.end != "done" or last.version is None or m.paused_by(now_ms):
            return None
        wanted, run = last.version, last.run
        decided = last.results.get("decide", {})
        reason = str(decided.get("reason", f"run {last.run} made it"))
    if asked is None and (wanted in m.deployed or wanted in m.rejected):
        return None
    champion = m.champion
    if champion == wanted:
        why = f"{wanted} is in production already"
        return Say(_stage(name, m, m.stages, None, why, now_ms))
    straight = champion is None or (asked is not None and asked.what == "promote")
    stages = (100.0,) if straight else loop.deploy.stages
    since = rfc3339(now_ms)
    salt = blake2b(f"{wanted} {since}".encode(), digest_size=3).hexdigest()
    rollout = Rollout(
        version=wanted,
        against=champion,
        experiment=f"{wanted}-{salt}",
        stages=stages,
        step=0,
        since=since,
        run=run,
        by=asked.by if asked is not None else "",
    )
    named: StageName = "shadow" if stages[0] == 0 else "canary"
    return Say(_stage(name, m, {**m.stages, wanted: named}, rollout, reason, now_ms))


def _deploy(
    name: str, m: Model, r: Rollout, percent: float, loop: ModelLoop, now_ms: int
) -> Action | None:
    """Commands and weights of the stage in force, in this order."""
    done = {(d.step, d.command) for d in m.deployments.get(r.experiment, [])}
    for command in loop.deploy.commands:
        if (r.step, command.name) not in done:
            return Execute(r.experiment, r.step, command.name, undo=False)
    trial = m.trials.get(r.experiment)
    if r.against is None or percent in (0, 100):
        return None
    weights = {r.against: 100 - percent, r.version: percent}
    if trial is None:
        return Tell(traffic.started(name, r, weights, loop, now_ms))
    if trial.weights.get(r.version) != percent:
        because = f"stage {r.step + 1} of {len(r.stages)}"
        return Tell(traffic.changed(name, r.experiment, weights, now_ms, because))
    return None


def _promote(name: str, m: Model, r: Rollout, now_ms: int) -> Action:
    stages: dict[str, StageName] = {**m.stages, r.version: "production"}
    if r.against is not None:
        stages[r.against] = "retired"
    watched = msgspec.structs.replace(r, state="watch", since=rfc3339(now_ms))
    counted = m.trial.counted if m.trial is not None else ""
    return Say(_stage(name, m, stages, watched, f"promoted{counted}", now_ms))


def _next_stage(
    name: str, m: Model, r: Rollout, loop: ModelLoop, facts: Facts, now_ms: int
) -> Action | None:
    waits = waiting_for(name, m, r, loop, facts, now_ms)
    pushed = m.asked is not None and m.asked.what == "promote"
    if waits is None or pushed:
        step = min(r.step + 1, len(r.stages) - 1)
        following = msgspec.structs.replace(r, step=step, since=rfc3339(now_ms), state="running")
        stages: dict[str, StageName] = {**m.stages, r.version: "canary"}
        reason = f"{m.asked.by} asked for it" if m.asked and pushed else "every gate is open"
        return Say(_stage(name, m, stages, following, reason, now_ms))
    if _is_late(r, loop, now_ms) and r.state == "running":
        late = msgspec.structs.replace(r, state="late")
        return Say(_stage(name, m, m.stages, late, f"the deadline is over: {waits.words}", now_ms))
    return None


def waiting_for(
    name: str, m: Model, r: Rollout, loop: ModelLoop, facts: Facts, now_ms: int
) -> Wait | None:
    """What the stage in force waits for; None: nothing."""
    d = loop.deploy
    if r.state == "paused":
        return Wait("weights", "the weights were changed by hand")
    if (by := m.paused_by(now_ms)) is not None:
        return Wait("paused", f"paused by {by}")
    if r.state == "late":
        return Wait("deadline", "a person: the deadline is over")
    trial = m.trials.get(r.experiment)
    if trial is not None and trial.refused is not None:
        return Wait("refused", f"a person: the worker refused {r.experiment}: {trial.refused}")
    if trial is not None and trial.verdicts.get(r.version) == "mismatch":
        return Wait("mismatch", f"a person: verdict mismatch of {r.experiment}")
    held = next((a for a in _alerts(name, r, m, facts) if a.severity in HOLDING), None)
    if held is not None:
        return Wait("alert", f"the end of an alert: {held.summary}")
    left_ms = ms_of(r.since) + d.min_time_ms - now_ms
    if left_ms > 0:
        return Wait("time", f"{-(-left_ms // 1_000)} s of {d.min_time_ms // 1_000} s")
    labels = facts.labels(name, r.version, ms_of(r.since))
    if trial is not None:  # the history tells minutes, the experiment tells at once
        labels = max(labels, int(trial.progress.get("outcomes", {}).get(r.version, 0)))
    if labels < d.min_labels:
        return Wait("labels", f"{labels} of {d.min_labels} labels")
    is_last = r.step + 2 == len(r.stages)
    is_approved = people.is_approved(m, loop, r.version)
    if is_last and loop.limits.approval == "promotion" and not is_approved:
        own = sorted(people.starters(m, r.version)) if loop.limits.two_people else []
        not_by = f", not by {' or '.join(own)}" if own else ""
        what = f"a person{not_by}: deploy promote, or retrain approve {r.run or r.version}"
        return Wait("approval", what)
    return None


def _watched(
    name: str, m: Model, r: Rollout, loop: ModelLoop, facts: Facts, now_ms: int
) -> Action | None:
    trial = m.trials.get(r.experiment)
    if trial is not None and not trial.stopped:
        # after the stage: in between routers would give everybody the old version
        return Tell(traffic.stopped(name, r.experiment, r.version, now_ms, "promoted"))
    end_ms = ms_of(r.since) + loop.deploy.watch_ms
    if now_ms < end_ms:
        return None
    return before_after.compared(name, m, loop, facts, now_ms) or Say(
        _stage(name, m, m.stages, None, "in production", now_ms)
    )


# ---- events


def _is_late(r: Rollout, loop: ModelLoop, now_ms: int) -> bool:
    return r.state != "watch" and now_ms - ms_of(r.since) > loop.deploy.deadline_ms


def _stage(
    name: str,
    m: Model,
    stages: dict[str, StageName],
    rollout: Rollout | None,
    reason: str,
    now_ms: int,
) -> Stage:
    live = next((v for v, s in stages.items() if s == "production"), None)
    known = m.versions.get(live or "")
    return Stage(
        model=name,
        at=rfc3339(now_ms),
        stages=stages,
        rollout=rollout,
        reference=known.reference if known else "",
        reason=reason,
        answers=m.asked.id if m.asked else "",
    ).named()
