"""
The life of an alert: inactive, pending, firing, resolved.

Rule of the file: everything that changes a state is in `TRANSITIONS`; what a verdict means (`bad`, `fair`, `good`) and whether the time has come are asked first.
Time is log time and is given.

    inactive ──bad──▶ pending ──bad, dwell over──▶ firing ──good──▶ resolved ──cooldown over──▶ inactive
                         └──────fair, good──▶ inactive      (fair: within the hysteresis, stays)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from stream_monitor.alerts.event import Alert, alert_of
from stream_monitor.verdicts import LEVELS, AlertKey, Verdict

State = Literal["inactive", "pending", "firing", "resolved"]
Input = Literal["bad", "fair", "good"]
UPDATE_MS = 60_000
UPDATE_CHANGE = 0.1
EPISODES_MAX = 20_000

TRANSITIONS: dict[tuple[State, Input, bool], State] = {
    # state, verdict, is the time over (dwell when pending, cooldown when resolved)
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
    ("firing", "good", False): "resolved",
    ("firing", "good", True): "resolved",
    ("resolved", "bad", False): "resolved",
    ("resolved", "bad", True): "pending",
    ("resolved", "fair", False): "resolved",
    ("resolved", "fair", True): "inactive",
    ("resolved", "good", False): "resolved",
    ("resolved", "good", True): "inactive",
}


class Episode(msgspec.Struct, array_like=True):
    """Where one alert is in its life."""

    state: State = "inactive"
    since_ms: int = 0
    """When the state began."""
    starts_ms: int = 0
    severity: str = "ok"
    n: int = 0
    """Transitions of this episode."""
    told_ms: int = 0
    told_value: float = 0.0
    cooldown_ms: int = 0
    heard_ms: int = 0
    """Of the newest verdict."""


class Alerts:
    """
    All alerts of one partition of `observations`.

    Notes
    -----
    Bounded: of more than `EPISODES_MAX` alerts the oldest inactive ones are forgotten.
    """

    def __init__(self) -> None:
        self.episodes: dict[AlertKey, Episode] = {}
        self.counts: Counter[str] = Counter()

    def observe(self, verdict: Verdict, now_ms: int) -> list[Alert]:
        """The alert events that a verdict brings about, at log time `now_ms`."""
        kind: Input = "good" if verdict.level == "ok" and verdict.clear else "fair" if verdict.level == "ok" else "bad"
        episode = self.episodes.get(verdict.key)
        if episode is None:
            if kind != "bad":
                return []
            self._make_room()
            episode = self.episodes[verdict.key] = Episode(since_ms=now_ms)
        episode.heard_ms = now_ms
        out: list[Alert] = []
        before = episode.state
        episode.state = TRANSITIONS[before, kind, self._over(episode, verdict, now_ms)]
        if episode.state == "pending" and verdict.for_ms == 0:
            episode.state = "firing"
        if episode.state != before:
            episode.since_ms = now_ms
            if episode.state == "firing":
                episode.starts_ms, episode.n, episode.severity = now_ms, 0, verdict.level
                out.append(self._tell(episode, verdict, "firing", now_ms))
            elif episode.state == "resolved":
                episode.cooldown_ms = verdict.cooldown_ms
                out.append(self._tell(episode, verdict, "resolved", now_ms))
            elif episode.state == "inactive":
                del self.episodes[verdict.key]
        elif episode.state == "firing" and kind == "bad" and self._changed(episode, verdict) and now_ms - episode.told_ms >= UPDATE_MS:
            episode.severity = max(episode.severity, verdict.level, key=LEVELS.index)
            out.append(self._tell(episode, verdict, "updated", now_ms))
        return out

    def _over(self, episode: Episode, verdict: Verdict, now_ms: int) -> bool:
        if episode.state == "resolved":
            return now_ms - episode.since_ms >= episode.cooldown_ms
        if episode.state == "pending":
            return now_ms - episode.since_ms >= verdict.for_ms
        return verdict.for_ms == 0

    def _changed(self, episode: Episode, verdict: Verdict) -> bool:
        worse = LEVELS.index(verdict.level) > LEVELS.index(episode.severity)
        return worse or abs(verdict.value - episode.told_value) >= UPDATE_CHANGE * abs(episode.told_value)

    def _tell(self, episode: Episode, verdict: Verdict, status: Literal["firing", "updated", "resolved"], now_ms: int) -> Alert:
        episode.told_ms, episode.told_value = now_ms, verdict.value
        alert = alert_of(verdict, status, episode.severity, episode.starts_ms, now_ms if status == "resolved" else None, episode.n)
        episode.n += 1
        self.counts[status] += 1
        return alert

    def _make_room(self) -> None:
        if len(self.episodes) >= EPISODES_MAX:
            idle = [key for key, e in self.episodes.items() if e.state != "firing"][: EPISODES_MAX // 10]
            for key in idle or list(self.episodes)[: EPISODES_MAX // 10]:
                del self.episodes[key]

    def firing(self) -> Iterator[tuple[AlertKey, Episode]]:
        """Alerts that fire now."""
        return ((key, e) for key, e in self.episodes.items() if e.state == "firing")

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {"episodes": [[list(key), msgspec.to_builtins(e)] for key, e in self.episodes.items()], "counts": dict(self.counts)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Alerts:
        """The alerts of a snapshot."""
        alerts = cls()
        alerts.episodes = {AlertKey(*key): msgspec.convert(e, Episode) for key, e in state["episodes"]}
        alerts.counts = Counter(state["counts"])
        return alerts
