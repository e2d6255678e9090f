"""
What verdicts and their reasons mean, in words for people.

Rule of the file: texts only. The command line and the report of a replay use the same ones.
"""

from __future__ import annotations

from stream_monitor.experiments.measures import Outcome

PEEKED = (
    "Valid at one planned look. Not to be watched: looked at every hour for 14 days it is wrong in "
    "43 % of experiments whose arms are equal."
)
"""The number is that of `python bench/experiments.py --table peeking`."""
MEANINGS = {
    "sample_ratio": "units do not arrive as the weights say",
    "two_arms": "too many calls are of units that were in two arms",
    "coverage": "labels are missing more often in one arm",
    "failures": "calls fail more often",
    "no_unit": "too many calls have no `unit`",
    "evicted": "calls were forgotten before they were judged",
    "duration": "the planned duration is over",
}
"""Reasons of verdicts, besides metrics."""
LEFT_OUT = {
    "unknown_arm": "`variant` names no arm, or is missing",
    "two_arms": "another arm of this phase had the unit first",
    "before_start": "older than `at` of the experiment",
    "change": "within a minute after a change of weights, of which servers hear at different times",
    "rolled_back": "of an arm that was rolled back and has the weight 0",
    "no_unit": "without `unit`",
    "evicted": "forgotten before they were mature, because limits.pending was reached",
}
"""Why rows do not count."""


def of_race(outcome: Outcome) -> str:
    """
    What the race of an outcome counts.

    >>> of_race(Outcome("latency_ms", above=250.0)), of_race(Outcome("error_rate", race=True))
    ('calls with latency_ms above 250', 'wrong answers')
    """
    if not outcome.race:
        return f"calls with {outcome.name}"
    return "wrong answers" if outcome.metric == "error_rate" else "calls whose input breaks a rule"
