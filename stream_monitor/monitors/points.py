"""
Single values outside the fences, on the topic `anomalies`.

Rule of the file: a sample, chosen by the place of the row in its source, so the same log gives the
same records. Raw values are written only if `privacy.raw_values` allows it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from stream_monitor.events.origins import offsets_of, prediction_at
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.rows import Points
from stream_monitor.times import rfc3339
from stream_monitor.verdicts import Out

SCHEMA = 1
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Fibonacci hashing: spreads neighbouring offsets evenly."""


def records(
    context: Context, found: Points, sources: list[str], *, raw_values: bool
) -> Iterator[Out]:
    """
    Records of a sample of the values of one chunk.

    Parameters
    ----------
    context : Context
    found : Points
        Values outside the fences.
    sources : list of str
        Names of source partitions, by the numbers that rows carry.
    raw_values : bool
        The records have the values themselves.
    """
    if not len(found.origin):
        return
    offset = offsets_of(found.origin).astype(np.uint64)
    chance = (offset * GOLDEN >> np.uint64(11)).astype(np.float64) / 2.0**53
    for i in np.flatnonzero(chance < context.settings.anomalies.sample).tolist():
        low, high, iqr, value = (
            float(found.fences[0][i]),
            float(found.fences[1][i]),
            float(found.iqr[i]),
            float(found.values[i]),
        )
        reach = context.settings.anomalies.fence * iqr
        record = {
            "schema": SCHEMA,
            "model": context.model,
            "version": context.version,
            "timestamp": rfc3339(int(found.times_ms[i])),
            "feature": found.feature,
            "kind": "point",
            "direction": "down" if value < low else "up",
            **(
                {
                    "distance_iqr": (low + reach - value if value < low else value - high + reach)
                    / iqr
                }
                if iqr > 0
                else {}
            ),
            "low": low,
            "high": high,
            "reference": context.baseline_id,
            "source": prediction_at(int(found.origin[i]), sources),
        }
        if raw_values:
            record["value"] = value
        yield Out("anomalies", context.model.encode(), msgspec.json.encode(record))
