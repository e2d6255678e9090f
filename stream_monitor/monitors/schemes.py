"""
How the rows of one signal become bins, and its changes words: errors, calibration, latency.

Rule of the file: a scheme is learnt from first rows and then stays as it is; it is part of a
snapshot. What it counts follows from the row alone.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from stream_monitor.alerts.wording import apart, duration, number, percent
from stream_monitor.arrays import Float, Int
from stream_monitor.detectors.chances import Chances, chances_tilts
from stream_monitor.detectors.tilts import number_tilts, share_tilts, upward_tilts
from stream_monitor.monitors.baseline import FeatureProfile
from stream_monitor.monitors.evidence import Watched
from stream_monitor.monitors.windowed import unit_of
from stream_monitor.stats.binning import bins_of
from stream_monitor.stats.recalibration import recalibration

Words = dict[str, Any]
NAMED = 3.0
"""Nats of evidence from which a second way in which scores are wrong is named (p = 0.014)."""


class Flags(msgspec.Struct, tag=True):
    """Rows of 0 and 1."""

    @property
    def width(self) -> int:
        """Number of bins."""
        return 2

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and unit by which its numbers are standardised."""
        return 0.0, 1.0

    def bins(self, values: Float) -> Int:
        """The bin of each row of (1, n) float64."""
        found: Int = values[0].astype(np.int64)
        return found

    def numbers(self, values: Float) -> Float:
        """Of each row the number of which sums are kept."""
        found: Float = values[0]
        return found

    def watched(self, name: str, tolerance: float) -> Watched:
        """The signal."""
        return Watched(name, share_tilts(), tolerance, *_places(self.width))


class Numbers(msgspec.Struct, tag=True):
    """Numbers on the bins of a profile; residuals have words of their own."""

    profile: FeatureProfile
    residuals: bool = False

    @property
    def width(self) -> int:
        """Number of bins; that of missing values, which a number has, stays empty."""
        return len(self.profile.edges) + 2

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and unit by which its numbers are standardised."""
        return self.profile.mean, unit_of(self.profile)

    def bins(self, values: Float) -> Int:
        """The bin of each row of (1, n) float64."""
        edges = np.append(np.array(self.profile.edges), np.inf)
        found: Int = bins_of(values, [edges], np.zeros(1, np.int64))[0]
        return found

    def numbers(self, values: Float) -> Float:
        """Of each row the number of which sums are kept."""
        mean, unit = self.scale
        found: Float = (values[0] - mean) / unit
        return found

    def watched(self, name: str, tolerance: float) -> Watched:
        """The signal."""
        tilts = number_tilts(np.append(np.array(self.profile.counts), 0))
        words = self._words if self.residuals else None
        return Watched(name, tilts, tolerance, *_places(self.width), words=words)

    def _words(self, before: Float, after: Float) -> Words:
        """A change of residuals: of their mean or of their spread."""
        (mean, sd), (mean_now, sd_now) = (self._moments(x) for x in (before, after))
        what, was, now = "mean residual", mean, mean_now
        if abs(mean_now - mean) < abs(sd_now - sd):
            what, was, now = "standard deviation of residuals", sd, sd_now
        texts = apart(was, now, form=number)
        worse = mean_now**2 + sd_now**2 > mean**2 + sd**2
        change = f"{what} from {texts[0]} to {texts[1]}"
        return {"what": what, "before": was, "after": now, "worse": worse, "change": change}

    def _moments(self, sums: Float) -> tuple[float, float]:
        rows = max(float(sums[: self.width].sum()), 1.0)
        mean = float(sums[-2]) / rows
        sd = max(float(sums[-1]) / rows - mean * mean, 0.0) ** 0.5
        return self.scale[0] + self.scale[1] * mean, self.scale[1] * sd


class Scores(msgspec.Struct, tag=True):
    """Scores with labels: `values` are scores from 0 to 1, and labels of 0 and 1."""

    known: Chances

    @property
    def width(self) -> int:
        """Number of bins: cells of part and label."""
        return 2 * self.known.parts

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and unit by which its numbers are standardised."""
        return 0.0, 1.0

    def bins(self, values: Float) -> Int:
        """The cell of each row of (2, n) float64."""
        return self.known.cells(values[0], values[1])

    def numbers(self, values: Float) -> Float:
        """The residual of each row."""
        found: Float = values[1] - values[0]
        return found

    def watched(self, name: str, tolerance: float) -> Watched:
        """The signal."""
        tilts = chances_tilts(self.known)
        return Watched(name, tilts, tolerance, *_places(self.width), words=self._words)

    def _words(self, before: Float, after: Float) -> Words:
        """
        The gap between scores and labels, before and after: the expected calibration error on the
        parts of the scores. The effect is how far the law of labels moved by shift or stretch (sum
        of absolute differences), because that has little chance in it: few labels tell of twelve
        parts that each is off.
        """
        (rows, chance), (rows_now, chance_now) = (self._chances(x) for x in (before, after))
        gap, gap_now = (
            float((n * np.abs(p - self.known.scores)).sum())
            for n, p in ((rows, chance), (rows_now, chance_now))
        )
        was, now = apart(gap, gap_now, form=number, digits=2)
        without, having = after[: self.width].reshape(2, -1)
        how = _how(chance, without + having, having)
        moved = _moved(rows_now, chance_now - chance, self.known)
        return {
            "what": "calibration error",
            "before": gap,
            "after": gap_now,
            "worse": gap_now > gap,
            "effect": round(2 * moved, 6),
            "change": f"calibration error from {was} to {now}: {how}",
        }

    def _chances(self, sums: Float) -> tuple[Float, Float]:
        """Shares of the parts, and the chance in each; a part without rows has the known one."""
        without, having = sums[: self.width].reshape(2, -1)
        rows = without + having
        chance = (having + self.known.chances) / (rows + 1)
        return rows / max(float(rows.sum()), 1.0), chance


def _moved(rows: Float, moved: Float, known: Chances) -> float:
    """How far chances moved, by shift or by stretch."""
    side = np.sign(known.scores - float((rows * known.scores).sum()))
    return max(abs(float((rows * moved).sum())), abs(float((rows * moved * side).sum())))


def _how(chances: Float, rows: Float, ones: Float) -> str:
    """
    In which way scores became wrong: for what there is evidence beside the other, that with more of
    it first.
    """
    found = recalibration(chances, rows, ones)
    ways = [
        (found.of_intercept, "too low" if found.intercept > 0 else "too high"),
        (found.of_slope, "too extreme" if found.slope < 1 else "too cautious"),
    ]
    (_, first), (also, second) = sorted(ways, key=lambda way: -way[0])
    return f"scores became {first}" + (f" and {second}" if also >= NAMED else "")


class Latencies(msgspec.Struct, tag=True):
    """Latencies in ms, on bins that are finer towards the tail."""

    edges: Float
    """(bins - 1,), ms."""
    counts: Int
    """(bins,): of the first calls."""

    @property
    def width(self) -> int:
        """Number of bins."""
        return len(self.counts)

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and unit by which its numbers are standardised."""
        return 0.0, 1.0

    def bins(self, values: Float) -> Int:
        """The bin of each row of (1, n) float64."""
        found: Int = np.searchsorted(self.edges, values[0])
        return found

    def numbers(self, values: Float) -> Float:
        """The logarithm of each latency, to the base of 2."""
        found: Float = np.log2(np.maximum(values[0], 1e-3))
        return found

    def watched(self, name: str, tolerance: float) -> Watched:
        """The signal."""
        tilts = upward_tilts(self.counts)
        return Watched(name, tilts, tolerance, *_places(self.width), words=self._words)

    def _words(self, before: Float, after: Float) -> Words:
        """The share of calls beyond the edge at which it moved most."""
        was, now = (
            np.cumsum(x[: self.width][::-1])[::-1][1:] / max(float(x[: self.width].sum()), 1.0)
            for x in (before, after)
        )
        moved = (now - was) ** 2 / np.maximum((was + now) * (2 - was - now), 1e-12)
        k = int(moved.argmax())
        p, q, ms = float(was[k]), float(now[k]), float(self.edges[k])
        said = apart(p, q, form=percent, digits=3)
        slow = duration(ms / 1e3, 3)
        change = f"share of calls that take longer than {slow} from {said[0]} to {said[1]}"
        return {
            "what": "share of slow calls",
            "milliseconds": ms,
            "before": p,
            "after": q,
            "worse": q > p,
            "change": change,
        }


def _places(width: int) -> tuple[tuple[tuple[int, ...], ...], tuple[int, int]]:
    """The columns of bins, and of the two sums behind them."""
    return tuple((k,) for k in range(width)), (width, width + 1)


AnyScheme = Flags | Numbers | Scores | Latencies
