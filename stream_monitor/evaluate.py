"""
EVALUATE: the log of one partition of `observations` in, verdicts and effects out.

Rule of the file: the state is a fold of the log and nothing else. The same records give the same
state, alerts and ids, whenever and wherever they are folded. The only clock is log time
(`windows/log_time.py`), and there is no I/O. `Shard.fold` reads as a table of contents of the
stage.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.alerts import event
from stream_monitor.alerts.lifecycle import Alerts
from stream_monitor.alerts.marks import marks_of
from stream_monitor.events.observations import Arrivals, arrived, unpack
from stream_monitor.experiments.exposition import experiment_samples
from stream_monitor.experiments.inbox import Record
from stream_monitor.experiments.registry import Experiments
from stream_monitor.join.join import Join
from stream_monitor.join.ring_snapshot import parts_of, slabs_of
from stream_monitor.join.rows import Pairs
from stream_monitor.join.store import RINGS
from stream_monitor.metrics.samples import AnySample, Sample
from stream_monitor.monitors import bounds, references
from stream_monitor.monitors.exposition import version_samples
from stream_monitor.monitors.registry import Registry
from stream_monitor.monitors.releases import Releases
from stream_monitor.monitors.shard_samples import alert_samples, join_samples, refusal_samples
from stream_monitor.monitors.version import Version
from stream_monitor.outcomes import Outcomes
from stream_monitor.separation import Part, Separation, by_code
from stream_monitor.settings import CoreSettings
from stream_monitor.shard_form import ShardForm, form_of
from stream_monitor.state import encode
from stream_monitor.summaries import alerts_of, experiments_of, models_of
from stream_monitor.verdicts import Out, Verdict
from stream_monitor.windows.log_time import CONFIRM_MS, LogTime

TICK_MS = 1_000
"""Log time between two rounds of expiry, freshness and judgement."""
FRESH_MS, FRESH_MANY_MS, MANY = 50, 1_000, 20
"""
Longest time that rows wait before they are reduced (log time). It is longer if more than MANY
versions are active, because a reduction has a fixed cost.
"""


class Shard:
    """
    The state of one partition of `observations`.

    Parameters
    ----------
    partition : int
    settings : CoreSettings
    baselines : mapping of "model/version" to bytes
        Published baseline profiles (JSON).
    partitions : int
        Number of partitions of `observations`.
    confirm_ms : int, ms
        How long the log must confirm a jump of log time; 0 if the log is known to be right.

    Notes
    -----
    About 1 µs a row and 2 to 3 µs of statistics a prediction of 10 features when rows arrive by the
    thousand.
    """

    def __init__(
        self,
        partition: int,
        settings: CoreSettings,
        baselines: Mapping[str, bytes] | None = None,
        *,
        partitions: int = 1,
        confirm_ms: int = CONFIRM_MS,
    ) -> None:
        self.partition, self.partitions, self.settings = partition, partitions, settings
        self.config = settings.hash
        self.log_time = LogTime(confirm_ms)
        self.changed_ms = 0
        """Log time at which the configuration changed last."""
        self.anew: list[str] = []
        """Parts that began again because of that change: `MODEL/VERSION: PART (KEYS)`."""
        self.outcomes = Outcomes()
        self.join = Join(settings.limits.pending, settings.defaults.labels.max_delay_ms)
        self.registry = Registry(settings, dict(baselines or {}), partitions)
        self.separation = Separation(self.registry, self.join)
        self.alerts = Alerts()
        self.bounds, self.releases = bounds.Bounds(), Releases()
        self.registry.stage_of = self.releases.stage_of
        self.experiments = Experiments(settings.limits.pending, self._label_delay_ms)
        self.tells_history = True
        self.outbox, self._dirty = list[Out](), dict[int, int]()

    @property
    def versions(self) -> list[Version]:
        """Every model version, by its code."""
        return self.registry.versions

    @property
    def log_time_ms(self) -> int:
        """How far log time has come."""
        return self.log_time.now_ms

    # ---- the pipeline

    def fold(
        self, record: bytes, appended_ms: int | None = None, arrivals: Arrivals | None = None
    ) -> None:
        """
        Fold one record of `observations`.

        Parameters
        ----------
        record : bytes
        appended_ms : int, ms
            When the broker appended it. Without it, the clock of its writer counts.
        arrivals : Arrivals, optional
            When each of its rows came, where rows that came one after the other are in one record,
            in that order.

        Raises
        ------
        StateError
            The record is of another version of the format.
        """
        observations = unpack(record)
        end_ms = observations.head.flushed_ms if appended_ms is None else appended_ms
        came_ms = (
            None
            if arrivals is None
            else arrived(observations.rows, observations.head.sources, arrivals)
        )
        now_ms = self._advance(end_ms if came_ms is None else int(came_ms[0]))
        if came_ms is not None:
            now_ms = self.log_time.read(end_ms)
        fresh = self.outcomes.unseen(observations)
        self.outcomes.date(observations, fresh, now_ms)
        self.registry.state.log_ms = now_ms
        predictions, labels, parts, events = self.separation.separate(observations, fresh)
        joined = self.join.apply(predictions, labels, now_ms if came_ms is None else came_ms)
        self.outcomes.joined(joined.duplicate, len(labels.row), joined.outcomes)
        self._deliver(parts, joined.duplicate, now_ms)
        self._deliver_pairs(joined.pairs, now_ms)
        events = self._said(events) if events else events
        if events or self.experiments.state.of_model:
            times = np.broadcast_to(now_ms if came_ms is None else came_ms, len(observations.rows))
            taken = Record(
                parts, predictions, joined, times, self.versions, self.separation.texts.names
            )
            self.outbox += self.experiments.fold(taken, events)
        self._reduce_due()

    def _said(self, events: list[tuple[int, str]]) -> list[tuple[int, str]]:
        """Take people's words, what is said of versions, profiles; the rest is of experiments."""
        marks, others = marks_of(events)
        for mark in marks:
            self._tell(self.alerts.take(mark, self.log_time_ms))
        complete, left = self.registry.references.take(self.releases.take(others))
        for whose in complete:
            self._refer(*whose)
        return left

    def _refer(self, model: str, name: str) -> None:
        """Judge a version that runs by the profile that came for it."""
        code, profile = self.registry.referred(model, name)
        if profile is None:
            return
        version = self.versions[code]
        if self._dirty.pop(code, None) is not None:  # its rows came before
            version.reduce(self._judge, look=True)
        for verdict in references.switched(version, profile, self.alerts, self.log_time_ms):
            self._judge(verdict)
        self.outbox += version.drain()

    def _advance(self, time_ms: int) -> int:
        """
        Log time moves on; whatever waits for it is done before the record's rows are taken.

        The time of these rows.
        """
        before, refused = self.log_time_ms, self.log_time.refused
        now_ms = self.log_time.read(time_ms)
        if self.log_time.refused > refused:
            for version in self.versions:
                version.volume.heard_at_most(self.log_time_ms)
        self._reduce_due(at_once=self.log_time.is_waiting)
        if self.log_time.is_waiting or self.log_time_ms // TICK_MS != before // TICK_MS:
            self._tick()
        return now_ms

    # ---- what the versions get

    def _deliver(self, parts: list[Part], duplicate: NDArray[np.bool_], now_ms: int) -> None:
        start = 0
        for rows, version, failed in parts:
            wanted = ~duplicate[start : start + len(version)]
            start += len(version)
            if failed is not None:
                failures = np.flatnonzero(wanted & failed)
                for code, index in by_code(version[failures]):
                    self.versions[code].failed(rows.times_ms[failures[index]], now_ms)
                    self._dirty.setdefault(code, self.log_time_ms)
                wanted &= ~failed
            whole = bool(wanted.all())
            for code, index in by_code(version if whole else version[wanted]):
                of_version = index if whole else np.flatnonzero(wanted)[index]
                self.versions[code].take(rows.at(of_version), now_ms)
                self._dirty.setdefault(code, self.log_time_ms)

    def _deliver_pairs(self, pairs: list[Pairs], now_ms: int) -> None:
        for part in pairs:
            order = np.argsort(part.row, kind="stable")
            for code, index in by_code(part.version[order]):
                of_version = part.at(order[index])
                self.versions[code].take_pairs(of_version, self.separation.texts.names, now_ms)
                self._dirty.setdefault(code, self.log_time_ms)

    def _reduce_due(self, *, at_once: bool = False) -> None:
        wait = 0 if at_once else FRESH_MS if len(self._dirty) <= MANY else FRESH_MANY_MS
        due = [
            (code, self.log_time_ms - since >= wait)
            for code, since in self._dirty.items()
            if self.log_time_ms - since >= wait or self.versions[code].is_full
        ]
        for code, timely in due:
            del self._dirty[code]
            self.versions[code].reduce(self._judge, look=timely)
            self.outbox += self.versions[code].drain()

    def _judge(self, verdict: Verdict) -> None:
        self._tell(self.alerts.observe(self.releases.marked(verdict), self.log_time_ms))

    def _tell(self, alerts: list[event.Alert]) -> None:
        self.outbox += [
            Out("alerts", alert.fingerprint.encode(), event.encode(alert)) for alert in alerts
        ]

    def _tick(self, *, at_once: bool = False) -> None:
        self.join.expire(self.log_time_ms)
        self.outcomes.labels["orphan"] = sum(self.join.state.orphans.values())
        for version in self.registry.in_use():
            version.tick(self.log_time_ms, self._judge, self.config if self.tells_history else "")
            self.outbox += version.drain()
        for retired in self.registry.retire(self.log_time_ms):
            for verdict in bounds.retirements(self.alerts, retired, self.log_time_ms):
                self._judge(verdict)
        for verdict in (
            *bounds.unheard(self.alerts, self.registry, self.changed_ms, self.log_time_ms),
            *self.bounds.judge(
                self.partition, self.partitions, self.registry, self.join, self.log_time_ms
            ),
            *self.releases.judge(self.registry.in_use(), self.log_time_ms),
        ):
            self._judge(verdict)
        self.outbox += self.experiments.tick(
            self.log_time_ms, self.join.state.rows, at_once=at_once or self.log_time.is_waiting
        )
        for verdict in self.experiments.judged(self.alerts, self.log_time_ms):
            self._judge(verdict)
        self._tell(self.alerts.tick(self.log_time_ms))

    def _label_delay_ms(self, model: str) -> int:
        return self.settings.of(model).labels.max_delay_ms

    # ---- what is told

    def restarted_detectors(self) -> list[str]:
        """Detectors that restarted at the last restore: their state is unreadable or too old."""
        return self.registry.restarted_detectors()

    def samples(self) -> Iterator[AnySample]:
        """Gauges and counters of every model version, and of this shard."""
        firing = {key for key, _ in self.alerts.firing()}
        for version in self.registry.in_use():
            if not version.is_idle:
                release = self.releases.of(version.model, version.name)
                yield from version_samples(version, firing, release)
        yield from experiment_samples(self.experiments, self.log_time_ms)
        yield from alert_samples(self.alerts, self.registry, self.log_time_ms)
        yield from self.outcomes.samples()
        yield from join_samples(self.join, self.partition, self.log_time_ms)
        yield from refusal_samples(self.registry, self.join)
        yield Sample("stream_monitor_log_time_jumps_total", (), self.log_time.refused)
        memory_bytes = self.join.memory_bytes + sum(v.memory_bytes for v in self.versions)
        yield Sample("stream_monitor_state_bytes", (), memory_bytes)

    def summary(self) -> dict[str, Any]:
        """The part of `summary.json` that this shard knows."""
        return {
            "models": models_of(self.versions, self.join.state),
            **({"anew": self.anew} if self.anew else {}),
            **experiments_of(self.experiments, self.log_time_ms),
            "records": self.outcomes.summary(),
            "alerts": alerts_of(self.alerts),
        }

    def close(self) -> None:
        """Reduce and judge whatever still waits: the end of a replay."""
        self.log_time.settle()
        for code in list(self._dirty):
            self.versions[code].reduce(self._judge, look=True)
        self._dirty.clear()
        for version in self.versions:
            version.settle(self._judge)
        self._tick(at_once=True)
        self.outbox += self.experiments.close(self.log_time_ms, self.join.state.rows)

    # ---- snapshot

    def snapshot(self, known: Container[str] = ()) -> dict[str, bytes | None]:
        """
        The state in parts.

        Parameters
        ----------
        known : container of str
            Names of immutable parts that are stored already; their value in the result is None.

        Returns
        -------
        dict of part name to bytes
            `state`, `settings`, and `slab-…` parts that never change once they are full.
        """
        self.experiments.settle()
        parts: dict[str, bytes | None] = {}
        for ring_name in RINGS:
            parts |= parts_of(ring_name, getattr(self.join, ring_name), known)
        form = ShardForm(
            config=self.config,
            changed_ms=self.changed_ms,
            anew=self.anew,
            log_time=self.log_time,
            outcomes=self.outcomes,
            join=self.join.form(),
            registry=self.registry.form(),
            texts=self.separation.texts.names,
            alerts=self.alerts,
            bounds=self.bounds,
            experiments=self.experiments.state,
            outbox=self.outbox,
            dirty=self._dirty,
            releases=self.releases,
            references=self.registry.references,
        )
        parts["state"] = encode(form)
        parts["settings"] = msgspec.json.encode(self.settings, order="sorted")
        return parts

    @classmethod
    def restore(
        cls,
        partition: int,
        settings: CoreSettings,
        parts: Mapping[str, bytes],
        baselines: Mapping[str, bytes] | None = None,
        *,
        partitions: int = 1,
    ) -> Shard:
        """
        The state of a snapshot.

        Raises
        ------
        StateError
            The snapshot is of another schema, or a part is missing.
        """
        form = form_of(parts)
        shard = cls(partition, settings, baselines, partitions=partitions)
        shard.log_time, shard.outcomes = form.log_time, form.outcomes
        shard.alerts, shard.bounds, shard.outbox = form.alerts, form.bounds, form.outbox
        changed = form.config != settings.hash
        shard.changed_ms = shard.log_time_ms if changed else form.changed_ms
        if changed:
            shard.alerts.begin_anew()
        for text in form.texts:
            shard.separation.texts[text]
        shard.releases, shard.registry.references = form.releases, form.references
        shard.registry.stage_of = shard.releases.stage_of
        anew = shard.registry.load(form.registry, shard.separation.texts.names, changed=changed)
        shard.anew = anew if changed else [*form.anew, *(a for a in anew if a not in form.anew)]
        shard.join = shard.separation.join = Join.restored(
            settings.limits.pending,
            settings.defaults.labels.max_delay_ms,
            form.join,
            slabs_of(parts),
        )
        shard.join.wait([version.settings.labels.max_delay_ms for version in shard.versions])
        if changed:
            shard.join.evict()
        shard._dirty, shard.experiments.state = form.dirty, form.experiments
        return shard
