"""
Are calls slower than they were, all of them or their tail? The signal for the detector on counts.

Rule of the file: only slower calls are evidence. Bins come from the first calls, and are finer
towards the tail. `latency.py` has the limits beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.events.origins import NO_ORIGINS
from stream_monitor.monitors.chunks import Cut
from stream_monitor.monitors.evidence import Watched
from stream_monitor.monitors.latency import FIRST_CALLS
from stream_monitor.monitors.one_signal import OneSignal, OneSignalForm
from stream_monitor.monitors.schemes import AnyScheme, Latencies, Words
from stream_monitor.monitors.slow_hours import FACTOR, STAYS, SlowHours

Say = Callable[[Float, Float], Words]
LATENCY = "__latency__"
CHUNK_CALLS, WARM_CALLS = 50, 2_000
CHUNKS_MIN = 3
"""As of errors: slow calls come in bursts."""
EDGES_AT = (0.1, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.998)
"""Quantiles of the first latencies at which bins are parted."""


class SlownessForm(OneSignalForm):
    """Latency in a snapshot."""

    hours: SlowHours


class Slowness(OneSignal):
    """
    The latency of a model version.

    Examples
    --------
    Calls that take half as long again, and calls that became faster:

    >>> rng = np.random.default_rng(1)
    >>> for factor in (1.5, 0.5):
    ...     slowness = Slowness(lambda _: 0.02)
    ...     slowness.days = 600.0
    ...     ms = 20 * rng.lognormal(sigma=0.5, size=10_000)
    ...     ms[6_000:] *= factor
    ...     slowness.add(ms, np.arange(10_000) * 1_000)
    True
    False
    """

    name, chunk_rows, warm_rows, chunks_min = LATENCY, CHUNK_CALLS, WARM_CALLS, CHUNKS_MIN

    def begin_anew(self) -> None:
        """Nothing was seen yet."""
        super().begin_anew()
        self.hours = SlowHours()

    def add(self, latency_ms: Float, times_ms: Int, origin: Int = NO_ORIGINS) -> bool:
        """
        Add calls in the order of the log; whether a drift began or ended.

        Parameters
        ----------
        latency_ms : (n,) float64, ms
            NaN if it is not known.
        times_ms : (n,) int64, ms
        origin : (n,) int64
            Where the rows came from; empty if that is not known.
        """
        known = are_numbers(latency_ms)
        if not known.all():
            latency_ms, times_ms = latency_ms[known], times_ms[known]
            origin = origin[known] if len(origin) else origin
        return self.feed("calls", latency_ms[None], times_ms, origin)

    def learn(self, first: Float) -> Latencies | None:
        """Bins from the first latencies."""
        if first.shape[1] < FIRST_CALLS:
            return None
        first = first[:, :FIRST_CALLS]
        edges = np.unique(np.quantile(first[0], EDGES_AT, method="higher"))
        counts = np.bincount(np.searchsorted(edges, first[0]), minlength=len(edges) + 1)
        return Latencies(edges, counts.astype(np.int64))

    def look(self, sums: Float, cut: Cut) -> None:
        """Count slow hours, while the hours of the day are not known."""
        if len(sums):
            self.hours.add(cut.ends_ms, cut.rows.astype(np.float64), sums[:, -2])

    def watched(self, scheme: AnyScheme, tolerance: float) -> Watched:
        """The signal; its words say for how many hours calls have been slow."""
        signal = super().watched(scheme, tolerance)
        return signal._replace(words=partial(self._words, signal.words))

    def _words(self, words: Say | None, before: Float, after: Float) -> Words:
        found = {} if words is None else words(before, after)
        run = self.hours.run
        if run >= STAYS:
            found["change"] += (
                f" ({run} hours in a row took {FACTOR:g} times as long as on all days before)"
            )
        return {**found, "slow_hours": run}

    def state(self) -> SlownessForm:
        """In a snapshot."""
        return SlownessForm(**self.form(), hours=self.hours)

    def load(self, state: OneSignalForm) -> None:
        """Go on from a snapshot."""
        super().load(state)
        assert isinstance(state, SlownessForm)
        self.hours = state.hours
