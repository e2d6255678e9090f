"""
Drift of a group of signals, judged together on counts: features, score and prediction, or errors.

Rule of the file: the group has one alert. It opens when evidence of any signal reaches its bound,
and ends when every signal is back (`detectors/openings.py`). Signals are found by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int
from stream_monitor.detectors.openings import BACK, Openings, OpenState
from stream_monitor.detectors.pool_tilt import PoolState, PoolTilt
from stream_monitor.detectors.recent import Recent
from stream_monitor.detectors.tilts import Tilts
from stream_monitor.monitors.chunks import Cut


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


class SignalState(msgspec.Struct):
    """A signal in a snapshot."""

    pool: PoolState
    opening: OpenState | None
    drifted: Drifted | None
    totals: Float
    since: int
    recent: list[NDArray[np.float32]]


class EvidenceState(msgspec.Struct):
    """A group in a snapshot."""

    rows: int
    widths: list[int]
    starts_ms: list[int]
    signals: dict[str, SignalState]


class Evidence:
    """
    Detectors of a group of signals.

    Parameters
    ----------
    watched : sequence of Watched
    """

    def __init__(self, watched: Sequence[Watched]) -> None:
        self.watched, self.rows = list(watched), 0
        self.detector = PoolTilt([w.tilts for w in watched], [w.tolerance for w in watched])
        bins = self.detector.pools.shape[2]
        self.openings = Openings(len(self.watched), bins)
        self.recent = Recent()
        self.drifted: dict[str, Drifted] = {}
        self.since: Int = np.zeros(len(self.watched), np.int64)
        """Chunks since each signal was last found to be back."""
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
        self.totals: Float = np.zeros(len(starts))
        """Sums of each signal while it has no open drift."""

    def update(self, sums: Float, cut: Cut, bounds: Float) -> bool:
        """
        Take in chunks; whether a drift began or ended.

        Parameters
        ----------
        sums : (chunks, columns) float64
            Of the chunks that are complete.
        cut : Cut
        bounds : (signals,) float64, days
            Days for each false alarm of a signal.
        """
        if not len(sums) or not self.watched:
            return False
        sums = np.add.reduceat(sums[:, self._columns], self._starts, axis=1)
        shape = (len(sums), *self.detector.pools.shape[1:])
        counts = np.zeros((len(sums), shape[1] * shape[2]))
        counts[:, self._targets] = sums[:, self._counted]
        counts, moved, start = counts.reshape(shape), False, 0
        while start < len(sums):
            end = min(len(sums), start + self.openings.steady())
            path = self.openings.path(counts[start:end])
            back = (path >= BACK) & self.openings.open
            if back.any():
                end = start + int(back.any(axis=1).argmax()) + 1
            alarms, taken = self.detector.step(
                counts[start:end], cut.rows[start:end], cut.days[start:end], bounds
            )
            end = start + taken
            self._take(sums[start:end], cut.rows[start:end], cut.starts_ms[start:end])
            for s in self.openings.take(counts[start:end], path[:taken]):
                self._end(s, int(cut.ends_ms[end - 1]))
                moved = True
            for alarm in alarms:
                self._begin(alarm.signal, alarm.evidence, bounds, int(cut.ends_ms[end - 1]))
                moved = True
            start = end
        return moved

    def _take(self, sums: Float, rows: Int, starts_ms: Int) -> None:
        for row, start_ms in zip(sums, starts_ms.tolist(), strict=True):
            self.recent.add(row, start_ms)
        total = sums.sum(axis=0)  # exact: counts and moments are whole multiples
        for s, span in enumerate(self._spans):
            if not self.openings.open[s]:
                self.totals[span] += total[span]
        self.rows += int(rows.sum())
        self.since += len(sums)

    def _begin(self, s: int, evidence: float, bounds: Float, now_ms: int) -> None:
        """A signal has drifted: since when, and from what to what."""
        w, span = self.watched[s], self._spans[s]
        bins = len(w.places)
        split = self.recent.split(span[:bins], self.totals[span[:bins]], int(self.since[s]))
        after = split.after[span]
        before = np.maximum(self.totals[span] - after, 0.0)
        before[bins:] = self.totals[span][bins:] - after[bins:]
        self.totals[span] = before
        self.drifted[w.name] = Drifted(
            open=True,
            found_row=self.rows,
            found_ms=now_ms,
            change_row=self.rows - int(after[:bins].sum()),
            change_ms=split.start_ms,
            evidence=evidence,
            bound=float(bounds[s]),
            before=before.copy(),
            after=after.copy(),
        )
        width = self.detector.pools.shape[2]
        self.openings.begin(
            s,
            np.pad(before[:bins], (0, width - bins)),
            np.pad(after[:bins], (0, width - bins)),
            max(float(self.detector.overdispersion[s].max()), 1.0),
        )
        self.detector.leave(s, self.openings.before[s])

    def _end(self, s: int, now_ms: int) -> None:
        """A signal is back."""
        self.openings.end(s)
        self.detector.live[s], self.since[s] = True, 0
        drifted = self.drifted[self.watched[s].name]
        drifted.open, drifted.ended_ms = False, now_ms

    # ---- reading

    def open(self) -> Iterator[tuple[Watched, Drifted]]:
        """Signals with an open drift."""
        for w in self.watched:
            drifted = self.drifted.get(w.name)
            if drifted is not None and drifted.open:
                yield w, drifted

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
            )
        return EvidenceState(
            rows=self.rows,
            widths=list(self.recent.widths),
            starts_ms=list(self.recent.starts_ms),
            signals=signals,
        )

    def load(self, state: EvidenceState, changed: Collection[str] = ()) -> None:
        """Go on from a snapshot; signals in `changed` and new ones begin anew."""
        self.rows = state.rows
        self.recent.widths, self.recent.starts_ms = state.widths, state.starts_ms
        self.recent.sums = [np.zeros(len(self._starts), np.float32) for _ in state.widths]
        for s, w in enumerate(self.watched):
            saved, span = state.signals.get(w.name), self._spans[s]
            if saved is None or w.name in changed or len(saved.totals) != len(span):
                continue
            self.detector.load(s, saved.pool)
            if saved.opening is not None:
                self.openings.load(s, saved.opening)
            if saved.drifted is not None:
                self.drifted[w.name] = saved.drifted
            self.totals[span], self.since[s] = saved.totals, saved.since
            for sums, of in zip(self.recent.sums, saved.recent, strict=True):
                sums[span] = of
