"""
One log folded twice, with two configurations: what was judged, and what would have been.

Rule of the file: it is the core of the worker, on the same records. Both folds begin with the same
state. What is told while a model learns is not compared, because it would not be told of a model
that had learnt long ago. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from stream_monitor.errors import StateError
from stream_monitor.evaluate import Shard
from stream_monitor.events.observations import unpack
from stream_monitor.experiments.telling import VERDICT
from stream_monitor.offline.alarms import Alarm, alarms_of, firing_now, ms_of
from stream_monitor.settings import CoreSettings

Profiles = Mapping[str, bytes]
VersionName = tuple[str, str]
"""Model and version."""


class Side(NamedTuple):
    """A configuration, with the baselines that its files and the topic have."""

    core: CoreSettings
    profiles: Profiles


class Beginning(NamedTuple):
    """The state with which the folds of a partition begin."""

    position: int
    """Offset of the first record that is folded."""
    parts: Mapping[str, bytes] | None = None
    """Of a snapshot; None begins with nothing."""
    whole: bool = False
    """Whether nothing came before it that the state lacks."""


class Fold:
    """
    One partition, folded with one configuration.

    Parameters
    ----------
    partition, partitions : int
    side : Side
    beginning : Beginning

    Raises
    ------
    StateError
        The snapshot cannot be used.
    """

    def __init__(self, partition: int, partitions: int, side: Side, beginning: Beginning) -> None:
        profiles = dict(side.profiles)
        self.shard = (
            Shard(partition, side.core, profiles, partitions=partitions)
            if beginning.parts is None
            else Shard.restore(
                partition, side.core, beginning.parts, profiles, partitions=partitions
            )
        )
        self.shard.outbox.clear()  # these effects were told before
        self.shard.tells_history = False
        self.alerts: list[dict[str, Any]] = firing_now(self.shard.alerts)
        self.raw: list[tuple[int, bytes]] = []
        """Alert events as they would be written, each with its log time in ms."""
        self.verdicts: list[dict[str, Any]] = []
        self.learnt: dict[VersionName, int | None] = {}
        """Log time at which the baseline of a version was known; None while it learns."""
        self._whole = beginning.whole

    def fold(self, record: bytes, appended_ms: int | None) -> None:
        """Fold a record, and keep what it tells."""
        self.shard.fold(record, appended_ms)
        outbox, self.shard.outbox = self.shard.outbox, []
        for out in outbox:
            if out.topic == "alerts":
                self.alerts.append(msgspec.json.decode(out.value))
                self.raw.append((self.shard.log_time_ms, out.value))
            elif out.topic == "lifecycle":
                event = msgspec.json.decode(out.value)
                if event["type"] == VERDICT:
                    self.verdicts.append(event)
        for version in self.shard.versions:
            key = version.model, version.name
            if self.learnt.get(key) is None:
                known = self._whole or version.features.profile is not None
                since_ms = 0 if self._whole else self.shard.log_time_ms
                self.learnt[key] = since_ms if known else None


class Unreadable(NamedTuple):
    """A record that was left out."""

    partition: int
    offset: int
    why: str


class Rejudged(msgspec.Struct):
    """What the two folds of all partitions say."""

    were: list[Alarm] = []
    would: list[Alarm] = []
    verdicts_were: list[dict[str, Any]] = []
    verdicts_would: list[dict[str, Any]] = []
    judged: dict[VersionName, int] = {}
    """From when on each version is compared, ms."""
    learning: list[VersionName] = []
    """Versions that had not learnt their baseline at the end: nothing of them is compared."""
    anew: list[str] = []
    """Parts of the state that began again because of the new configuration."""
    raw: list[bytes] = []
    """Alert events of the new configuration."""
    unreadable: list[Unreadable] = []


class Rejudging:
    """
    Folds partitions one after the other, each with both configurations.

    Parameters
    ----------
    partitions : int
        Partitions of `observations`.
    present, new : Side
    since_ms : int, ms
        Earlier records are folded, and not compared.
    model : str, optional
        Only this model is compared.

    Notes
    -----
    Costs two folds of the log, and the memory of two states of one partition.
    """

    def __init__(
        self, partitions: int, present: Side, new: Side, since_ms: int, model: str | None = None
    ) -> None:
        self.partitions, self.sides = partitions, (present, new)
        self.since_ms, self.model = since_ms, model
        self.models: set[str] = set()
        """Models that have rows."""
        self.rows = 0
        self.end_ms = 0
        """Log time of the newest record."""
        self.found = Rejudged()
        self._folds: list[Fold] = []
        self._partition = 0

    def begin(self, partition: int, beginning: Beginning) -> None:
        """Begin a partition."""
        self._partition = partition
        self._folds = [Fold(partition, self.partitions, side, beginning) for side in self.sides]
        if beginning.parts is not None:
            self.found.anew.extend(self._folds[1].shard.anew)

    def fold(self, offset: int, record: bytes, appended_ms: int | None) -> int:
        """
        Fold a record with both; returns log time after it, ms.

        A record of another format is left out, and told in `unreadable`.

        Raises
        ------
        StateError
            The core fails at the record.
        """
        try:
            self.rows += unpack(record).head.rows
        except (StateError, msgspec.MsgspecError, ValueError, struct.error) as e:
            self.found.unreadable.append(Unreadable(self._partition, offset, str(e)))
            return self.end_ms
        for fold in self._folds:
            try:
                fold.fold(record, appended_ms)
            except Exception as e:
                raise StateError(
                    f"observations/{self._partition}@{offset} cannot be folded: {e!r}; a worker "
                    "sets such a record aside (worker.on_poison)"
                ) from e
        self.end_ms = max(self.end_ms, fold.shard.log_time_ms)
        return fold.shard.log_time_ms

    def end(self) -> None:
        """End a partition: only what was told stays in memory."""
        found, folds = self.found, self._folds
        learnt = {
            key: [fold.learnt.get(key, 0) for fold in folds]
            for fold in folds
            for key in fold.learnt
        }
        self.models |= {model for model, _ in learnt}
        for key, times in learnt.items():
            if self.model not in (None, key[0]):
                continue
            known = [t for t in times if t is not None]
            if len(known) < len(times):
                found.learning.append(key)
            else:
                found.judged[key] = max(*known, self.since_ms)
        present, new = folds
        for fold, alarms in ((present, found.were), (new, found.would)):
            alarms += [a for a in alarms_of(fold.alerts) if self.compares(a)]
        for fold, verdicts in ((present, found.verdicts_were), (new, found.verdicts_would)):
            verdicts += [v for v in fold.verdicts if self._wants(v)]
        found.raw.extend(
            value
            for (told_ms, value), alert in zip(new.raw, new.alerts[-len(new.raw) :], strict=True)
            if told_ms >= self.since_ms and self.model in (None, alert["model"])
        )
        self._folds = []

    def compares(self, alarm: Alarm) -> bool:
        """
        Whether an alarm is compared: it began since the version is judged, or fired at `since`
        already.
        """
        key = alarm.model, alarm.version
        if key in self.found.learning or self.model not in (None, alarm.model):
            return False
        from_ms = self.found.judged.get(key, self.since_ms)
        lasted = alarm.end_ms is None or alarm.end_ms >= self.since_ms
        return alarm.start_ms >= from_ms or (from_ms == self.since_ms and lasted)

    def _wants(self, verdict: Mapping[str, Any]) -> bool:
        return self.model in (None, verdict["model"]) and ms_of(verdict["at"]) >= self.since_ms
