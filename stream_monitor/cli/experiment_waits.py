"""
What an arm still waits for before it is promoted, in words.

Rule of the file: pure functions of a definition and of what the worker told. Only what the evidence
has is said; the decision itself is `experiments/judgement.py`.
"""

from __future__ import annotations

import math

from stream_monitor.alerts.wording import duration
from stream_monitor.cli.experiment_board import Evidence, VerdictEvent
from stream_monitor.experiments.definition import Definition
from stream_monitor.experiments.measures import Outcome
from stream_monitor.times import HOUR_MS

WORDS = {
    "effective_units": "effective units of each arm",
    "rarer_answers": "of the rarer answer in each arm",
}
ONE_UNIT = "share_of_one_unit"
LIGHTER = "the next experiment needs a `cap`, or `scale` `log`"


def missing(d: Definition, told: VerdictEvent) -> list[str]:
    """
    What is missing for a promotion; empty if another verdict than `continue` stands.

    Parameters
    ----------
    d : Definition
    told : VerdictEvent
        The newest numbers of the arm.
    """
    if told.verdict != "continue":
        return []
    out = []
    if told.hours * HOUR_MS < d.least_ms:
        age, least = duration(told.hours * 3_600), duration(d.least_ms / 1_000)
        out.append(f"{least} of duration ({age} are over)")
    for number, outcome in enumerate(d.outcomes):
        found = told.evidence.get(outcome.metric, Evidence())
        if not number or ONE_UNIT in found.waits_for:  # a guard with too few units holds nothing
            out += _units(outcome, found)
        if not found.ready or found.interval is None:
            continue
        if number:
            if not _is_beyond(outcome, found.interval, -1.0):
                out.append(f"guard {outcome.metric} shown to be not worse than by its margin")
        elif not _is_beyond(outcome, found.interval, 0.0 if outcome.goal == "better" else -1.0):
            goal = "0" if outcome.goal == "better" else "its margin"
            out.append(f"{outcome.metric} on the good side of {goal}")
    return out


def _units(outcome: Outcome, found: Evidence) -> list[str]:
    return [
        f"{outcome.metric}: one unit makes up {has:.0%} of the variance of an arm, at most "
        f"{least:.0%} may be ({LIGHTER})"
        if name == ONE_UNIT
        else f"{outcome.metric}: {has:,.0f} of {least:,.0f} {WORDS.get(name, name)}"
        for name, (has, least) in found.waits_for.items()
    ]


def _is_beyond(
    outcome: Outcome, interval: tuple[float | None, float | None], margins: float
) -> bool:
    """Whether all of the interval is better than so many margins."""
    step = math.log1p(outcome.effect) if outcome.is_log else outcome.effect
    limit = outcome.sign * margins * step
    limit = math.expm1(limit) if outcome.is_log else limit
    end = interval[0] if outcome.sign > 0 else interval[1]
    return end is not None and outcome.sign * (end - limit) > 0
