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

from stream_monitor.alerts.episode import Acknowledgement, Episode, State, badness, is_worse
from stream_monitor.alerts.event import (
    Alert,
    Standing,
    Status,
    alert_of,
    fingerprint,
    incident_of,
)
from stream_monitor.alerts.incidents import FALSE_ALARM, Incident, Incidents, named
from stream_monitor.alerts.marks import Mark, ms_of
from stream_monitor.alerts.said import BY_MAX, MUTE_MS, Mute, Said
from stream_monitor.verdicts import LEVELS, AlertKey, Level, Verdict

Input = Literal["bad", "fair", "good"]
UPDATE_MS = 60_000
UPDATE_CHANGE = 0.1
URGENT: frozenset[Level] = frozenset({"warning", "critical"})
"""Severities that people are told of."""
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
    incidents: Incidents = msgspec.field(default_factory=Incidents)
    said: Said = msgspec.field(default_factory=Said)
    notified: int = 0
    """Number of steps at which an incident began to be told, or became more severe."""

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
        for mark in self.said.over(now_ms):
            out += self._end_mute(mark, now_ms)
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
            now_ms >= episode.quiet_until_ms or is_worse(episode, verdict)
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
        mark = fingerprint(verdict.key)
        episode.false, episode.acknowledged = self.said.was_false(mark, now_ms), None
        self.incidents.join(verdict, episode, incident_of(mark, now_ms))
        if mark in self.said.mutes:
            self.said.mutes[mark].key = verdict.key
        return self._tell(episode, verdict, "firing", now_ms)

    def _go_on(self, episode: Episode, verdict: Verdict, now_ms: int) -> list[Alert]:
        """An `updated` event, at most once a minute, if severity or value changed visibly."""
        episode.worst, episode.direction = (
            max(episode.worst, badness(verdict)),
            verdict.direction or "",
        )
        severity = max(episode.severity, verdict.level, key=LEVELS.index)
        assert episode.told is not None
        moved = abs(verdict.value - episode.told.value)
        changed = (
            moved > 0
            and moved >= UPDATE_CHANGE * abs(episode.told.value)
            and verdict.summary != episode.told.summary
        ) or named(verdict) != named(episode.told)
        if severity == episode.severity and not changed:
            return []
        if now_ms - episode.told_ms < UPDATE_MS:
            episode.waiting = verdict
            return []
        episode.severity = severity
        return [self._tell(episode, verdict, "updated", now_ms)]

    def _tell(self, episode: Episode, verdict: Verdict, status: Status, now_ms: int) -> Alert:
        episode.told_ms, episode.told = now_ms, None if status == "resolved" else verdict
        return self._event(episode, verdict, status, now_ms)

    def _event(self, episode: Episode, verdict: Verdict, status: Status, now_ms: int) -> Alert:
        """The event of a step, weighed in its incident."""
        mark, over = fingerprint(verdict.key), status == "resolved"
        incident = self.incidents.open[episode.incident]
        silent = over or episode.false or mark in self.said.mutes
        incident.count(episode, "ok" if silent else episode.severity)
        was_shown = incident.shown
        if rose := incident.weigh():
            episode.primary, incident.acknowledged = True, None
        standing = self._standing(episode, incident, mark, now_ms)
        if over:
            ended = self.incidents.leave(verdict.key, episode)
            standing.notify = ended and was_shown in URGENT
            self.said.ended(mark, episode.starts_ms, verdict.key, false=episode.false)
        else:
            standing.notify = rose and incident.shown in URGENT
            self.notified += standing.notify
        alert = alert_of(
            verdict,
            status,
            episode.severity,
            episode.starts_ms,
            now_ms if over else None,
            episode.n,
            standing,
        )
        episode.n += 1
        self.counts[status] += 1
        return alert

    def _standing(self, episode: Episode, incident: Incident, mark: str, now_ms: int) -> Standing:
        mutes = [
            self.said.mutes[of].until_ms
            for of, level in (*incident.hushes.items(), (mark, episode.severity))
            if of in self.said.mutes and LEVELS.index(level) >= LEVELS.index(episode.severity)
        ]
        return Standing(
            incident=episode.incident,
            primary=episode.primary,
            muted_until_ms=max(mutes, default=None),
            acknowledged_by=self.acknowledged_by(episode, now_ms),
            false_alarm=episode.false,
        )

    # ---- what people say

    def take(self, mark: Mark, now_ms: int) -> list[Alert]:
        """
        The alert events that a person's word causes at log time `now_ms`.

        A word on the alert that speaks for its incident is about the whole incident, up to the
        severity of that alert.
        """
        about = mark.fingerprint
        starts_ms = None if mark.starts_at is None else ms_of(mark.starts_at)
        key = next(
            (k for k in self.episodes if k.model == mark.model and fingerprint(k) == about), None
        )
        episode = None if key is None else self.episodes[key]
        if mark.type == "muted":
            until_ms = now_ms + MUTE_MS if mark.until is None else ms_of(mark.until)
            return self._mute(about, key, until_ms, now_ms)
        fires = (
            episode is not None
            and episode.state == "firing"
            and starts_ms in (None, episode.starts_ms)
        )
        if mark.type == "false_alarm" and not fires:
            self.said.ended_false(about, starts_ms)
        if not fires or episode is None or key is None:
            return []
        incident = self.incidents.open[episode.incident]
        if mark.type == "false_alarm":
            if episode.false:
                return []
            episode.false = True
            self.said.count_false(key.model, key.version)
            self._hush(incident, episode, FALSE_ALARM)
        else:
            ends_ms = None if mark.until is None else ms_of(mark.until)
            found = Acknowledgement((mark.by or "unknown")[:BY_MAX], ends_ms)
            episode.acknowledged = found
            if episode.primary:
                incident.acknowledged = found
        return self._again(episode, now_ms)

    def _mute(self, about: str, key: AlertKey | None, until_ms: int, now_ms: int) -> list[Alert]:
        if until_ms <= now_ms:
            return self._end_mute(about, now_ms) if about in self.said.mutes else []
        self.said.mutes[about] = Mute(until_ms, key)
        out: list[Alert] = []
        episode = None if key is None else self.episodes[key]
        if episode is not None and episode.state == "firing":
            self._hush(self.incidents.open[episode.incident], episode, about)
            out += self._again(episode, now_ms)
        if (first := self.said.beyond()) is not None:
            out += self._end_mute(first, now_ms)
        return out

    @staticmethod
    def _hush(incident: Incident, episode: Episode, why: str) -> None:
        if episode.primary:
            before = incident.hushes.get(why, "ok")
            incident.hushes[why] = max(before, episode.severity, key=LEVELS.index)

    def _end_mute(self, mark: str, now_ms: int) -> list[Alert]:
        """A mute ends: what it silenced is told if it still fires."""
        key, out = self.said.mutes.pop(mark).key, list[Alert]()
        hushed = [name for name, i in self.incidents.open.items() if i.hushes.pop(mark, None)]
        episode = None if key is None else self.episodes.get(key)
        if episode is not None and episode.state == "firing":
            out += self._again(episode, now_ms)
        for name in hushed:
            if episode is None or episode.incident != name or episode.state != "firing":
                out += self._speak(name, now_ms)
        return out

    def _speak(self, incident: str, now_ms: int) -> list[Alert]:
        """The worst alert of an incident whose mute ended with the alert that was muted."""
        members = [e for _, e in self.firing() if e.incident == incident and e.counted != "ok"]
        worst = max(members, key=lambda e: LEVELS.index(e.severity), default=None)
        return [] if worst is None else self._again(worst, now_ms)

    def _again(self, episode: Episode, now_ms: int) -> list[Alert]:
        """The last step again, as people's words make it now."""
        assert episode.told is not None
        return [self._event(episode, episode.told, "updated", now_ms)]

    def acknowledged_by(self, episode: Episode, now_ms: int) -> str | None:
        """Who works on an alert that fires, or on its incident."""
        incident = self.incidents.open[episode.incident]
        for found in (episode.acknowledged, incident.acknowledged):
            if found is not None and (found.until_ms is None or now_ms < found.until_ms):
                return found.by
        return None

    def is_silent(self, episode: Episode) -> bool:
        """Whether a person has silenced an alert that fires, or what speaks for it."""
        incident = self.incidents.open[episode.incident]
        return episode.counted == "ok" or incident.silences(episode.severity)

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
