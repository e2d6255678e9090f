"""
Alerts of a shard about itself: limits that were reached, and labels that match no prediction.

Rule of the file: one alert for each limit, however many things are beyond it; it ends an hour (log
time) after the last of them. Labels that met no prediction for half an hour are judged in cohorts.
A label may come before its prediction, so nothing is sure earlier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from stream_monitor.alerts.lifecycle import Alerts
from stream_monitor.alerts.wording import apart, duration, percent
from stream_monitor.join.join import Join
from stream_monitor.join.store import ANY
from stream_monitor.monitors.registry import Registry
from stream_monitor.monitors.version import Version
from stream_monitor.settings import OTHER
from stream_monitor.times import DAY_MS, HOUR_MS, MINUTE_MS
from stream_monitor.verdicts import AlertKey, Level, Span, Verdict

LIMITS = ("models", "versions", "features", "segments", "pending")
"""Limits for which the things beyond them are counted."""
UNHEARD_MS = 2 * HOUR_MS
PATIENCE_MS = 30 * MINUTE_MS
UNMET_SHARE, LABELS_MIN = 0.5, 50
"""Share of the labels of a cohort that may be such, and how many labels make one."""


def hits(registry: Registry, join: Join) -> Counter[str]:
    """By limit: how many things were beyond it so far."""
    found = Counter(registry.state.hits)
    found["pending"] = int(join.state.evicted.sum()) + join.state.lost
    for version in registry.versions:
        found["features"] += version.features.unknown.get(OTHER, 0)
        found["segments"] += version.segments.overflowed if version.segments is not None else 0
    return Counter({name: n for name, n in found.items() if n})


def evictions(join: Join, log_ms: int) -> str:
    """
    Rows that were lost because the store of predictions and labels is full, and how late labels may
    be.
    """
    reach_ms = join.reach_ms(log_ms)
    late = (
        "" if reach_ms is None else f"; at this rate labels may be {duration(reach_ms / 1e3)} late"
    )
    return (
        f"{int(join.state.evicted.sum()):,} predictions were forgotten before their label came, "
        f"and {join.state.lost:,} labels met nothing because of it{late}"
    )


def patience(registry: Registry) -> int:
    """
    So long (ms) a label may wait for its prediction before it is taken for one that meets none.
    """
    return min(PATIENCE_MS, registry.settings.defaults.labels.max_delay_ms // 2)


def retirements(alerts: Alerts, version: Version, log_ms: int) -> list[Verdict]:
    """Verdicts that end what fires for a version that retires."""
    silent_days = version.settings.silence_ms / DAY_MS
    why = (
        f"nobody used this version for {silent_days:.3g} days; it is not monitored until somebody "
        "does"
    )
    return [
        Verdict.end(key, log_ms, f"{key.title}: {why}")
        for key in alerts.episodes
        if (key.model, key.version) == (version.model, version.name) and key.kind != "experiment"
    ]


def unheard(alerts: Alerts, registry: Registry, changed_ms: int, log_ms: int) -> Iterator[Verdict]:
    """
    Ends what fires without a rule: the configuration changed at `changed_ms`, and for `UNHEARD_MS`
    since then nothing has judged it, though its model has been used.

    Every rule judges at least once an hour while its model gets what it gets, predictions or labels
    and predictions.
    """
    if not changed_ms or log_ms - changed_ms < UNHEARD_MS:
        return
    silent = [key for key, episode in alerts.firing() if episode.heard_ms <= changed_ms]
    if not silent:
        return
    used_ms: dict[tuple[str, str], int] = {(OTHER, ""): log_ms}
    for version in registry.versions:
        times = [
            ms for ms in (version.volume.last_prediction_ms, version.volume.last_label_ms) if ms
        ]
        for name in ((version.model, ""), (version.model, version.name)):
            # what is judged by labels is not judged without them
            used_ms[name] = max(used_ms.get(name, 0), min(times, default=0))
    for key in silent:
        if used_ms.get((key.model, key.version), 0) - changed_ms >= UNHEARD_MS:
            why = f"no rule has judged {key.subject} since the configuration changed"
            yield Verdict.end(key, log_ms, f"{key.title}: {why}")


class Beyond(msgspec.Struct):
    """What lies beyond one limit."""

    n: int = 0
    """How many things."""
    last_ms: int = 0
    """Log time of the last of them."""


class Cohort(msgspec.Struct):
    """Labels that came of age."""

    labels: int = 0
    unmet: int = 0
    """Labels that met no prediction."""
    complete_ms: int = 0
    """Log time at which there were enough."""


class Bounds(msgspec.Struct):
    """When a limit was last reached, and which labels met their prediction."""

    known: dict[str, Beyond] = {}
    """By limit."""
    minute: int = 0
    seen: int = 0
    """Sequence number of the labels up to which they were looked at."""
    counted: dict[tuple[int, int], Cohort] = {}
    """By model code and source partition: labels of a cohort that is not complete yet."""
    shares: dict[int, dict[int, Cohort]] = {}
    """By model code, then source partition: the last complete cohort."""

    def judge(
        self, partition: int, partitions: int, registry: Registry, join: Join, log_ms: int
    ) -> Iterator[Verdict]:
        """Verdicts, once a second of log time; `partitions` is how many observations has."""
        for name, n in hits(registry, join).items():
            known = self.known.setdefault(name, Beyond(last_ms=log_ms))
            if n > known.n:
                known.last_ms = log_ms
            known.n = n  # some are counted anew under another configuration
            what = (
                evictions(join, log_ms)
                if name == "pending"
                else f"further {name} are counted under {OTHER}"
            )
            yield self._limit(partition, name, what, registry, known, log_ms)
        if log_ms // MINUTE_MS != self.minute:
            self.minute = log_ms // MINUTE_MS
            self._count(registry, join, log_ms)
            for model, shares in self.shares.items():
                yield from self._met(partition, partitions, registry, model, shares, log_ms)

    @staticmethod
    def _limit(
        partition: int, name: str, what: str, registry: Registry, known: Beyond, log_ms: int
    ) -> Verdict:
        limit = getattr(registry.settings.limits, name)
        reached = log_ms - known.last_ms < HOUR_MS
        return Verdict(
            key=AlertKey(
                OTHER, "", f"partition={partition}", "data_quality", f"limits.{name}", "threshold"
            ),
            level="warning" if reached else "ok",
            clear=not reached,
            value=float(known.n),
            threshold=float(limit),
            direction="up",
            window=Span(known.last_ms, log_ms, known.n),
            summary=f"limits.{name} = {limit:,} is reached in partition {partition} of "
            f"observations: {what}",
            evidence={"guarantee": "none"},
        )

    def _count(self, registry: Registry, join: Join, log_ms: int) -> None:
        """
        Add labels that had time to meet their prediction since the last look, in cohorts of at
        least `LABELS_MIN` for each source partition.
        """
        self.seen, found = join.matured(self.seen, log_ms, patience(registry))
        for model, partition, labels, unmet in found:
            cohort = self.counted.setdefault((model, partition), Cohort())
            cohort.labels += labels
            cohort.unmet += unmet
            if cohort.labels >= LABELS_MIN:
                cohort.complete_ms = log_ms
                self.shares.setdefault(model, {})[partition] = self.counted.pop((model, partition))

    def _met(
        self,
        partition: int,
        partitions: int,
        registry: Registry,
        model: int,
        shares: dict[int, Cohort],
        log_ms: int,
    ) -> Iterator[Verdict]:
        """
        The verdict on the labels of a model, of the worst of its source partitions; those that name
        no model are judged together.
        """
        for source, cohort in list(shares.items()):
            if log_ms - cohort.complete_ms > DAY_MS and len(shares) > 1:
                del shares[source]
        if model != ANY:
            source = max(shares, key=lambda s: shares[s].unmet / shares[s].labels)
            labels, unmet = shares[source].labels, shares[source].unmet
            yield _labels(
                AlertKey(
                    registry.state.model_names[model], "", "", "data_quality", "labels", "threshold"
                ),
                labels,
                unmet,
                "warning" if unmet / labels > UNMET_SHARE else "ok",
                source,
                log_ms,
                patience(registry),
            )
            return
        labels = sum(cohort.labels for cohort in shares.values())
        unmet = sum(cohort.unmet for cohort in shares.values())
        names = sorted({v.model for v in registry.versions if v.volume.predictions})
        if names:
            key = AlertKey(
                names[0] if len(names) == 1 else OTHER,
                "",
                "" if len(names) == 1 else f"partition={partition}",
                "data_quality",
                "labels",
                "profile",
            )
            # labels of models in other partitions come here too, and meet nothing
            limit = UNMET_SHARE if partitions == 1 else 1 - 1 / (2 * labels)
            yield _labels(
                key,
                labels,
                unmet,
                "ok" if unmet / labels <= limit else "warning" if partitions == 1 else "info",
                None,
                log_ms,
                patience(registry),
            )


def _labels(
    key: AlertKey,
    labels: int,
    unmet: int,
    level: Level,
    source: int | None,
    log_ms: int,
    patience_ms: int,
) -> Verdict:
    share = unmet / labels
    said, bound = apart(share, UNMET_SHARE, form=percent, digits=3)
    whose = f" of partition {source} of labels" if source is not None else " that name no model"
    why = (
        "check that both sides write the same event_id (`stream-monitor doctor` shows examples)"
        if source is not None
        else (
            "check that both sides write the same event_id (`stream-monitor doctor` shows "
            "examples); if this model gets no labels, let labels name their model"
        )
    )
    return Verdict(
        key=key,
        level=level,
        clear=level == "ok",
        value=share,
        threshold=UNMET_SHARE,
        direction="up",
        window=Span(log_ms - HOUR_MS, log_ms, labels),
        summary=(
            f"{key.model}: {said} of the last {labels:,} labels{whose} have met no prediction "
            f"with their id for {duration(patience_ms / 1e3)} or longer"
        )
        + (f", the limit is {bound}: {why}" if level != "ok" else ""),
        evidence={"labels": labels, "unmet": unmet, "guarantee": "none"},
    )
