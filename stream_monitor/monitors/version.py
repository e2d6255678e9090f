"""
One version of one model: all its monitors, and the order in which they get its rows.

Rule of the file: rows and pairs wait in an inbox and are reduced together, at moments that the log
alone decides; nothing else changes the state, so that a look at the gauges never shows in a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float
from stream_monitor.events.cells import class_name
from stream_monitor.join.rows import Pairs
from stream_monitor.monitors import drift, points, quality
from stream_monitor.monitors.containment import Containment
from stream_monitor.monitors.custom import Custom
from stream_monitor.monitors.distance_verdicts import distance_verdicts
from stream_monitor.monitors.history import History
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.judged import Judged
from stream_monitor.monitors.patterns import HOUR_MS, Patterns, hours_to_judge, pattern_verdicts
from stream_monitor.monitors.performance import Performance
from stream_monitor.monitors.reference import (
    ANY_MODEL,
    Profile,
    baseline_key,
    decode_profile,
    encode_profile,
    profile_id,
)
from stream_monitor.monitors.rows import Points, Rows, concatenated, with_numbers
from stream_monitor.monitors.segments import Segments
from stream_monitor.monitors.volume import Volume
from stream_monitor.monitors.windowed import unit_of
from stream_monitor.settings import CoreSettings
from stream_monitor.verdicts import AlertKey, Out, Span, Verdict
from stream_monitor.windows.names import duration_ms

Judge = Callable[[Verdict], None]
FULL_ROWS = 1_000
"""Rows that are reduced at once."""
NO_TIMES: NDArray[np.int64] = np.empty(0, np.int64)
COMPARE_MS = 10_000
"""Log time between two comparisons of windows with the reference."""
FIRST_ERRORS = 500
"""First absolute errors of a regression, which standardise the later ones for its detectors."""


def feature_name(column: str) -> str | None:
    """Name of the feature of a column; None for the others."""
    return column[9:] if column.startswith("features.") else None


def output_name(column: str) -> str | None:
    """Names under which scores and prediction are watched like features."""
    if column.startswith("score."):
        return drift.CLASS_SCORE + class_name(column[6:])
    return {"score": "__score__", "prediction": "__prediction__"}.get(column)


class Version:
    """
    State and judgement of one model version.

    Parameters
    ----------
    model, name : str
    core : CoreSettings
    baselines : mapping of "model/version" to bytes
        Published reference profiles; an empty version is for all versions of the model.
    siblings : list of Version
        Other versions of the model, oldest first: a new version inherits the reference of their
        inputs.
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
        self.model, self.name, self.settings, self.limits, self.sources, self.raw_values = (
            model,
            name,
            settings,
            limits,
            sources,
            core.privacy.raw_values,
        )
        self.reference = ""
        self.performance = Performance(settings)
        self.performance.on_numbers = self._errors_anew
        self.volume = Volume()
        self.watermark_ms = 0
        self.outbox: list[Out] = []
        self.signals: dict[str, drift.Signal] = {}
        self.contained = Containment()
        self.history, self.patterns = History(), Patterns()
        self.custom = (
            Custom(settings.metrics.custom, limits.segments) if settings.metrics.custom else None
        )
        self.codes_given = 1
        """
        Codes of combinations of slices in the rows that wait for labels, where there are no slices
        now.
        """
        self.segments = (
            Segments(
                settings.segments, limits.segments, lambda: self.performance.population(slim=True)
            )
            if settings.segments
            else None
        )
        if self.segments is not None:
            self.performance.on_rows = self._slice
            self.performance.slices = lambda: [windows for _, windows in self.segments or ()]
        self._rows: list[Rows] = []
        self._pairs: list[tuple[Pairs, list[str]]] = []
        self._failed = NO_TIMES
        self._waiting = 0
        self._fired: set[str] = set()
        self._changed = False
        self._moved, self._compared_ms = False, 0
        """
        Something came since windows were last compared with the reference, and when (log time) that
        was.
        """
        self._first_errors: Float = np.empty(0)
        self._error_scale: tuple[float, float] | None = None
        self.features = Inputs(feature_name, settings, limits, None, self._learnt)
        self.outputs = Inputs(
            output_name, settings, msgspec.structs.replace(limits, features=limits.categories + 2)
        )
        self._ranked: tuple[Profile | None, frozenset[str]] = None, frozenset()
        """Class scores that have detectors, by the reference."""
        self.features.on_values = self._watch
        self.outputs.on_values = self._watch
        if settings.anomalies.topic:
            self.features.on_points = self._tell_points
        published = (
            baselines.get(baseline_key(model, name))
            or baselines.get(baseline_key(model, ""))
            or (baselines.get(ANY_MODEL) if settings.baseline.source == "file" else None)
        )
        inherited = next((s.features for s in siblings if s.features.profile is not None), None)
        if published is not None:
            profile = decode_profile(published)
            self._use(profile)
            self.performance.built = dict(profile.performance)
        elif inherited is not None and inherited.profile is not None:
            self._use(inherited.profile)
            self.features.extends = inherited.extends

    def _use(self, profile: Profile) -> None:
        self.reference = profile_id(profile)
        self.features.use(profile)

    def _learnt(self, profile: Profile) -> None:
        self.reference = profile_id(profile)
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
        """Nothing came since it was made."""
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

    def failed(self, times_ms: NDArray[np.int64], log_ms: int) -> None:
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
        for chunk in _merged(rows):
            self._fold(chunk)
        if len(self._failed):
            self.watermark_ms = max(self.watermark_ms, int(self._failed.max()))
            self.contained.run("volume", self.volume.add_failed, self._failed)
            self._failed = NO_TIMES
        for part, texts in pairs:
            self.contained.run("performance", self._fold_pairs, part, texts, judge)
        for subject in sorted(self._fired):
            self.contained.run("drift", self._judge_signal, subject, judge)
        self._fired.clear()
        if pairs and look:
            self.contained.run(
                "performance", _judge_all, self.performance.verdicts(self.model, self.name), judge
            )
        self._changed = True

    def _fold(self, rows: Rows) -> None:
        self.watermark_ms = max(self.watermark_ms, int(rows.times_ms.max()))
        latency = (
            rows.cells[rows.columns.index("latency_ms")] if "latency_ms" in rows.columns else None
        )
        self.contained.run("volume", self.volume.add, rows.times_ms, latency)
        if self.custom is not None:
            self.contained.run("custom", self.custom.add, rows)
        self.contained.run("features", self.features.add, rows)
        self.contained.run("outputs", self._outputs, rows)

    def settle(self, judge: Judge) -> None:
        """The end of the input: nothing waits for more labels any longer."""
        self.contained.run("performance", self._take_in, self.performance.settle(), judge)

    def _fold_pairs(self, pairs: Pairs, texts: list[str], judge: Judge) -> None:
        self._take_in(self.performance.add(pairs, texts), judge)

    def _take_in(
        self, strides: Iterable[tuple[Float, NDArray[np.int64], bool]], judge: Judge
    ) -> None:
        for errors, times, due in strides:
            self._watch("__error__", self._standardised(errors), times)
            if due:
                _judge_all(self.performance.verdicts(self.model, self.name, due=True), judge)

    def _standardised(self, errors: Float) -> Float:
        """
        Errors of a classification as they are; those of a regression by the first ones, since
        detectors expect a unit scale.
        """
        if self.performance.task != "regression":
            return errors
        if self._error_scale is None:
            self._first_errors = np.append(self._first_errors, errors)
            if len(self._first_errors) < FIRST_ERRORS:
                return np.empty(0)
            errors, self._first_errors = (
                self._first_errors[FIRST_ERRORS:],
                self._first_errors[:FIRST_ERRORS],
            )
            self._error_scale = (
                float(self._first_errors.mean()),
                float(self._first_errors.std()) or 1.0,
            )
        mean, sd = self._error_scale
        return (errors - mean) / sd

    def _errors_anew(self) -> None:
        """Errors are in other units from here on."""
        self.signals.pop("__error__", None)
        self._fired.discard("__error__")

    def _watch(self, name: str, values: Float, times_ms: NDArray[np.int64]) -> None:
        """Feed the detectors of one signal."""
        if name.startswith(drift.CLASS_SCORE):
            if self._ranked[0] is not self.outputs.profile:
                self._ranked = self.outputs.profile, drift.class_scores(self.outputs.profile)
            if name not in self._ranked[1]:
                return
        if len(values):
            self.contained.run(
                "drift", self._feed, name, values, times_ms[len(times_ms) - len(values) :]
            )

    def _outputs(self, rows: Rows) -> None:
        self.outputs.add(with_numbers(rows, "prediction"))

    def _feed(self, name: str, values: Float, times_ms: NDArray[np.int64]) -> None:
        if self.signal(name).update(values, times_ms):
            self._fired.add(name)

    def signal(self, name: str) -> drift.Signal:
        """The detectors of a subject, made when its first values come."""
        signal = self.signals.get(name)
        if signal is None:
            home = None if name == "__error__" else 0.0
            signal = self.signals[name] = drift.Signal(
                name, getattr(self.settings.drift, drift.signal_of(name)), home
            )
            signal.binary = name == "__error__" and self.performance.task != "regression"
        return signal

    def _slice(self, rows: Judged) -> None:
        if self.segments is not None:
            self.contained.run("segments", self.segments.add, rows)

    def _tell_points(self, found: Points) -> None:
        self.outbox += points.records(found, self)

    # ---- judgement

    def _judge_signal(self, subject: str, judge: Judge) -> None:
        scale = self._error_scale if subject == "__error__" and self._error_scale else (0.0, 1.0)
        for inputs in (self.features, self.outputs):
            if inputs.profile is not None and subject in inputs.profile.features:
                profile = inputs.profile.features[subject]
                scale = (profile.mean, unit_of(profile))
        _judge_all(
            self.signals[subject].verdicts(
                self.model, self.name, self.settings, scale, self.reference
            ),
            judge,
        )

    def tick(self, log_ms: int, judge: Judge, config: str) -> None:
        """
        Once a second of log time: what depends on time, and what changed since.

        `config` is the hash of the configuration; empty: nobody reads the records of minutes.
        """
        run = self.contained.run
        run(
            "volume",
            _judge_all,
            self.volume.freshness(self.model, self.name, self.settings, log_ms),
            judge,
        )
        if config:
            run("history", self._tell_history, log_ms, config)
        if self._changed:
            self._changed = False
            run(
                "volume",
                _judge_all,
                self.volume.verdicts(self.model, self.name, self.settings, self.watermark_ms),
                judge,
            )
            run("performance", _judge_all, self.performance.verdicts(self.model, self.name), judge)
            if self.segments is not None:
                run("segments", self._judge_segments, self.segments, judge)
            run("patterns", self._judge_hours, judge)
            for name, inputs in (("features", self.features), ("outputs", self.outputs)):
                run(name, self._judge_inputs, inputs, judge)
            run(
                "features",
                _judge_all,
                quality.unwatched(
                    self.model, self.name, self.features, self.settings, self.reference
                ),
                judge,
            )
            self._moved = True
            for subject in self.signals:
                run("drift", self._judge_signal, subject, judge)
        if self._moved and not 0 <= log_ms - self._compared_ms < COMPARE_MS:
            self._moved, self._compared_ms = False, log_ms
            for name, inputs in (("features", self.features), ("outputs", self.outputs)):
                run(name, self._judge_distances, inputs, judge)
        _judge_all(self.contained.verdicts(self.model, self.name, log_ms), judge)

    def _tell_history(self, log_ms: int, config: str) -> None:
        self.outbox += [
            Out("history", self.model.encode(), record)
            for record in self.history.records(self, log_ms, config)
        ]

    def _judge_segments(self, segments: Segments, judge: Judge) -> None:
        for segment, windows in segments.changed():
            _judge_all(
                self.performance.verdicts_on(
                    windows,
                    AlertKey(self.model, self.name, segment, "performance", "", "threshold"),
                ),
                judge,
            )

    def _judge_inputs(self, inputs: Inputs, judge: Judge) -> None:
        _judge_all(
            quality.judge(
                self.model, self.name, inputs, self.watermark_ms, self.settings, self.reference
            ),
            judge,
        )

    def _judge_distances(self, inputs: Inputs, judge: Judge) -> None:
        if self.settings.drift.thresholds:
            for found, span in quality.recent(
                inputs, self.watermark_ms, self.settings.quality.min_rows
            )[quality.STEADY : quality.STEADY + 1]:
                _judge_all(
                    distance_verdicts(
                        self.model, self.name, inputs, found, span, self.settings, self.reference
                    ),
                    judge,
                )

    def _judge_hours(self, judge: Judge) -> None:
        """Patterns of the hours of event time that are over."""
        if self.features.profile is None or not self.watermark_ms:
            return
        for hour in hours_to_judge(
            self.patterns.next_ms,
            int(self.features.panes.starts[0]) if self.features.panes.used else self.watermark_ms,
            self.watermark_ms,
        ):
            self.patterns.next_ms = hour + HOUR_MS
            found, start, end = self.features.window(hour + HOUR_MS - 1, HOUR_MS)
            _judge_all(
                pattern_verdicts(
                    self.model,
                    self.name,
                    self.patterns,
                    hour,
                    found,
                    Span(start, end, 0),
                    self.settings,
                    self.reference,
                ),
                judge,
            )

    def drain(self) -> list[Out]:
        """Effects since the last time."""
        out, self.outbox = self.outbox, []
        return out

    def window_ms(self) -> int:
        """
        The window of input statistics that is shown: the shortest duration configured, an hour if
        there is none.
        """
        return min(
            (d for w in self.settings.windows if (d := duration_ms(w)) is not None),
            default=3_600_000,
        )

    @property
    def memory_bytes(self) -> int:
        """Bytes of panes and of rows in windows, which is nearly all."""
        found = (
            self.features.memory_bytes + self.outputs.memory_bytes + self.volume.panes.sums.nbytes
        )
        found += (
            self.performance.windows.memory_bytes if self.performance.windows is not None else 0
        )
        return found + (
            sum(w.memory_bytes for _, w in self.segments) if self.segments is not None else 0
        )


def _judge_all(verdicts: Iterable[Verdict], judge: Judge) -> None:
    for verdict in verdicts:
        judge(verdict)


def _alike(first: Rows, other: Rows) -> bool:
    """
    Whether rows can be joined; after a restart those that wait may tell of no origin, and later
    ones do.
    """
    return (
        first.columns == other.columns
        and not first.texts
        and not other.texts
        and bool(len(first.origin)) == bool(len(other.origin))
    )


def _merged(rows: list[Rows]) -> Iterator[Rows]:
    """
    Neighbours with the same columns and no texts, joined, so that they are reduced as one chunk.
    """
    start = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and _alike(rows[start], rows[end]):
            continue
        run = rows[start:end]
        yield run[0] if len(run) == 1 else concatenated(run)
        start = end
