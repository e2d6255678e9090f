"""
The law of a signal before and after a change, as counts on bins that people can read.

Rule of the file: counts are as the detector has them; here they only get names. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf, isfinite, nan, nextafter
from typing import Any, NamedTuple

from stream_monitor.alerts.wording import apart, number
from stream_monitor.monitors.baseline import FeatureProfile
from stream_monitor.monitors.evidence import Watched
from stream_monitor.monitors.schemes import AnyScheme, Flags, Latencies, Numbers

OTHERS = "rare or new ones"
"""Name of the categories without a bin of their own."""


class Bin(NamedTuple):
    """A bin: a name, or the numbers from `low` up to but without `high`."""

    name: str
    low: float = nan
    high: float = nan

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers."""
        return self.low == self.low

    @property
    def is_value(self) -> bool:
        """Whether it holds one number only."""
        return nextafter(self.low, inf) >= self.high

    @property
    def text(self) -> str:
        """
        What it holds.

        >>> [b.text for b in (Bin("DE"), Bin("", 0.0, 5e-324), Bin("", -inf, 2.0))]
        ['DE', '0', 'below 2']
        >>> Bin("", 10.0, 12.5).text, Bin("", 1e6, inf).text
        ('10 to 12.5', '1,000,000 or more')
        """
        if not self.is_number:
            return self.name
        if self.is_value:
            return number(self.low)
        if not isfinite(self.low):
            return f"below {number(self.high)}"
        if not isfinite(self.high):
            return f"{number(self.low)} or more"
        return " to ".join(apart(self.low, self.high))


class Law(NamedTuple):
    """Counts of a signal by bin, before and after."""

    signal: str
    change_ms: int
    """The first of the rows after, ms."""
    found_ms: int
    change_row: int
    """Rows that the detector had seen when it changed; 0 in both: not known."""
    found_row: int
    bins: tuple[Bin, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    before_is: str
    after_is: str
    change: Mapping[str, Any]
    """The change as the alert tells it (`contributors` of its evidence); empty: it does not."""

    def shares(self) -> list[tuple[float, float]]:
        """Of each bin its share before and after."""
        total, now = (max(sum(x), 1.0) for x in (self.before, self.after))
        return [(a / total, b / now) for a, b in zip(self.before, self.after, strict=True)]


def bins_of_law(watched: Watched, profile: FeatureProfile | None) -> list[Bin]:
    """The bins of a feature or an output with a detector on counts, as its profile has them."""
    if watched.labels:  # the last but one are all levels without a bin of their own
        return [*(Bin(x) for x in watched.labels[:-2]), Bin(OTHERS), Bin(watched.labels[-1])]
    if profile is None:
        return []
    edges, first = (-inf, *profile.edges, inf), watched.places[0][0]
    found = [Bin("", edges[p[0] - first], edges[p[-1] - first + 1]) for p in watched.places[:-1]]
    return [*found, Bin("missing")]


def bins_of_scheme(scheme: AnyScheme | None) -> list[Bin]:
    """
    The bins of errors, calibration or latency; none of labels given scores, which have no law of
    values.

    >>> [b.text for b in bins_of_scheme(Flags())]
    ['right', 'wrong']
    """
    if isinstance(scheme, Flags):
        return [Bin("right"), Bin("wrong")]
    if isinstance(scheme, Numbers):
        return [*_between(scheme.profile.edges), Bin("missing")]
    return _between(scheme.edges.tolist()) if isinstance(scheme, Latencies) else []


def _between(edges: Sequence[float]) -> list[Bin]:
    return [Bin("", low, high) for low, high in pairwise((-inf, *edges, inf))]


def bins_of_window(profile: FeatureProfile, categories: Sequence[str]) -> list[Bin]:
    """The bins of a feature in a window: those of its baseline."""
    if profile.type == "category":
        return [*(Bin(name) for name in categories), Bin(OTHERS)]
    return _between(profile.edges)
