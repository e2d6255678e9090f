"""
The verdict on each arm, and the evidence for it.

Rule of the file: pure functions of an experiment at a log time. Verdicts in their order:
`mismatch`, `rollback`, `promote`, `inconclusive`, `continue`. Without data it is `continue`.
Everything holds at every look at once, except for `fixed_horizon`.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

from stream_monitor.arrays import Float
from stream_monitor.experiments.experiment import (
    FAILURES,
    GUARDS,
    UNLABELLED,
    UNLABELLED_CONTROL,
    Experiment,
)
from stream_monitor.experiments.measures import Outcome
from stream_monitor.stats.confidence_sequences import (
    RARER_MIN,
    UNIT_SHARE_MAX,
    UNITS_MIN,
    half_width,
    log_evidence_above,
)
from stream_monitor.stats.fixed_horizon import EffectSize, cohens_d, cohens_h, welch
from stream_monitor.stats.unit_sums import NN, XX, N, X, difference, effective_units, rarer_answers
from stream_monitor.times import HOUR_MS

VerdictName = Literal["continue", "promote", "rollback", "mismatch", "inconclusive"]
FINAL: tuple[VerdictName, ...] = ("rollback", "mismatch")
"""Verdicts that stay once they are given."""
MOVED_SHARE, MOVED_MIN = 0.01, 100
"""More rows than both from units that another arm had first: that is no experiment."""
NO_UNIT_SHARE = 0.01
FIRST_PHASE = 0.95


class Contrast(NamedTuple):
    """An arm against the control, by one outcome."""

    ready: bool
    enough: bool
    """The burn-in is over. It is not ready nevertheless if a verdict hangs on one unit."""
    estimate: float
    log_e_worse: float
    better_by: float
    """The arm is better by at least so much; negative: not worse than that."""
    worse_by: float
    """The arm is worse by at least so much."""
    step: float
    evidence: dict[str, Any]


class ArmVerdict(NamedTuple):
    """The verdict on an arm, its reasons, and its numbers."""

    number: int
    arm: str
    verdict: VerdictName
    because: list[str]
    evidence: dict[str, Any]


def risk_of_phase(steps: int, phase: int) -> float:
    """
    The part of the chance of an error that a phase may spend: equal parts where a rollout names
    its steps (nothing is left for a phase beyond them). Otherwise nearly all is for the first
    phase, because most experiments have one, and 6 / (π² k²) of the rest for the k-th after it.

    >>> risk_of_phase(4, 1), risk_of_phase(4, 5), risk_of_phase(0, 1), round(risk_of_phase(0, 2), 3)
    (0.25, 0.0, 0.95, 0.03)
    """
    if steps:
        return 1 / steps if phase <= steps else 0.0
    later = (1 - FIRST_PHASE) * 6 / (math.pi * max(phase - 1, 1)) ** 2
    return FIRST_PHASE if phase == 1 else later


def look(experiment: Experiment, now_ms: int, *, lean: bool = False) -> list[ArmVerdict]:
    """
    The verdict on every arm but the control.

    Parameters
    ----------
    experiment : Experiment
    now_ms : int
        Log time.
    lean : bool
        Whether only what is new counts. A verdict that was told already, and its evidence, may
        then hang on one unit.

    Notes
    -----
    About 50 µs an arm and outcome. Where a verdict hangs on an outcome, 25 ns a unit more.
    """
    arms = range(1, len(experiment.definition.arms))
    return [_of_arm(experiment, b, now_ms, lean=lean) for b in arms]


def is_new(experiment: Experiment, arm: str, verdict: VerdictName) -> bool:
    """Whether a verdict is to be told: once a phase, and nothing after those that stay."""
    told = experiment.told.get(arm, {})
    over = verdict == "continue" or any(v in told for v in FINAL)
    return not over and told.get(verdict) != experiment.phase


def standing(experiment: Experiment, now_ms: int) -> list[ArmVerdict]:
    """The verdicts in force: as `look`, but those that stay are those that were told."""
    out = []
    for found in look(experiment, now_ms):
        told = experiment.told.get(found.arm, {})
        verdict = next((v for v in FINAL if v in told), None)
        alarm = experiment.alarms.get(found.arm)
        if verdict is not None and alarm is not None:
            because = [str(b) for b in alarm.evidence["because"]]  # type: ignore[attr-defined]
            found = found._replace(verdict=verdict, because=because)
        out.append(found)
    return out


def _of_arm(experiment: Experiment, b: int, now_ms: int, *, lean: bool) -> ArmVerdict:
    d, name = experiment.definition, experiment.definition.arms[b].name
    risk = risk_of_phase(d.steps, experiment.phase)
    others = len(d.arms) - 1
    contrasts = [
        _contrast(experiment, o, b, d.alpha * risk / others) for o in range(len(d.outcomes))
    ]
    guards = (len(d.outcomes) + 1 + len(d.races)) * others
    needed = math.log(guards / d.alpha_guard)
    needed_here = needed - math.log(risk) if risk else math.inf
    verdict, because = _verdict(experiment, b, now_ms, contrasts, needed, needed_here)
    if not lean or is_new(experiment, name, verdict):
        for o, c in enumerate(contrasts):
            if _is_worse(o, c, needed_here) or (not o and _is_good(d.outcomes[0], c)):
                contrasts[o] = _unless_of_one_unit(experiment, o, b, c, lean=lean)
        verdict, because = _verdict(experiment, b, now_ms, contrasts, needed, needed_here)
        if lean and is_new(experiment, name, verdict):
            return _of_arm(experiment, b, now_ms, lean=False)  # what is told is exact
    evidence: dict[str, Any] = {}
    for kind, of_race in _races(experiment):
        race = experiment.races[kind][b - 1]
        evidence[of_race] = {
            "first": [race.in_control, race.in_arm],
            "share": experiment.shares_at[-1][b - 1],
            "e": _exp(race.peak),
            "needed": guards / d.alpha_guard,
        }
    evidence |= {o.metric: c.evidence for o, c in zip(d.outcomes, contrasts, strict=True)}
    for outcome, c in zip(d.outcomes[1:], contrasts[1:], strict=True):
        if c.ready and risk:
            worst = {"e": _exp(c.log_e_worse), "needed": guards / d.alpha_guard / risk}
            evidence[outcome.metric]["worse"] = worst
    evidence["sample_ratio"] = {
        "e": _exp(experiment.log_e_mismatch),
        "needed": 1 / d.alpha_mismatch,
    }
    return ArmVerdict(b, name, verdict, because, evidence)


def _races(experiment: Experiment) -> list[tuple[int, str]]:
    """Kinds and names of the races that an arm may lose."""
    named = enumerate((o.name for o in experiment.definition.races), GUARDS)
    return [(FAILURES, "failures"), *named]


def _is_worse(o: int, c: Contrast, needed: float) -> bool:
    """Whether an outcome is shown worse: the primary one by its interval, guards by evidence."""
    return c.ready and (c.log_e_worse > needed if o else c.worse_by > 0)


def _is_good(primary: Outcome, c: Contrast) -> bool:
    """Whether the primary outcome is shown to be as good as its goal asks."""
    return c.ready and c.better_by > (0 if primary.goal == "better" else -c.step)


def _unless_of_one_unit(
    experiment: Experiment, o: int, b: int, c: Contrast, *, lean: bool
) -> Contrast:
    """
    A contrast that would decide. It is not ready if one unit of an arm makes up too much of the
    variance there: with such a tail nobody knows what the next units are.
    """
    enough = UNIT_SHARE_MAX if lean else 1.0
    share = max(experiment.units.share_of_one(o, arm, enough) for arm in (0, b))
    if share <= UNIT_SHARE_MAX:
        return c
    waits_for = {"share_of_one_unit": [round(share, 4), UNIT_SHARE_MAX]}
    return c._replace(ready=False, evidence=c.evidence | {"ready": False, "waits_for": waits_for})


def _verdict(
    experiment: Experiment,
    b: int,
    now_ms: int,
    contrasts: list[Contrast],
    needed: float,
    needed_here: float,
) -> tuple[VerdictName, list[str]]:
    d, age_ms = experiment.definition, now_ms - experiment.started_ms
    pairs = zip(d.outcomes, contrasts, strict=True)
    worse = [of.metric for o, (of, c) in enumerate(pairs) if _is_worse(o, c, needed_here)]
    lost = [name for r, name in _races(experiment) if experiment.races[r][b - 1].peak > needed]
    broken = mismatches(experiment, b)
    if broken:
        return "mismatch", broken
    if worse or lost:
        return "rollback", worse + lost
    good, held = _is_good(d.outcomes[0], contrasts[0]), _held_back(experiment)
    guarded = all(c.better_by > -c.step for c in contrasts[1:] if c.enough)
    if good and guarded and age_ms >= d.least_ms and not held:
        return "promote", [d.outcomes[0].metric]
    if age_ms >= d.longest_ms:
        return "inconclusive", ["duration"]
    return "continue", held


def mismatches(experiment: Experiment, b: int) -> list[str]:
    """Why no number of the experiment can be trusted; empty if there is no reason."""
    alpha, found = experiment.definition.alpha_mismatch, []
    if experiment.log_e_mismatch > -math.log(alpha):
        found.append("sample_ratio")
    moved = experiment.left_out.get("two_arms", 0)
    if moved > max(MOVED_MIN, MOVED_SHARE * experiment.rows):
        found.append("two_arms")
    peaks = [experiment.races[r][b - 1].peak for r in (UNLABELLED, UNLABELLED_CONTROL)]
    if max(peaks) > math.log(2 / alpha):
        found.append("coverage")
    return found


def _held_back(experiment: Experiment) -> list[str]:
    """Why nothing is promoted, whatever the numbers say."""
    found = []
    if experiment.left_out.get("no_unit", 0) > NO_UNIT_SHARE * experiment.rows:
        found.append("no_unit")
    if experiment.left_out.get("evicted", 0):
        found.append("evicted")
    return found


def _contrast(experiment: Experiment, o: int, b: int, alpha: float) -> Contrast:
    outcome = experiment.definition.outcomes[o]
    sums = experiment.units.sums[0, o], experiment.units.sums[b, o]
    step = math.log1p(outcome.effect) if outcome.is_log else outcome.effect
    estimate, variance = (float(v) for v in difference(*sums))
    shown = math.expm1 if outcome.is_log else float
    waits_for = _waits_for(outcome, sums)
    evidence: dict[str, Any] = {"alpha": alpha, "ready": False}
    evidence |= {"waits_for": waits_for} if waits_for else {}
    if outcome.needs_label:
        evidence["coverage"] = [_share(*experiment.mature[arm].tolist()) for arm in (0, b)]
    if not 0 < variance < math.inf or not alpha:
        return Contrast(False, False, math.nan, 0.0, -math.inf, -math.inf, step, evidence)
    half = float(half_width(variance, step, alpha))
    ready = not waits_for
    interval = _bound(shown, estimate - half), _bound(shown, estimate + half)
    evidence |= {
        "estimate": shown(estimate),
        "interval": list(interval),
        "ready": ready,
        "effective_units": [round(float(effective_units(s)), 1) for s in sums],
    }
    log_e = float(log_evidence_above(-outcome.sign * estimate, variance, step))
    by = outcome.sign * estimate
    return Contrast(ready, ready, estimate, log_e, by - half, -by - half, step, evidence)


def fixed_horizon(experiment: Experiment, b: int) -> dict[str, dict[str, Any]]:
    """
    What a textbook says of an arm, by metric; it is valid at one planned look, and at no other.

    Two proportions are the same contrast. With `scale: log` it is of the logarithms.
    """
    out = {}
    for o, outcome in enumerate(experiment.definition.outcomes):
        control, arm = experiment.units.sums[0, o], experiment.units.sums[b, o]
        if not _waits_for(outcome, (control, arm)):
            found: dict[str, Any] = welch(control, arm)._asdict()
            found |= _effect("d", cohens_d(control, arm))
            out[outcome.metric] = found | (
                _effect("h", cohens_h(control, arm)) if outcome.is_share else {}
            )
    return out


def _effect(name: str, found: EffectSize) -> dict[str, Any]:
    return {name: found.estimate, f"{name}_interval": [found.low, found.high]}


def _waits_for(outcome: Outcome, sums: tuple[Float, Float]) -> dict[str, list[float]]:
    """
    What is missing until so much is known of both arms that the interval is what it says: what the
    poorer arm has, and what it needs. Empty: it is ready.
    """
    units = min(float(effective_units(s)) for s in sums)
    rarer = min(float(rarer_answers(s)) for s in sums)
    found = {} if units >= UNITS_MIN else {"effective_units": [round(units, 1), UNITS_MIN]}
    if is_yes_no(outcome, *sums) and not rarer >= RARER_MIN:
        found["rarer_answers"] = [rarer, RARER_MIN]
    return found


def is_yes_no(outcome: Outcome, *sums: Float) -> bool:
    """Whether values are from 0 to 1, by the metric or by the six sums of arms."""
    return outcome.is_share or (
        not outcome.is_log and all(0 <= s[X] <= s[N] and s[XX] <= s[NN] for s in sums)
    )


def _bound(shown: Any, value: float) -> float | None:
    """An end of an interval; None if it is infinite, because JSON has no number for that."""
    found = shown(value) if value < 700 else math.inf
    return found if math.isfinite(found) else None


def _exp(log_e: float) -> float:
    """Evidence as a number that JSON has."""
    return math.exp(min(log_e, 700.0))


def _share(mature: int, labelled: int) -> float | None:
    return labelled / mature if mature else None


def hours(experiment: Experiment, now_ms: int) -> float:
    """How long the experiment runs."""
    return (now_ms - experiment.started_ms) / HOUR_MS
