"""
One version of one model: all its monitors, and the order in which they get its rows.

Rule of the file: rows and pairs wait in an inbox and are reduced together, at moments that the log
alone decides. Nothing else changes the state, so reading gauges never changes a result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import msgspec
import numpy as np

from stream_monitor.arrays import Bool, Float, Int
from stream_monitor.events.cells import class_name
from stream_monitor.join.rows import Pairs
from stream_monitor.monitors import points
from stream_monitor.monitors.baseline import (
    ANY_MODEL,
    Profile,
    baseline_key,
    decode_profile,
    encode_profile,
    profile_id,
)
from stream_monitor.monitors.calibration import Calibration
from stream_monitor.monitors.classes import Reading
from stream_monitor.monitors.column_names import feature_name, output_name
from stream_monitor.monitors.containment import Containment, Judge
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.custom import Custom
from stream_monitor.monitors.drift_group import DriftGroup
from stream_monitor.monitors.due import of_evidence, of_signal, what_is_due
from stream_monitor.monitors.errors import Errors
from stream_monitor.monitors.estimate import Estimate
from stream_monitor.monitors.history import History, period_record
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.judged import Judged
from stream_monitor.monitors.labels_in import ScoredPart, take_in
from stream_monitor.monitors.late_errors import LateErrors
from stream_monitor.monitors.patterns import Patterns
from stream_monitor.monitors.performance import Performance
from stream_monitor.monitors.rows import Points, Rows, merged, with_numbers
from stream_monitor.monitors.segment_drift import CHUNK_LABELS, CHUNK_ROWS, SegmentDrift, places
from stream_monitor.monitors.segments import Segments
from stream_monitor.monitors.signals import Signals
from stream_monitor.monitors.slowness import Slowness
from stream_monitor.monitors.sums import Summed
from stream_monitor.monitors.volume import Volume
from stream_monitor.settings import CoreSettings, Limits, ModelSettings
from stream_monitor.times import HOUR_MS
from stream_monitor.verdicts import Out
from stream_monitor.windows.names import duration_ms

FULL_ROWS = 1_000
"""Rows that are reduced at once."""
SHARES = (0.45, 0.2, 0.2, 0.1, 0.05)
"""
Shares of the budget of false alarms: features, score and prediction, errors, calibration, latency.
"""
NO_TIMES: Int = np.empty(0, np.int64)


class Version:
    """
    State and judgement of one model version.

    Parameters
    ----------
    model, name : str
    core : CoreSettings
    baselines : mapping of "model/version" to bytes
        Published baseline profiles; an empty version is for all versions of the model.
    siblings : list of Version
        Other versions of the model, the one in production first, then the oldest: a new version
        inherits the baseline of their inputs.
    sources : list of str
        Names of source partitions, by the numbers that rows carry.
    """

    def __init__(
        self,
        model: str,
        name: str,
        core: CoreSettings,
        baselines: Mapping[str, bytes],
        siblings: list[Version],
        sources: list[str],
    ) -> None:
        settings, limits = core.of(model), core.limits
        self.model, self.name, self.sources = model, name, sources
        self.settings, self.limits, self.raw_values = settings, limits, core.privacy.raw_values
        self.baseline_id, self.volume = "", Volume()
        # A state is copied whole (offline/trials.py), so callbacks are methods, never closures.
        self.performance = Performance(
            settings, self._slice, self._renumbered, self._served_until, self._score
        )
        self.estimate = Estimate(self.performance)
        self.performance.labelled = self._labelled
        self.watermark_ms = 0
        self.outbox: list[Out] = []
        self.signals = Signals(settings.drift)
        self.sharers: Callable[[], float] = lambda: 1.0
        self.contained = Containment()
        self.history, self.patterns = History(), Patterns()
        self.custom = (
            Custom(settings.metrics.custom, limits.segments) if settings.metrics.custom else None
        )
        self.codes_given = 1
        """
        Codes of combinations of slices in the rows that wait for labels, while no slices are
        configured.
        """
        self.segments: Segments | None = None
        if settings.segments:
            windows = partial(self.performance.population, slim=True)
            self.segments = Segments(settings.segments, limits.segments, windows)
        self._rows: list[Rows] = []
        self._pairs: list[tuple[Pairs, list[str]]] = []
        self.scored: list[ScoredPart] = []
        """Rows that are judged and not yet told to `calibration`."""
        self._failed = NO_TIMES
        self._waiting = 0
        self.sliced_errors: list[tuple[Judged, Float, str]] = []
        """Of rows that are being added, until the whole stream has got them."""
        self.changed = False
        self.moved, self.compared_ms = False, 0
        """
        Whether something came since windows were last compared with the baseline, and when (log
        time) that was.
        """
        self._watch_columns(settings, limits)
        self._take_baseline(baselines, siblings)

    def _watch_columns(self, settings: ModelSettings, limits: Limits) -> None:
        """The groups of signals, each with its share of the budget."""
        tolerance = self.signals.tolerance
        self.features = Inputs(
            feature_name,
            settings,
            limits,
            learnt=self._learnt,
            values=self._watch if self.signals.has_methods("features") else None,
            points=self._tell_points if settings.anomalies.topic else None,
            sliced=self._sliced(Segments.count_fields),
            tolerance=tolerance,
        )
        of_outputs = msgspec.structs.replace(limits, features=limits.categories + 2)
        self.outputs = Inputs(
            output_name,
            settings,
            of_outputs,
            values=self._watch if self.signals.has_methods("score", "prediction") else None,
            sliced=self._sliced(Segments.count_outputs),
            tolerance=tolerance,
        )
        self.errors, self.calibration = Errors(tolerance), Calibration(tolerance)
        self.slowness = Slowness(tolerance)
        for group, share in zip(self.drifts, SHARES, strict=True):
            group.days = settings.days_per_alarm / share
            if self.segments is not None and group in self.drifts[:3]:
                most = places(settings.segments, limits)
                rows = CHUNK_LABELS if group is self.errors else CHUNK_ROWS
                group.sliced = SegmentDrift(self.segments.members_of, most, rows)

    def _take_baseline(self, baselines: Mapping[str, bytes], siblings: list[Version]) -> None:
        """
        Take the baseline that was published, otherwise that of another version. Without either
        it is learnt from the first rows.
        """
        model, name, settings = self.model, self.name, self.settings
        published = (
            baselines.get(baseline_key(model, name))
            or baselines.get(baseline_key(model, ""))
            or (baselines.get(ANY_MODEL) if settings.baseline.source == "file" else None)
        )
        if published is not None:
            profile = decode_profile(published)
            self.baseline_id = profile_id(profile)
            self.features.give(profile)
            self.performance.built = dict(profile.performance)
            return
        for sibling in siblings:
            if sibling.features.profile is not None:
                self.baseline_id = sibling.baseline_id
                self.features.use(sibling.features.profile)
                self.features.extends = sibling.features.extends
                self.features.left_out = sibling.features.left_out
                return

    def _learnt(self, profile: Profile) -> None:
        self.baseline_id = profile_id(profile)
        self.outbox.append(
            Out("baselines", baseline_key(self.model, self.name).encode(), encode_profile(profile))
        )

    # ---- rows in

    @property
    def is_full(self) -> bool:
        """Enough waits to be reduced at once."""
        return self._waiting >= FULL_ROWS

    def go_on_from(self, retired: Version) -> None:
        """
        Take over the counters of the state that this one replaces, so that they never go back.
        """
        self.volume.predictions, self.volume.failures = (
            retired.volume.predictions,
            retired.volume.failures,
        )
        self.performance.pairs = retired.labels

    @property
    def is_idle(self) -> bool:
        """Whether nothing came since it was made."""
        return not (self.volume.last_prediction_ms or self.volume.last_label_ms)

    def take(self, rows: Rows, log_ms: int) -> None:
        """Rows of predictions, in log order."""
        self._rows.append(rows)
        self._waiting += len(rows.times_ms)
        self.volume.heard(len(rows.times_ms), log_ms)

    def take_pairs(self, pairs: Pairs, texts: list[str], log_ms: int) -> None:
        """Labelled predictions, in the order in which they were completed."""
        self._pairs.append((pairs, texts))
        self._waiting += len(pairs.row)
        self.volume.last_label_ms = log_ms

    @property
    def labels(self) -> int:
        """Predictions that have got a label."""
        return self.performance.pairs + sum(len(p.row) for p, _ in self.performance.waiting)

    def failed(self, times_ms: Int, log_ms: int) -> None:
        """Predictions that failed, with their event times."""
        self.volume.failures += len(times_ms)
        self.volume.heard(len(times_ms), log_ms)
        self._failed = np.append(self._failed, times_ms)

    def class_column(self, name: str) -> int:
        """The column of a class among the class scores of the join."""
        return self.performance.score_classes[class_name(name)]

    def reduce(self, judge: Judge, *, look: bool) -> None:
        """
        Take in what waits, and look at the thresholds at once if asked to (a stride looks by
        itself, and so does the next tick).
        """
        rows, self._rows = self._rows, []
        pairs, self._pairs = self._pairs, []
        self._waiting = 0
        for chunk in merged(rows):
            self._fold(chunk)
        if len(self._failed):
            self.watermark_ms = max(self.watermark_ms, int(self._failed.max()))
            self.contained.run("volume", self.volume.add_failed, self._failed)
            self._failed = NO_TIMES
        for part, texts in pairs:
            self.contained.run("performance", self._fold_pairs, part, texts, judge)
        for subject in sorted(self.signals.fired):
            self.contained.judge("drift", of_signal(self, subject), judge)
        self.signals.fired.clear()
        if any(of.moved for of in self.drifts):
            for of in self.drifts:
                of.moved = False
            self.contained.judge("drift", of_evidence(self), judge)
        if pairs and look:
            self.contained.judge("performance", self.performance.verdicts(self.context), judge)
        self.changed = True

    def _fold(self, rows: Rows) -> None:
        self.watermark_ms = max(self.watermark_ms, int(rows.times_ms.max()))
        latency = (
            rows.cells[rows.columns.index("latency_ms")] if "latency_ms" in rows.columns else None
        )
        self.contained.run("volume", self.volume.add, rows.times_ms, latency)
        if latency is not None:
            self.contained.run("drift", self.slowness.add, latency, rows.times_ms, rows.origin)
        if self.custom is not None:
            self.contained.run("custom", self.custom.add, rows)
        if self.segments is not None:
            self.contained.run("segments", self.segments.count, rows)
        self.contained.run("features", self.features.add, rows)
        self.contained.run("outputs", self._outputs, rows)
        self.contained.run("estimate", self.estimate.count, rows)

    def settle(self, judge: Judge) -> None:
        """The end of the input: nothing waits for more labels any longer."""
        self.contained.run("performance", take_in, self, self.performance.settle(), judge)

    def _fold_pairs(self, pairs: Pairs, texts: list[str], judge: Judge) -> None:
        take_in(self, self.performance.add(pairs, texts), judge)

    def _score(self, rows: Judged, first: Bool, live: Reading | None) -> None:
        if self.calibration.tolerance is not None:
            self.scored.append((rows, first, live))

    def _watch(self, name: str, values: Float, times_ms: Int) -> None:
        if len(values) and self.signals.has_detectors(name, self.outputs.profile):
            self.contained.run("drift", self.signals.feed, name, values, times_ms)

    def _outputs(self, rows: Rows) -> None:
        self.outputs.add(with_numbers(rows, "prediction"))

    def _renumbered(self, values: Float) -> None:
        """Labels that seemed to be classes are numbers: slices and errors follow."""
        for _, windows in self.segments or ():
            windows.renumber(values)
        self.signals.begin_errors_anew()
        self.errors.begin_anew()
        self.errors.late = LateErrors()
        self.calibration.begin_anew()
        self.scored = []

    def _slice(self, rows: Judged, errors: Float, kind: str) -> None:
        if self.segments is not None:
            self.contained.run("segments", self.segments.add, rows, errors, kind)
            self.sliced_errors.append((rows, errors, kind))

    def _sliced(self, count: Callable[[Segments, Summed], None]) -> Callable[[Summed], None] | None:
        if (segments := self.segments) is None:
            return None
        return partial(self._count, count, segments)

    def _count(
        self, count: Callable[[Segments, Summed], None], segments: Segments, chunk: Summed
    ) -> None:
        self.contained.run("segments", count, segments, chunk)

    def _labelled(self, rows: Judged, places: Int) -> None:
        self.contained.run("estimate", self.estimate.add, rows, places)

    def _served_until(self, until_ms: int) -> float:
        return self.volume.served_until(until_ms)  # a snapshot has another

    def _tell_points(self, found: Points) -> None:
        self.outbox += points.records(self.context, found, self.sources, raw_values=self.raw_values)

    # ---- judgement

    @property
    def context(self) -> Context:
        """The context of all verdicts."""
        return Context(self.model, self.name, self.settings, self.baseline_id)

    def tick(self, log_ms: int, judge: Judge, config: str) -> None:
        """
        Once a second of log time: what depends on time, and what changed since.

        `config` is the hash of the configuration; empty: nobody reads the records of minutes.
        """
        if config:
            self.contained.run("history", self._tell_history, log_ms, config)
        for monitor, verdicts in what_is_due(self, log_ms):
            self.contained.judge(monitor, verdicts, judge)
        for verdict in self.contained.verdicts(self.context, log_ms):
            judge(verdict)

    @property
    def drifts(self) -> list[DriftGroup]:
        """The groups of signals that have detectors on counts, as in `GROUPS`."""
        inputs = [self.features.drift, self.outputs.drift]
        return [*inputs, self.errors, self.calibration, self.slowness]

    def _tell_history(self, log_ms: int, config: str) -> None:
        failures = self.volume.failures
        totals = (self.volume.predictions + failures, failures, self.labels)
        for period in self.history.ended(totals, log_ms):
            metrics, _ = self.performance.window(self.settings.windows[0])
            width_ms = period.end_ms - period.start_ms
            features, _, _ = self.features.window(self.watermark_ms, width_ms)
            record = period_record(self.context, period, metrics, features, config)
            self.outbox.append(Out("history", self.model.encode(), record))

    def drain(self) -> list[Out]:
        """Effects since the last call."""
        out, self.outbox = self.outbox, []
        return out

    def window_ms(self) -> int:
        """The window of inputs that gauges show: the shortest configured duration, or an hour."""
        return min(
            (d for w in self.settings.windows if (d := duration_ms(w)) is not None),
            default=HOUR_MS,
        )

    @property
    def memory_bytes(self) -> int:
        """Bytes of panes, of rows in windows, and of detectors, which is nearly all."""
        windows = [self.performance.windows, *(w for _, w in self.segments or ())]
        found = sum(w.memory_bytes for w in windows if w is not None)
        found += sum(group.memory_bytes for group in self.drifts)
        inputs = self.features.memory_bytes + self.outputs.memory_bytes
        return found + inputs + self.volume.panes.sums.nbytes + self.estimate.memory_bytes
