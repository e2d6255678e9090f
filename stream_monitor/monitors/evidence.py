"""
Drift of a group of signals, judged together on counts: features, score and prediction, or errors.

Rule of the file: the group has one alert. It opens when evidence of any signal reaches its bound,
and ends when every signal is back (`detectors/openings.py`). Signals are found by name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int
from stream_monitor.detectors.openings import BACK, Openings, OpenState
from stream_monitor.detectors.pool_tilt import WARM_ROWS, Alarm, PoolState, PoolTilt
from stream_monitor.detectors.recent import Recent, Split
from stream_monitor.detectors.seasons import Seasons, SeasonState
from stream_monitor.detectors.tilts import Tilts
from stream_monitor.events.origins import UNKNOWN
from stream_monitor.monitors.chunks import Cut
from stream_monitor.monitors.newest import Show
from stream_monitor.times import HOUR_MS

CHUNKS_MIN = 1
"""A batch of foreign rows is over before anybody could act."""


class Watched(NamedTuple):
    """One signal of a group."""

    name: str
    tilts: Tilts
    tolerance: float
    """Root of the χ² distance within which its law may wander."""
    places: tuple[tuple[int, ...], ...]
    """The columns of each of its bins among the sums of a chunk."""
    moments: tuple[int, ...] = ()
    """The columns of Σz and Σz², if it is a number."""
    labels: tuple[str, ...] = ()
    """Names of its bins, if it has levels."""
    edges: tuple[float, ...] = ()
    """Between its bins of values, if it is a number of the inputs."""
    words: Callable[[Float, Float], dict[str, Any]] | None = None
    """Says of sums before and after a change what it is, if the signal has words of its own."""


class Drifted(msgspec.Struct):
    """An open drift, or the last one, of a signal."""

    open: bool
    found_row: int
    """Rows of the group when it was found."""
    found_ms: int
    change_row: int
    change_ms: int
    evidence: float
    bound: float
    before: Float
    """Counts by bin, then Σz and Σz²."""
    after: Float
    ended_ms: int = 0
    ended_row: int = 0
    origin: int = UNKNOWN
    """Where the first row since the change came from."""
    rows: list[int] = []
    """Where some rows came from that show the change: the newest in the bin that grew most."""
    alert: str | None = None
    """The alert that tells of it (`drift_alerts.py`); None: not told yet, or the only one."""
    alert_ms: int = 0
    """When the first drift of that alert was found."""
    last_alert: str | None = None
    """The alert that told of the drift of this signal before."""
    over: bool = False
    """It has ended, and its alert knows."""


class SignalState(msgspec.Struct):
    """A signal in a snapshot."""

    pool: PoolState
    opening: OpenState | None
    drifted: Drifted | None
    totals: Float
    since: int
    recent: list[NDArray[np.float32]]
    season: SeasonState | None = None


class EvidenceState(msgspec.Struct):
    """A group in a snapshot."""

    rows: int
    widths: list[int]
    starts_ms: list[int]
    origins: list[int]
    hour: int
    signals: dict[str, SignalState]


class Evidence:
    """
    Detectors of a group of signals.

    Parameters
    ----------
    watched : sequence of Watched
    warm_rows : int
        Rows that are known before evidence counts.
    chunks_min : int
        A change that so many chunks have seen is too young to be told.
    """

    def __init__(
        self,
        watched: Sequence[Watched],
        warm_rows: int = WARM_ROWS,
        chunks_min: int = CHUNKS_MIN,
    ) -> None:
        self.watched, self.chunks_min = list(watched), chunks_min
        detector = PoolTilt([w.tilts for w in watched], [w.tolerance for w in watched], warm_rows)
        bins = detector.pools.shape[2]
        columns, starts, targets, spans = list[int](), list[int](), list[int](), list[Int]()
        for s, w in enumerate(self.watched):
            first = len(starts)
            for k, places in enumerate((*w.places, *((m,) for m in w.moments))):
                starts.append(len(columns))
                columns += places
                if k < len(w.places):
                    targets.append(s * bins + k)
            spans.append(np.arange(first, len(starts)))
        self._columns, self._starts = np.array(columns, np.int64), np.array(starts, np.int64)
        self._spans, self._targets = spans, np.array(targets, np.int64)
        counted = [span[: len(w.places)] for span, w in zip(spans, self.watched, strict=True)]
        self._counted: Int = np.concatenate([*counted, np.empty(0, np.int64)]).astype(np.int64)
        self._owner = np.repeat(np.arange(len(spans)), [len(span) for span in spans])
        self._forget(detector)

    def _forget(self, detector: PoolTilt) -> None:
        """Nothing was seen yet."""
        self.detector, self.rows = detector, 0
        self.openings = Openings(len(self.watched), detector.pools.shape[2])
        self.recent = Recent()
        self.drifted: dict[str, Drifted] = {}
        self.since: Int = np.zeros(len(self.watched), np.int64)
        """Chunks since each signal was last found to be back."""
        self.seasons = Seasons(detector, self._counted, self._targets, self._owner)
        self.totals: Float = np.zeros(len(self._starts))
        """Sums of each signal while it has no open drift."""

    def another(self, warm_rows: int) -> Evidence:
        """Detectors of the same signals on other rows, which have seen nothing."""
        found = copy.copy(self)
        found._forget(self.detector.another(warm_rows))
        return found

    def update(self, sums: Float, cut: Cut, bounds: Float, show: Show | None = None) -> bool:
        """
        Take in chunks; whether a drift began or ended.

        Parameters
        ----------
        sums : (chunks, columns) float64
            Of the chunks that are complete.
        cut : Cut
        bounds : (signals,) float64, days
            Days for each false alarm of a signal.
        show : callable, optional
            Finds rows that show a change.
        """
        if not len(sums) or not self.watched:
            return False
        sums = np.add.reduceat(sums[:, self._columns], self._starts, axis=1)
        shape = (len(sums), *self.detector.pools.shape[1:])
        counts = np.zeros((len(sums), shape[1] * shape[2]))
        counts[:, self._targets] = sums[:, self._counted]
        counts, moved, start = counts.reshape(shape), False, 0
        hours = cut.ends_ms // HOUR_MS
        while start < len(sums):
            if hours[start] != self.seasons.hour:
                moved |= self._turn(int(hours[start]), int(cut.ends_ms[start]))
            end = int(np.searchsorted(hours, hours[start], side="right"))
            end = min(end, start + self.openings.steady())
            path = self.openings.path(counts[start:end])
            back = (path >= BACK) & self.openings.open
            if back.any():
                end = start + int(back.any(axis=1).argmax()) + 1
            alarms, taken = self.detector.step(
                counts[start:end],
                cut.rows[start:end],
                cut.days[start:end],
                bounds,
                self.seasons.known,
            )
            end = start + taken
            self._take(sums[start:end], cut, slice(start, end))
            for s in self.openings.take(counts[start:end], path[:taken]):
                self._end(s, int(cut.ends_ms[end - 1]))
                moved = True
            young = self.chunks_min * int(cut.rows[end - 1])
            for alarm in alarms:
                begun = self._begin(alarm, bounds, int(cut.ends_ms[end - 1]), young)
                if begun is not None and show is not None:
                    begun.rows = self._shown(alarm.signal, begun, show, end - 1)
                moved |= begun is not None
            start = end
        return moved

    def _turn(self, hour: int, now_ms: int) -> bool:
        """
        Another hour begins. A signal that turns out to be seasonal has another reference from here
        on; whether one had an open drift.
        """
        moved = False
        for s in self.seasons.turn(hour):
            if self.openings.open[s]:
                self._end(s, now_ms)
                moved = True
            self.detector.begin_evidence(s)
            self.since[s] = 0
        self.openings.turn(self.seasons.known, self.seasons.matters)
        return moved

    def _take(self, sums: Float, cut: Cut, part: slice) -> None:
        firsts = zip(cut.starts_ms[part].tolist(), cut.origins[part].tolist(), strict=True)
        for row, first in zip(sums, firsts, strict=True):
            self.recent.add(row, *first)
        total = sums.sum(axis=0)  # exact: counts and moments are whole multiples
        self.totals += np.where(self.openings.open[self._owner], 0.0, total)
        self.seasons.add(total, self.openings.open)
        self.rows += int(cut.rows[part].sum())
        self.since += len(sums)

    def _begin(self, alarm: Alarm, bounds: Float, now_ms: int, young: int) -> Drifted | None:
        """
        A signal has drifted: since when, and from what to what. None: it waits until the change is
        older than `young` rows.
        """
        s = alarm.signal
        w, span = self.watched[s], self._spans[s]
        bins = len(w.places)
        split, usual = self._split(alarm)
        after = split.after[span]
        if after[:bins].sum() <= young:
            self.detector.wait(alarm)
            return None
        rest = self.totals[span] - after
        rest[:bins] = np.maximum(rest[:bins], 0.0)
        self.totals[span] = rest
        before = rest.copy() if usual is None else usual
        last = self.drifted.get(w.name)
        found = self.drifted[w.name] = Drifted(
            open=True,
            found_row=self.rows,
            found_ms=now_ms,
            change_row=self.rows - int(after[:bins].sum()),
            change_ms=split.start_ms,
            evidence=alarm.evidence,
            bound=float(bounds[s]),
            before=before,
            after=after.copy(),
            origin=split.origin,
        )
        if last is not None:
            found.last_alert = last.alert
            if not last.over:  # else nobody would end that alert
                found.alert, found.alert_ms = last.alert, last.alert_ms
        padding = (0, self.detector.pools.shape[2] - bins)
        dispersion = float(self.detector.overdispersion[s])
        self.openings.begin(
            s, np.pad(before[:bins], padding), np.pad(after[:bins], padding), dispersion
        )
        self.detector.leave(s, np.pad(rest[:bins], padding))
        self.seasons.leave(s)
        return found

    def _shown(self, s: int, drifted: Drifted, show: Show, chunk: int) -> list[int]:
        """Some rows since a change, up to the end of a chunk, in the bin that grew most."""
        w, bins = self.watched[s], len(self.watched[s].places)
        p, q = (x[:bins] / max(float(x[:bins].sum()), 1.0) for x in (drifted.before, drifted.after))
        grown = np.maximum(q - p, 0.0) ** 2 / (p + q + 1e-12)
        rows = drifted.found_row - drifted.change_row
        return show(w.name, w.places[int(grown.argmax())], chunk, rows)

    def _split(self, alarm: Alarm) -> tuple[Split, Float | None]:
        """
        Where a signal changed. If it was compared with its hour, that is where the alternative of
        the alarm began to gain, and what its rows since then usually are comes with it.
        """
        s, known = alarm.signal, self.seasons.known
        span, bins = self._spans[s], len(self.watched[s].places)
        since = max(int(self.since[s]), 1)
        if known is None or not known.mask[s]:
            return self.recent.split(span[:bins], self.totals[span[:bins]], since), None
        looked = max(int((np.cumsum(self.recent.widths[::-1]) <= since).sum()), 1)
        sums = np.array([x[span[:bins]] for x in self.recent.sums[-looked:]], np.float64)
        rows = sums.sum(axis=1)
        usual = self.seasons.usual(span, self.recent.starts_ms[-looked:], rows)
        weights = self.detector.weights_of(s, alarm.tilt)
        law = (usual[:, :bins] @ np.exp(weights)) / np.maximum(rows, 1.0)
        gains = sums @ weights - rows * (np.log(law) + known.penalty[s, 0, alarm.tilt])
        best = int(np.cumsum(gains[::-1]).argmax()) + 1
        found = usual[-best:].sum(axis=0)
        weight = float(known.pool[s].sum()) / max(float(rows[-best:].sum()), 1.0)
        return self.recent.last(best), found * weight

    def _end(self, s: int, now_ms: int) -> None:
        """A signal is back."""
        self.openings.end(s)
        self.detector.live[s], self.since[s] = True, 0
        drifted = self.drifted[self.watched[s].name]
        drifted.open, drifted.ended_ms, drifted.ended_row = False, now_ms, self.rows

    # ---- reading

    def open(self) -> Iterator[tuple[Watched, Drifted]]:
        """Signals with an open drift."""
        for w in self.watched:
            drifted = self.drifted.get(w.name)
            if drifted is not None and drifted.open:
                yield w, drifted

    def hours(self, name: str) -> Literal["learning", "seasonal", "weekly", "alike"]:
        """What is known of the hours of the day of a signal."""
        s = self._place(name)
        if self.seasons.matters[s]:
            return "weekly" if self.seasons.week.weekly[s] else "seasonal"
        return "alike" if self.seasons.learnt[s] else "learning"

    def days(self, name: str) -> Literal["learning", "known"]:
        """Whether every day of the week is known for a signal."""
        return "known" if self.seasons.week.complete[self._place(name)] else "learning"

    def _place(self, name: str) -> int:
        return next(s for s, w in enumerate(self.watched) if w.name == name)

    def scores(self, bounds: Float) -> Iterator[tuple[str, float, float]]:
        """By signal: evidence and bound, in days; of an open drift those at its start."""
        mixed = (self.detector.evidence * self.detector.prior).sum(axis=1)
        for s, w in enumerate(self.watched):
            drifted = self.drifted.get(w.name)
            if drifted is not None and drifted.open:
                yield w.name, drifted.evidence, drifted.bound
            else:
                yield w.name, float(mixed[s]), float(bounds[s])

    # ---- snapshots

    def state(self) -> EvidenceState:
        """The group in a snapshot."""
        signals = {}
        for s, w in enumerate(self.watched):
            span = self._spans[s]
            signals[w.name] = SignalState(
                pool=self.detector.state(s),
                opening=self.openings.state(s, len(w.places)),
                drifted=self.drifted.get(w.name),
                totals=self.totals[span].copy(),
                since=int(self.since[s]),
                recent=[sums[span].copy() for sums in self.recent.sums],
                season=self.seasons.state(s),
            )
        return EvidenceState(
            rows=self.rows,
            widths=list(self.recent.widths),
            starts_ms=list(self.recent.starts_ms),
            origins=list(self.recent.origins),
            hour=self.seasons.hour,
            signals=signals,
        )

    def load(self, state: EvidenceState, changed: Collection[str] = ()) -> None:
        """Go on from a snapshot; signals in `changed` and new ones begin anew."""
        self.rows, self.seasons.hour = state.rows, state.hour
        self.recent.widths, self.recent.starts_ms = state.widths, state.starts_ms
        self.recent.origins = state.origins
        self.recent.sums = [np.zeros(len(self._starts), np.float32) for _ in state.widths]
        for s, w in enumerate(self.watched):
            saved, span = state.signals.get(w.name), self._spans[s]
            if saved is None or w.name in changed or len(saved.totals) != len(span):
                continue
            self.detector.load(s, saved.pool)
            if saved.season is not None:
                self.seasons.load(s, saved.season)
            if saved.drifted is not None:
                self.drifted[w.name] = saved.drifted
            self.totals[span], self.since[s] = saved.totals, saved.since
            for sums, of in zip(self.recent.sums, saved.recent, strict=True):
                sums[span] = of
        self.seasons.refer()
        self.openings.known = self.seasons.known
        for s, w in enumerate(self.watched):
            saved = state.signals.get(w.name)
            if w.name in self.drifted and saved is not None and saved.opening is not None:
                self.openings.load(s, saved.opening)
