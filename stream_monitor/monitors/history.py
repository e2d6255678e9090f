"""
The record of a minute (and of an hour): what charts and reports of the past read.

Rule of the file: counts are differences to the record before, so that adding them up gives the
totals; metrics and features are those of the moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from stream_monitor.monitors.context import Context
from stream_monitor.monitors.windowed import Windowed
from stream_monitor.times import rfc3339

SCHEMA = 1
WIDTHS_MS = (60_000, 3_600_000)
Counts = tuple[int, int, int]


class Period(NamedTuple):
    """The counts of a minute or an hour of log time."""

    start_ms: int
    end_ms: int
    predictions: int
    errors: int
    labels: int


class Last(msgspec.Struct):
    """The last record of one width."""

    end_ms: int = 0
    totals: Counts = (0, 0, 0)
    """Predictions, errors and labels from the beginning to that end."""


class History(msgspec.Struct):
    """The records of history of one model version."""

    told: dict[int, Last] = msgspec.field(
        default_factory=lambda: {width: Last() for width in WIDTHS_MS}
    )
    """By width of a record, ms: the record that is open."""

    def ended(self, totals: Counts, log_ms: int) -> Iterator[Period]:
        """
        The minutes and hours that ended since the last call and have counts.

        Parameters
        ----------
        totals : (predictions, errors, labels)
            Totals so far.
        log_ms : int
        """
        for width, told in self.told.items():
            end = log_ms // width * width
            if not told.end_ms:
                told.end_ms = end
            if end <= told.end_ms:
                continue
            counts = [now - before for now, before in zip(totals, told.totals, strict=True)]
            told.end_ms, told.totals = end, totals
            if any(counts):
                yield Period(end - width, end, *counts)


def period_record(
    context: Context,
    period: Period,
    metrics: Mapping[str, float],
    features: Mapping[str, Windowed],
    config: str,
) -> bytes:
    """
    The record of a minute or an hour (JSON).

    Parameters
    ----------
    context : Context
    period : Period
    metrics : mapping
        Of performance, now.
    features : mapping
        Every feature in a window as wide as the period.
    config : str
        Hash of the configuration.
    """
    record = {
        "schema": SCHEMA,
        "config": config,
        "model": context.model,
        "version": context.version,
        "start": rfc3339(period.start_ms),
        "end": rfc3339(period.end_ms),
        "predictions": period.predictions,
        "errors": period.errors,
        "labels": period.labels,
        "metrics": metrics,
        "features": {name: _feature(now) for name, now in features.items() if now.rows},
    }
    return msgspec.json.encode(record)


def _feature(now: Windowed) -> dict[str, float | None]:
    present = now.rows - now.missing
    found: dict[str, float | None] = {"missing_ratio": now.missing / now.rows}
    if now.mean is not None:
        outliers_ratio = now.outliers / present if present else 0.0
        found |= {"mean": now.mean, "sd": now.sd, "outliers_ratio": outliers_ratio}
    return found
