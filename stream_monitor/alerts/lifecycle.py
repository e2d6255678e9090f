"""
The life of an alert: inactive, pending, firing.

Rule of the file: every change of a state is in `TRANSITIONS`; the meaning of a verdict (`bad`,
`fair`, `good`) and whether it is time are decided before. Time is log time and an argument. `tick`
ends waiting times (dwell, cooldown, the minute between two updates), with the latest verdict; it
needs no further row.

    inactive ──bad──▶ pending ──bad, it is time──▶ firing ──good (published: resolved)──▶ inactive
                         └──────fair, good──▶ inactive      (fair: within the hysteresis, a firing alert stays)

It is time when the dwell and the cooldown after the previous episode are over. A state that is
worse than every published one of that episode does not wait for the cooldown.
"""  # noqa: E501

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

import msgspec

from stream_monitor.alerts.event import Alert, Status, alert_of
from stream_monitor.verdicts import LEVELS, AlertKey, Direction, Level, Verdict

State = Literal["inactive", "pending", "firing"]
Input = Literal["bad", "fair", "good"]
UPDATE_MS = 60_000
UPDATE_CHANGE = 0.1
EPISODES_MAX = 20_000
ROOM = EPISODES_MAX // 10
"""For so many new alerts there is room after each second of log time, if not too many fire."""

TRANSITIONS: dict[tuple[State, Input, bool], State] = {
    # state, verdict, is it time to fire
    ("inactive", "bad", False): "pending",
    ("inactive", "bad", True): "firing",
    ("inactive", "fair", False): "inactive",
    ("inactive", "fair", True): "inactive",
    ("inactive", "good", False): "inactive",
    ("inactive", "good", True): "inactive",
    ("pending", "bad", False): "pending",
    ("pending", "bad", True): "firing",
    ("pending", "fair", False): "inactive",
    ("pending", "fair", True): "inactive",
    ("pending", "good", False): "inactive",
    ("pending", "good", True): "inactive",
    ("firing", "bad", False): "firing",
    ("firing", "bad", True): "firing",
    ("firing", "fair", False): "firing",
    ("firing", "fair", True): "firing",
    ("firing", "good", False): "inactive",
    ("firing", "good", True): "inactive",
}


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
    told_value: float = 0.0
    told_summary: str = ""
    worst: float = 0.0
    """The greatest badness of the episode."""
    direction: Direction | Literal[""] = ""
    quiet_until_ms: int = 0
    """Log time at which the cooldown ends, ms."""
    heard_ms: int = 0
    """Log time of the newest verdict, ms."""
    waiting: Verdict | None = None
    """The newest verdict, while the alert waits for a time."""


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


def _is_worse(episode: Episode, verdict: Verdict) -> bool:
    """
    Whether this is worse than everything published in the last episode: a higher severity, another
    side, or further beyond the limit.
    """
    if LEVELS.index(verdict.level) > LEVELS.index(episode.severity):
        return True
    return (verdict.direction or "") != episode.direction or badness(verdict) > episode.worst


class Alerts(msgspec.Struct):
    """
    All alerts of one partition of `observations`.

    Notes
    -----
    At most `EPISODES_MAX` alerts are known. When `ROOM` is used up, the inactive ones whose
    cooldown ends first are forgotten: such an alert may fire again before its cooldown is over. A
    pending or firing alert is never forgotten, because its `resolved` would never be published. So
    a new alert without a place is refused and counted. Its rule judges again, and the alert fires
    when there is room.
    """

    episodes: dict[AlertKey, Episode] = {}
    counts: Counter[Status] = msgspec.field(default_factory=Counter)
    """Number of events, by status."""
    refused: int = 0
    """Number of bad verdicts on new alerts for which there was no room."""

    def observe(self, verdict: Verdict, now_ms: int) -> list[Alert]:
        """The alert events that a verdict causes at log time `now_ms`."""
        episode = self.episodes.get(verdict.key)
        if episode is None:
            if verdict.level == "ok":
                return []
            if len(self.episodes) >= EPISODES_MAX:
                self.refused += 1
                return []
            episode = self.episodes[verdict.key] = Episode(since_ms=now_ms)
        episode.heard_ms = now_ms
        return self._move(episode, verdict, now_ms)

    def tick(self, now_ms: int) -> list[Alert]:
        """
        The alert events whose time has come; called once a second of log time. Inactive alerts
        whose cooldown is over are forgotten.
        """
        out: list[Alert] = []
        for key, episode in list(self.episodes.items()):
            if episode.waiting is not None:
                out += self._move(episode, episode.waiting, now_ms)
            elif episode.state == "inactive" and now_ms > max(
                episode.starts_ms, episode.quiet_until_ms
            ):
                del self.episodes[key]
        self._make_room(now_ms)
        return out

    def _move(self, episode: Episode, verdict: Verdict, now_ms: int) -> list[Alert]:
        kind: Input = (
            "good"
            if verdict.level == "ok" and verdict.clear
            else "fair"
            if verdict.level == "ok"
            else "bad"
        )
        before, episode.waiting = episode.state, None
        episode.state = TRANSITIONS[
            before, kind, kind == "bad" and self._due(episode, verdict, now_ms)
        ]
        if episode.state != before:
            episode.since_ms = now_ms
            if episode.state == "firing":
                return [self._begin(episode, verdict, now_ms)]
            if before == "firing":
                episode.quiet_until_ms = now_ms + verdict.cooldown_ms
                return [self._tell(episode, verdict, "resolved", now_ms)]
        elif episode.state == "firing" and kind == "bad":
            return self._go_on(episode, verdict, now_ms)
        if episode.state == "pending":
            episode.waiting = verdict
        return []

    def _due(self, episode: Episode, verdict: Verdict, now_ms: int) -> bool:
        dwell = now_ms - episode.since_ms if episode.state == "pending" else 0
        return dwell >= verdict.for_ms and (
            now_ms >= episode.quiet_until_ms or _is_worse(episode, verdict)
        )

    def _begin(self, episode: Episode, verdict: Verdict, now_ms: int) -> Alert:
        if now_ms >= episode.quiet_until_ms:
            episode.worst = 0.0
        if now_ms != episode.starts_ms:
            episode.n = 0
        episode.starts_ms, episode.severity = now_ms, verdict.level
        episode.worst, episode.direction = (
            max(episode.worst, badness(verdict)),
            verdict.direction or "",
        )
        return self._tell(episode, verdict, "firing", now_ms)

    def _go_on(self, episode: Episode, verdict: Verdict, now_ms: int) -> list[Alert]:
        """An `updated` event, at most once a minute, if severity or value changed visibly."""
        episode.worst, episode.direction = (
            max(episode.worst, badness(verdict)),
            verdict.direction or "",
        )
        severity = max(episode.severity, verdict.level, key=LEVELS.index)
        moved = abs(verdict.value - episode.told_value)
        changed = (
            moved > 0
            and moved >= UPDATE_CHANGE * abs(episode.told_value)
            and verdict.summary != episode.told_summary
        )
        if severity == episode.severity and not changed:
            return []
        if now_ms - episode.told_ms < UPDATE_MS:
            episode.waiting = verdict
            return []
        episode.severity = severity
        return [self._tell(episode, verdict, "updated", now_ms)]

    def _tell(
        self,
        episode: Episode,
        verdict: Verdict,
        status: Status,
        now_ms: int,
    ) -> Alert:
        episode.told_ms, episode.told_value, episode.told_summary = (
            now_ms,
            verdict.value,
            verdict.summary,
        )
        alert = alert_of(
            verdict,
            status,
            episode.severity,
            episode.starts_ms,
            now_ms if status == "resolved" else None,
            episode.n,
        )
        episode.n += 1
        self.counts[status] += 1
        return alert

    def _make_room(self, now_ms: int) -> None:
        excess = len(self.episodes) - (EPISODES_MAX - ROOM)
        if excess <= 0:
            return
        # an alert that began at this very moment would fire again with the same id
        inactive = [
            (e.quiet_until_ms, key)
            for key, e in self.episodes.items()
            if e.state == "inactive" and e.starts_ms < now_ms
        ]
        for _, key in sorted(inactive, key=lambda each: each[0])[:excess]:
            del self.episodes[key]

    def firing(self) -> Iterator[tuple[AlertKey, Episode]]:
        """Alerts that fire now."""
        return ((key, e) for key, e in self.episodes.items() if e.state == "firing")

    def begin_anew(self) -> None:
        """
        Handle a changed configuration: a verdict of the old one no longer makes an alert fire or
        changes it. What fires keeps firing until the new configuration judges it.
        """
        for episode in self.episodes.values():
            episode.waiting = None
            episode.state = TRANSITIONS[episode.state, "fair", False]
