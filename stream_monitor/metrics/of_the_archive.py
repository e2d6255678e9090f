"""
The families of series that an archive for training has.

Rule of the file: as in `of_the_loop.py`: one entry per family, in the order of export, and none of
a worker's or a controller's. Rows of several archivers on one folder are summed; holes are those of
the folder, so every archiver says the same.
"""

from __future__ import annotations

from stream_monitor.metrics.metric import Metric, MetricType


def _archive(name: str, kind: MetricType, text: str) -> Metric:
    return Metric(f"stream_monitor_archive_{name}", kind, (), text)


OF_THE_ARCHIVE: tuple[Metric, ...] = (
    _archive("rows_total", "counter", "Predictions and labels that were written to files."),
    _archive("files_total", "counter", "Files that were written."),
    _archive(
        "last_file_timestamp_seconds",
        "gauge",
        "When a file was last written, seconds since the epoch; absent before the first.",
    ),
    _archive(
        "lag_records",
        "gauge",
        "Records of observations, in the partitions of this archiver, that are not on the disk.",
    ),
    _archive(
        "lag_seconds",
        "gauge",
        "How long ago the newest record came that is on the disk, in the partition that is "
        "furthest behind; 0 if everything is there.",
    ),
    _archive(
        "unreadable_total",
        "counter",
        "Records of observations of another format, which were passed over.",
    ),
    _archive(
        "holes",
        "gauge",
        "Ranges of offsets that are missing from the archive: Kafka had deleted them before they "
        "were read, or they were unreadable.",
    ),
    _archive("missing_records", "gauge", "Records of observations in these ranges."),
    _archive(
        "last_hole_timestamp_seconds",
        "gauge",
        "When the newest of these ranges was found, seconds since the epoch; absent without any.",
    ),
)
