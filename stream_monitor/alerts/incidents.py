"""
One cause is one incident: which alerts of a model version belong together.

Rule of the file: an alert that begins joins an open incident that explains it, or opens one. It
stays there until it is resolved, and an incident is open while an alert of it fires. What explains
what is in `cause_of` and `JOINS`; docs/alerts.md has the same table with its reasons. Nothing is
asked but the key of the alert, the signals that it names, its severity and log time.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal, NamedTuple

import msgspec

from stream_monitor.alerts.episode import Acknowledgement, Episode
from stream_monitor.times import HOUR_MS
from stream_monitor.verdicts import LEVELS, AlertKey, Kind, Level, Verdict

TOGETHER_MS = HOUR_MS
"""
So long after an incident began, alerts on other features still join it (log time). It errs on the
side of telling twice: a drift that stays open for weeks must not hide the next one.
"""
FALSE_ALARM = ""
"""The hush of a false alarm, which lasts as long as its incident."""

Cause = Literal["errors", "inputs", "outputs", "fields", "calls"]
FAMILIES: dict[Cause, str] = {
    "errors": "errors",
    "inputs": "rows",
    "outputs": "rows",
    "fields": "rows",
    "calls": "calls",
}
"""Alerts of two families are never one incident."""
CAUSES: dict[Kind, Cause | None] = {
    "performance": "errors",
    "calibration": "errors",
    "concept_drift": "errors",
    "data_drift": "inputs",
    "anomaly": "inputs",
    "prediction_drift": "outputs",
    "data_quality": "fields",
    "latency": "calls",
    "volume": None,
    "freshness": None,
    "experiment": None,
    "fairness": None,
}
"""By kind; None stands alone."""
JOINS: frozenset[tuple[Cause, Cause]] = frozenset(
    {
        ("inputs", "inputs"),
        ("fields", "fields"),
        ("outputs", "outputs"),
        ("inputs", "outputs"),
        ("outputs", "inputs"),
        ("fields", "outputs"),
        ("calls", "calls"),
        ("outputs", "fields"),
    }
)
"""(cause of an incident, cause of an alert on another subject that joins it while it is young)."""
ESTIMATE = "estimate"
"""
That an estimate is not valid any more is what errors do to it: it joins their incident, whatever
its severity. Of severity info it opens none.
"""
OF_NO_VERSION = frozenset({"threshold", "profile"})
"""Detectors of data quality, of labels and limits, that speak of no version."""
ALONE_SUBJECTS = frozenset({"unexpected_class", "score_contradicts_prediction"})
"""Subjects of data quality that are no feature; each has a repair of its own."""


def cause_of(key: AlertKey, severity: Level) -> Cause | None:
    """
    The cause that an alert speaks of; None: it stands alone.

    An alert of severity info stands alone, so an improvement never hides what is worse.

    Examples
    --------
    >>> key = AlertKey("fraud", "3", "", "data_drift", "amount", "js")
    >>> cause_of(key, "warning"), cause_of(key, "info")
    ('inputs', None)
    >>> cause_of(key._replace(kind="anomaly", subject="accuracy", detector="trend"), "warning")
    'errors'
    """
    if severity == "info" or key.detector == "registry":
        return None
    if key.detector == "trend":
        return "errors"
    of_a_feature = (
        # a model without versions has features too, each judged by its rule
        (key.version or key.detector not in OF_NO_VERSION)
        and key.subject not in ALONE_SUBJECTS
        and not key.subject.startswith("monitor.")
    )
    if key.kind == "data_quality" and not of_a_feature:
        return None
    return CAUSES[key.kind]


def named(verdict: Verdict) -> tuple[str, ...]:
    """The signals that a verdict on a group of them names, in no order that counts."""
    contributors: Any = verdict.evidence.get("contributors", ())
    return tuple(sorted({c["subject"] for c in contributors}))


class Group(NamedTuple):
    """Among the incidents of one group an alert looks for its own."""

    model: str
    version: str
    family: str


class Incident(msgspec.Struct):
    """Alerts with one cause, of which at least one fires."""

    model: str
    version: str
    starts_ms: int
    """Log time at which its first alert began, ms."""
    cause: Cause | None
    firing: int = 0
    """Number of alerts that fire."""
    subjects: Counter[str] = msgspec.field(default_factory=Counter)
    """Of the alerts that fire, with the signals that they named when they began."""
    counts: dict[Level, int] = {}
    """Number of alerts that fire and are not silenced, by severity."""
    shown: Level = "ok"
    """The severity that it shows; `ok`: nobody is to be told."""
    hushes: dict[str, Level] = {}
    """
    By fingerprint of a mute, or `FALSE_ALARM`: alerts up to this severity are silent, because a
    person has silenced the one that spoke for them.
    """
    acknowledged: Acknowledgement | None = None

    @property
    def hush(self) -> Level:
        """Alerts up to this severity are silent."""
        return max(self.hushes.values(), key=LEVELS.index, default="ok")

    def weigh(self) -> bool:
        """Compute anew the severity that is shown; returns whether it rose."""
        before, hush = LEVELS.index(self.shown), LEVELS.index(self.hush)
        heard = [i for i, level in enumerate(LEVELS) if self.counts.get(level) and i > hush]
        self.shown = LEVELS[max(heard, default=0)]
        return LEVELS.index(self.shown) > before

    def count(self, episode: Episode, level: Level) -> None:
        """Count an alert with another severity."""
        for which, step in ((episode.counted, -1), (level, 1)):
            if which != "ok":
                self.counts[which] = self.counts.get(which, 0) + step
        episode.counted = level

    def silences(self, level: Level) -> bool:
        """Whether an alert of this severity is silent because of another one."""
        return LEVELS.index(level) <= LEVELS.index(self.hush)


class Incidents(msgspec.Struct):
    """The open incidents of a shard; there are never more than alerts that fire."""

    open: dict[str, Incident] = {}
    groups: dict[Group, list[str]] = {}
    """Ids of the incidents that alerts may join, in the order in which they were opened."""

    def join(self, verdict: Verdict, episode: Episode, own: str) -> Incident:
        """
        The incident of an alert that begins; `own` is the id of the one that it would open.

        An alert on a group of signals is also about those that it names, because people were told
        of them. It is not about those that it names later: nobody is told of an update.

        The search is linear in the open incidents of its model version and family.
        """
        key, cause = verdict.key, cause_of(verdict.key, episode.severity)
        signals = named(verdict)
        episode.about = tuple(dict.fromkeys((key.subject, *signals)))
        looks_for = "errors" if key.detector == ESTIMATE else cause
        found = (
            None
            if looks_for is None
            else self._explains(key, signals, looks_for, episode.starts_ms)
        )
        episode.primary, episode.counted = found is None, "ok"
        episode.incident = found or own
        if found is None:
            self.open[own] = Incident(key.model, key.version, episode.starts_ms, cause)
            if cause is not None:
                self.groups.setdefault(_group(key, cause), []).append(own)
        incident = self.open[episode.incident]
        incident.firing += 1
        incident.subjects.update(episode.about)
        return incident

    def _explains(
        self, key: AlertKey, named: tuple[str, ...], cause: Cause, starts_ms: int
    ) -> str | None:
        """
        The newest open incident about the same subject, or about all signals that the alert names,
        otherwise the newest of a cause that
        explains this one, if it is young. Errors are one subject, whatever metric shows them.
        """
        young = None
        for name in reversed(self.groups.get(_group(key, cause), [])):
            incident = self.open[name]
            known = incident.subjects
            if cause == "errors" or key.subject in known or (named and known.keys() >= set(named)):
                return name
            if (
                young is None
                and incident.cause is not None
                and (incident.cause, cause) in JOINS
                and starts_ms - incident.starts_ms <= TOGETHER_MS
            ):
                young = name
        return young

    def leave(self, key: AlertKey, episode: Episode) -> bool:
        """An alert is resolved; returns whether its incident is over."""
        incident = self.open[episode.incident]
        incident.firing -= 1
        incident.subjects.subtract(episode.about)
        incident.subjects = +incident.subjects
        if incident.firing:
            return False
        del self.open[episode.incident]
        if incident.cause is not None:
            group = _group(key, incident.cause)
            self.groups[group].remove(episode.incident)
            if not self.groups[group]:
                del self.groups[group]
        return True


def _group(key: AlertKey, cause: Cause) -> Group:
    return Group(key.model, key.version, FAMILIES[cause])
