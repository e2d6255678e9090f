"""
The alert on an arm that was rolled back, or of which no number can be trusted; and on an experiment
whose start was refused.

Rule of the file: one alert an arm. It is made once, when the verdict is told, and it fires until
an event takes the traffic of the arm, or ends the experiment: such a verdict stays, so its numbers
do too. The detector is the test that found it first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stream_monitor.alerts.lifecycle import Alerts
from stream_monitor.alerts.wording import number, percent
from stream_monitor.experiments.experiment import Experiment
from stream_monitor.experiments.judgement import MOVED_MIN, MOVED_SHARE, ArmVerdict
from stream_monitor.experiments.measures import Outcome
from stream_monitor.experiments.words import of_race
from stream_monitor.verdicts import AlertKey, Direction, Span, Verdict

DETECTORS = {
    "failures": "race",
    "coverage": "race",
    "sample_ratio": "sample_ratio",
    "two_arms": "threshold",
}
"""By the reason of a verdict; any other reason is a metric, which the sequence judges."""
SEQUENCE, REFUSED = "sequence", "refused"


def alarm_of(experiment: Experiment, found: ArmVerdict, now_ms: int) -> Verdict:
    """
    The alert on an arm whose verdict is `rollback` or `mismatch`.

    Parameters
    ----------
    experiment : Experiment
    found : ArmVerdict
    now_ms : int
        Log time.
    """
    d, first = experiment.definition, found.because[0]
    rolled_back = found.verdict == "rollback"
    value, threshold, direction = _measured(experiment, found, first)
    key = AlertKey(d.model, "", f"arm={found.arm}", "experiment", d.name, _detector(d.races, first))
    whys = "; ".join(_why(experiment, found, reason) for reason in found.because)
    return Verdict(
        key=key,
        level="critical" if rolled_back else "warning",
        clear=False,
        value=value,
        threshold=threshold,
        direction=direction,
        window=Span(experiment.started_ms, now_ms, experiment.rows),
        summary=f"{d.model}: experiment {d.name}, arm {found.arm}: {whys}. "
        + _advice(experiment, found, rolled_back=rolled_back),
        evidence={
            "verdict": found.verdict,
            "because": found.because,
            "phase": experiment.phase,
            **found.evidence,
            "guarantee": "none",
        },
    )


def unjudged(model: str, name: str, reason: str, now_ms: int) -> Verdict:
    """
    The alert on an experiment whose start was refused: routers may split, and nothing judges it.

    Parameters
    ----------
    model, name : str
        Of the experiment.
    reason : str
        Why it was refused.
    now_ms : int
        Log time.
    """
    return Verdict(
        key=AlertKey(model, "", "", "experiment", name, REFUSED),
        level="warning",
        clear=False,
        value=1.0,
        threshold=0.0,
        direction="up",
        window=Span(now_ms, now_ms, 1),
        summary=f"{model}: experiment {name} was refused, so nothing judges it, and routers may "
        f"split all the same: {reason}. Stop it with `stream-monitor experiment stop`",
        evidence={"reason": reason, "guarantee": "none"},
    )


def judged(
    experiments: Iterable[Experiment],
    unjudged: Mapping[str, Mapping[str, Verdict]],
    alerts: Alerts,
    now_ms: int,
) -> Iterator[Verdict]:
    """
    Verdicts of all alarms at a log time, and the ends of those whose experiment is not there now.
    """
    heard: set[AlertKey] = set()
    for of_name in unjudged.values():
        for alarm in of_name.values():
            heard.add(alarm.key)
            yield alarm
    for experiment in experiments:
        names = [arm.name for arm in experiment.definition.arms]
        for arm, alarm in experiment.alarms.items():
            heard.add(alarm.key)
            if experiment.stopped:
                yield _end(alarm.key, now_ms, "the experiment was stopped")
            elif not experiment.weights[b := names.index(arm)] and b not in experiment.held:
                yield _end(alarm.key, now_ms, "the weights give the arm no traffic any more")
            else:
                yield alarm
    for key in [k for k, _ in alerts.firing() if k.kind == "experiment" and k not in heard]:
        refused = key.detector == REFUSED
        yield _end(
            key,
            now_ms,
            "it was stopped, or started under this name"
            if refused
            else "the experiment was stopped and another took its place",
        )


def _detector(races: tuple[Outcome, ...], reason: str) -> str:
    return "race" if any(o.name == reason for o in races) else DETECTORS.get(reason, SEQUENCE)


def _end(key: AlertKey, now_ms: int, why: str) -> Verdict:
    arm = f", {key.segment.replace('=', ' ', 1)}" if key.segment else ""
    return Verdict.end(key, now_ms, f"{key.model}: experiment {key.subject}{arm}: {why}")


def _measured(
    experiment: Experiment, found: ArmVerdict, reason: str
) -> tuple[float, float, Direction | None]:
    """Value, limit and direction of the first reason."""
    evidence = found.evidence.get(reason, {})
    if reason == "sample_ratio" or "first" in evidence:
        return evidence["e"], evidence["needed"], "up"
    if reason == "two_arms":
        return float(experiment.left_out[reason]), _moved_limit(experiment), "up"
    if reason == "coverage":
        control, arm = (_coverage(experiment, a) for a in (0, found.number))
        return arm, control, "down" if arm < control else "up"
    estimate = found.evidence[reason]["estimate"]
    return estimate, 0.0, "down" if estimate < 0 else "up"


def _why(experiment: Experiment, found: ArmVerdict, reason: str) -> str:
    """What was found, with its numbers."""
    d = experiment.definition
    control, arm = d.arms[0].name, found.arm
    if reason == "failures":
        race = found.evidence[reason]
        return (
            f"it fails more often than {control}: of {sum(race['first']):,} units with a failed "
            f"call, {race['first'][1]:,} had their first one in {arm}, which has "
            f"{percent(race['share'])} of the traffic of the two ({_evidence(race)})"
        )
    if reason == "sample_ratio":
        units = ", ".join(f"{a.name} {n:,}" for a, n in zip(d.arms, experiment.counts, strict=True))
        shares = " : ".join(number(w / 100) for w in experiment.weights)
        return (
            f"units do not arrive as the weights {shares} say: {units} "
            f"({_evidence(found.evidence[reason])})"
        )
    if reason == "two_arms":
        return (
            f"{experiment.left_out[reason]:,} of {experiment.rows:,} rows are of units that "
            f"another arm had first; the limit is {number(_moved_limit(experiment))}"
        )
    if reason == "coverage":
        shares = " and ".join(percent(_coverage(experiment, a)) for a in (0, found.number))
        return (
            f"labels come for calls of {control} and of {arm} in different shares: {shares} of "
            "those that are mature have one"
        )
    race = next((o for o in d.races if o.name == reason), None)
    if race is not None:
        first = found.evidence[reason]["first"]
        return (
            f"it has {of_race(race)} more often than {control}: of {sum(first):,} units with one, "
            f"{first[1]:,} had their first one in {arm}, which has "
            f"{percent(found.evidence[reason]['share'])} of the traffic of the two "
            f"({_evidence(found.evidence[reason])})"
        )
    outcome = next(o for o in d.outcomes if o.metric == reason)
    return f"{reason} is worse than that of {control}, by {_difference(outcome, found.evidence)}"


def _difference(outcome: Outcome, evidence: Mapping[str, Any]) -> str:
    contrast = evidence[outcome.metric]
    shown = percent if outcome.is_log else number
    low, high = ("…" if end is None else shown(end) for end in contrast["interval"])
    return f"{shown(contrast['estimate'])} (interval {low} to {high}, valid at every look)"


def _evidence(found: Mapping[str, float]) -> str:
    return f"evidence {number(found['e'])}, {number(found['needed'])} needed"


def _advice(experiment: Experiment, found: ArmVerdict, *, rolled_back: bool) -> str:
    arm, because, d = found.arm, found.because, experiment.definition
    if rolled_back and d.on_rollback == "stop":
        return (
            f"Routers give {arm} no traffic from now on; {d.arms[0].name} has it. Write that down "
            f"as weights ({arm} 0), or stop the experiment"
        )
    if rolled_back:
        return f"Give {arm} the weight 0, or stop the experiment"
    where = {
        "sample_ratio": "Look for what loses or adds units of one arm (a redirect, a cache, "
        "a timeout, a filter)",
        "two_arms": "Look at the router: it must give a unit one arm, by the same salt everywhere",
        "coverage": "Look at who makes the labels: they must not depend on the arm, and `maturity` "
        "must be long enough for the slowest of them",
    }[because[0]]
    return (
        f"No number of this experiment can be trusted. {where}; then stop it and begin one with "
        "another name"
    )


def _moved_limit(experiment: Experiment) -> float:
    return max(float(MOVED_MIN), MOVED_SHARE * experiment.rows)


def _coverage(experiment: Experiment, arm: int) -> float:
    mature, labelled = experiment.mature[arm].tolist()
    return labelled / mature if mature else 0.0
