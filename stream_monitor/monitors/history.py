"""
The record of a minute (and of an hour): what charts and reports of the past read.

Rule of the file: counts are differences to the record before, so that adding them up gives the
totals; metrics and features are those of the moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from stream_monitor.times import rfc3339

if TYPE_CHECKING:
    from stream_monitor.monitors.version import Version

SCHEMA = 1
WIDTHS_MS = (60_000, 3_600_000)


class History:
    """What one model version has told of its past."""

    def __init__(self) -> None:
        self.told: dict[int, list[int]] = {width: [0, 0, 0, 0] for width in WIDTHS_MS}
        """
        By width of a record: end of the last one (log time, ms), and its totals of predictions,
        errors and labels.
        """

    def records(self, version: Version, log_ms: int, config: str) -> Iterator[bytes]:
        """
        Records of the minutes and hours that ended since, where something was counted in them.
        """
        totals = [
            version.volume.predictions + version.volume.failures,
            version.volume.failures,
            version.labels,
        ]
        for width, told in self.told.items():
            end = log_ms // width * width
            if not told[0]:
                told[0] = end
            if end <= told[0]:
                continue
            counts = [now - before for now, before in zip(totals, told[1:], strict=True)]
            told[:] = [end, *totals]
            if any(counts):
                yield msgspec.json.encode(self._record(version, end - width, end, counts, config))

    @staticmethod
    def _record(
        version: Version, start_ms: int, end_ms: int, counts: list[int], config: str
    ) -> dict[str, Any]:
        metrics, _ = version.performance.window(version.settings.windows[0])
        found, _, _ = version.features.window(version.watermark_ms, end_ms - start_ms)
        features = {}
        for name, now in found.items():
            if now.rows:
                present = now.rows - now.missing
                moments = (
                    {}
                    if now.mean is None
                    else {
                        "mean": now.mean,
                        "sd": now.sd,
                        "outliers_ratio": now.outliers / present if present else 0.0,
                    }
                )
                features[name] = {"missing_ratio": now.missing / now.rows, **moments}
        return {
            "schema": SCHEMA,
            "config": config,
            "model": version.model,
            "version": version.name,
            "start": rfc3339(start_ms),
            "end": rfc3339(end_ms),
            "predictions": counts[0],
            "errors": counts[1],
            "labels": counts[2],
            "metrics": metrics,
            "features": features,
        }
