"""
The archive's own port, on the embedded broker: a scrape says what is in the files, what waits, and
what Kafka had deleted; and a hole is still told after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stream_monitor.demo.broker import start_in_thread
from stream_monitor.kafka.clocks import now_ms
from stream_monitor.metrics.of_the_archive import OF_THE_ARCHIVE
from stream_monitor.runtime.http import PortError
from stream_monitor.training.archive import Archiver
from stream_monitor.training.endpoint import samples, serving
from stream_monitor.training.folder import Folder, Hole
from tests.training_world import Stream, write
from tests.unit.test_lifecycle_endpoint import asked, scraped
from tests.unit.test_training import archive_once, make_topics, settings_of

NAMES = {metric.name.removeprefix("stream_monitor_archive_") for metric in OF_THE_ARCHIVE}


async def told(port: int) -> dict[str, float]:
    found = {key[0]: value for key, value in (await scraped(port)).items()}
    prefix = "stream_monitor_archive_"
    return {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}


def on_disk(path: Path) -> tuple[int, int]:
    files = list(path.rglob("*.parquet"))
    return sum(pq.ParquetFile(f).metadata.num_rows for f in files), len(files)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.05)


async def is_ready(port: int) -> bool:
    return (await asked(port, "/ready")) == (200, "archiving 2 partition(s) of observations\n")


async def says(port: int, name: str, wanted: float) -> bool:
    return (await told(port)).get(name) == wanted


async def test_a_scrape_says_what_is_kept_what_waits_and_what_is_lost(tmp_path):
    kept = tmp_path / "kept"
    with start_in_thread(partitions=2, bytes_max=12_000) as broker:
        settings = settings_of(broker.bootstrap, kept, flush_interval_ms=100, port=0)
        await asyncio.to_thread(make_topics, settings)
        stream = Stream(seed=8)
        await write(settings, stream.more(20))
        await asyncio.to_thread(archive_once, settings)
        before, began_s = on_disk(kept), now_ms() / 1e3
        logs = broker.broker.topics["observations"].logs
        ends = [log.end for log in logs]
        await write(settings, stream.more(300))
        lost = [log.start - end for log, end in zip(logs, ends, strict=True) if log.start > end]
        assert lost
        archiver, stop = Archiver(settings), asyncio.Event()
        async with serving(archiver) as port:
            assert await asked(port, "/ready") == (503, "not reading observations yet\n")
            running = asyncio.ensure_future(archiver.run(stop))
            try:
                await until(lambda: says(port, "holes", len(lost)))
                await until(lambda: is_ready(port))
                await until(lambda: says(port, "lag_records", 0))
                found = await told(port)
            finally:
                stop.set()
                await running
        rows, files = (now - then for now, then in zip(on_disk(kept), before, strict=True))
        assert (found["rows_total"], found["files_total"]) == (rows, files)
        assert (found["holes"], found["missing_records"]) == (len(lost), sum(lost))
        assert (found["lag_seconds"], found["unreadable_total"]) == (0, 0)
        for moment in ("last_file", "last_hole"):
            assert began_s <= found[f"{moment}_timestamp_seconds"] <= now_ms() / 1e3
        assert set(found) == NAMES
        again = Archiver(settings)
        async with serving(again) as port:
            later = await told(port)
        assert later["rows_total"] == 0
        for name in ("holes", "missing_records", "last_hole_timestamp_seconds"):
            assert later[name] == found[name]


async def test_what_waits_is_as_old_as_what_was_kept_before_it(tmp_path):
    with start_in_thread(partitions=2) as broker:
        settings = settings_of(broker.bootstrap, tmp_path / "kept", flush_interval_ms=3_600_000)
        await asyncio.to_thread(make_topics, settings)
        stream = Stream(seed=8)
        await write(settings, stream.more(20))
        await asyncio.to_thread(archive_once, settings)
        reached = Folder(tmp_path / "kept").reached()
        await write(settings, stream.more(60))
        ends = [log.end for log in broker.broker.topics["observations"].logs]
        late = [r for r in reached if r.offset < ends[r.partition]]
        assert late
        archiver, stop = Archiver(settings), asyncio.Event()
        running = asyncio.ensure_future(archiver.run(stop))
        try:
            await until(lambda: answer(len(list(archiver.behind())) == 2))
            asked_ms = max(r.time_ms for r in reached) + 7_000
            found = {s.name: s.value for s in samples(archiver, asked_ms)}
        finally:
            stop.set()
            await running
        waiting = sum(ends[r.partition] - r.offset for r in reached)
        assert found["stream_monitor_archive_lag_records"] == waiting > 0
        since_ms = min(r.time_ms for r in late)
        assert found["stream_monitor_archive_lag_seconds"] == (asked_ms - since_ms) / 1e3
        ended = {s.name: s.value for s in samples(archiver, asked_ms)}
        assert ended["stream_monitor_archive_lag_records"] == 0
        assert ended["stream_monitor_archive_lag_seconds"] == 0


async def answer(value: bool) -> bool:
    return value


def test_what_was_deleted_before_the_archive_began_is_no_loss(tmp_path):
    settings = settings_of("127.0.0.1:1", tmp_path / "kept")
    archiver = Archiver(settings)
    archiver.folder.make()
    archiver.folder.note(Hole("observations", 0, 0, 50, None, 1_000, 2_000))
    found = {s.name: s.value for s in samples(archiver, 9_000)}
    assert found["stream_monitor_archive_holes"] == 0
    assert "stream_monitor_archive_last_hole_timestamp_seconds" not in found
    archiver.folder.note(Hole("observations", 1, 60, 70, 500, 1_000, 3_000))
    found = {s.name: s.value for s in samples(archiver, 9_000)}
    assert found["stream_monitor_archive_missing_records"] == 10
    assert found["stream_monitor_archive_last_hole_timestamp_seconds"] == 3


async def test_a_port_that_is_taken_is_named_with_its_key(tmp_path):
    def archiver(port: int) -> Archiver:
        return Archiver(settings_of("127.0.0.1:1", tmp_path / "kept", port=port))

    async with serving(archiver(0)) as port:
        with pytest.raises(PortError, match=r"set archive\.port to another port"):
            async with serving(archiver(port)):
                pass
