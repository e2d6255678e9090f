"""
Training data: rows a second and bytes a row of the archive, seconds of `collect`, and rows a second
of the quality gate: `python bench/training.py [--rows N] [--features N] [--json]`.

As many predictions as labels go through the archive's code, from packed records of `observations`
to files (without Kafka). Rows a second are of a CPU-second; `collect_s` is by the clock. One label
in ten is corrected, and one prediction in fifty is there twice.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from stream_monitor.events.cells import Texts
from stream_monitor.events.observations import LABEL, PREDICTION, ROW, Group, Head, pack, unpack
from stream_monitor.training.archive import ROWS_MAX
from stream_monitor.training.collect import collect
from stream_monitor.training.columns import Place, parts, together
from stream_monitor.training.folder import Folder, day_of
from stream_monitor.training.quality import check
from stream_monitor.training.quality_rules import Rules
from stream_monitor.training.sources import ArchiveSource

RECORD_ROWS = 4_000
START_MS = 1_760_000_000_000
CITIES = ("Berlin", "Paris", "Roma")


def record(first: int, n: int, features: int, rng: np.random.Generator, offset: int) -> bytes:
    """A record of `observations` with n predictions and the labels of the n calls before."""
    ids = np.arange(first, first + n)
    again = rng.random(n) < 0.02
    corrected = rng.random(n) < 0.1
    numbers = [np.concatenate([ids, ids[again]]), np.concatenate([ids, ids[corrected]])]
    rows = np.zeros(sum(map(len, numbers)), ROW)
    rows["id"] = np.concatenate(numbers).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    rows["group"] = rows["source"] = np.repeat([0, 1], [len(i) for i in numbers])
    rows["time"] = START_MS + np.concatenate(numbers)
    rows["offset"] = offset * 2 * RECORD_ROWS + np.arange(len(rows))
    cities = np.array([Texts.of(CITIES)[city] for city in CITIES])
    wide = np.vstack(
        [
            rng.integers(2, size=len(numbers[0])),
            rng.random(len(numbers[0])).round(4),
            rng.normal(size=(features - 1, len(numbers[0]))).round(3),
            cities[rng.integers(3, size=len(numbers[0]))],
        ]
    )
    columns = ("prediction", "score", *(f"features.f{i}" for i in range(features)))
    head = Head(
        START_MS + first,
        ["predictions@a/0", "labels@b/0"],
        [Group(PREDICTION, "bench", "v1.0.0", 0), Group(LABEL, "bench", None, 1)],
        [columns, ("label",)],
        [len(i) for i in numbers],
        list(CITIES),
        len(rows),
    )
    labels = rng.integers(2, size=(1, len(numbers[1]))).astype(float)
    return pack(head, rows, [wide, labels])


def archived(folder: Folder, rows: int, features: int) -> tuple[int, float]:
    """Archive `rows` predictions and their labels; rows that were written, and seconds of it."""
    rng, seconds, written = np.random.default_rng(7), 0.0, 0
    waiting: dict[tuple[str, str, str], list] = {}
    count = 0
    for offset, first in enumerate(range(0, rows, RECORD_ROWS)):
        value = record(first, min(RECORD_ROWS, rows - first), features, rng, offset)
        since = time.process_time()
        observations = unpack(value)
        place = Place(0, offset, observations.head.flushed_ms)
        for part in parts(observations, place):
            key = part.kind, part.model, day_of(place.time_ms)
            waiting.setdefault(key, []).append(part.table)
            count += len(part.table)
        if count >= ROWS_MAX or first + RECORD_ROWS >= rows:
            for key, tables in waiting.items():
                written += folder.write(*key, 0, offset + 1, together(tables))
            waiting, count = {}, 0
        seconds += time.process_time() - since
    return written, seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="predictions (1,000,000)")
    parser.add_argument("--features", type=int, default=10, help="features, one of texts (10)")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        folder, output = Folder(Path(path) / "kept"), Path(path) / "x.parquet"
        folder.make()
        rows, archive_s = archived(folder, given.rows, given.features)
        kept_bytes = sum(f.stat().st_size for f in folder.path.rglob("*.parquet"))
        since, cpu = time.perf_counter(), time.process_time()
        manifest = collect(ArchiveSource(folder.path), "bench", None, None, output)
        collect_s, collect_cpu_s = time.perf_counter() - since, time.process_time() - cpu
        cpu = time.process_time()
        report = check(output, Rules())
        check_s = time.process_time() - cpu
    assert manifest.rows == given.rows
    assert report.passed
    told = {
        "rows": rows,
        "archive_rows_s": round(rows / archive_s),
        "bytes_row": round(kept_bytes / rows, 1),
        "collect_s": round(collect_s, 2),
        "collect_cpu_s": round(collect_cpu_s, 2),
        "collect_bytes": manifest.bytes,
        "check_rows_s": round(report.rows / check_s),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    if given.json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        print(f"{name:16}{value:>14,}")


if __name__ == "__main__":
    main()
