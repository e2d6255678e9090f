"""
The state of one alert, and which of its states is worse than another.

Rule of the file: values and comparisons only. `lifecycle.py` changes them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from stream_monitor.verdicts import LEVELS, Direction, Level, Verdict

State = Literal["inactive", "pending", "firing"]


class Acknowledgement(msgspec.Struct, frozen=True, array_like=True):
    """Somebody works on it."""

    by: str
    until_ms: int | None = None
    """Log time at which it ends, ms; None: with the episode."""


class Episode(msgspec.Struct, array_like=True):
    """The state of one alert, and the facts about its last episode."""

    state: State = "inactive"
    since_ms: int = 0
    """Log time at which the state began, ms."""
    starts_ms: int = -1
    severity: Level = "ok"
    n: int = 0
    """
    Number of steps published since `starts_ms`: of this episode, and of an earlier one that began
    at the same moment.
    """
    told_ms: int = 0
    """Log time of the last step that a verdict caused, ms."""
    told: Verdict | None = None
    """The verdict of the last step, while the alert fires."""
    worst: float = 0.0
    """The greatest badness of the episode."""
    direction: Direction | Literal[""] = ""
    quiet_until_ms: int = 0
    """Log time at which the cooldown ends, ms."""
    heard_ms: int = 0
    """Log time of the newest verdict, ms."""
    waiting: Verdict | None = None
    """The newest verdict, while the alert waits for a time."""
    incident: str = ""
    """Id of the incident of the episode."""
    primary: bool = False
    """It opened its incident, or made it more severe."""
    counted: Level = "ok"
    """The severity with which it counts in its incident; `ok` if it is silenced."""
    false: bool = False
    """A person said that the episode is a false alarm."""
    acknowledged: Acknowledgement | None = None
    about: tuple[str, ...] = ()
    """What it counts as in its incident: its subject, and the signals that it named at first."""


def badness(verdict: Verdict) -> float:
    """
    How far the value is beyond its limit. A rule on an absolute value (`bias`) may have a value
    below the limit; then its absolute value counts.
    """
    value = (
        abs(verdict.value)
        if verdict.direction == "up" and verdict.value < verdict.threshold
        else verdict.value
    )
    return abs(value - verdict.threshold)


def is_worse(episode: Episode, verdict: Verdict) -> bool:
    """
    Whether this is worse than everything published in the last episode: a higher severity, another
    side, or further beyond the limit.
    """
    if LEVELS.index(verdict.level) > LEVELS.index(episode.severity):
        return True
    return (verdict.direction or "") != episode.direction or badness(verdict) > episode.worst
