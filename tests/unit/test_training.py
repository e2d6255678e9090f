"""The archive and what is collected from it, on the embedded broker, against a batch join."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner
from ruamel.yaml import YAML
from xxhash import xxh3_64_intdigest

from stream_monitor.cli import cli
from stream_monitor.config import load
from stream_monitor.demo.broker import start_in_thread
from stream_monitor.errors import BrokerError, InputError
from stream_monitor.kafka import topics
from stream_monitor.kafka.clocks import now_ms
from stream_monitor.lifecycle_settings import Archive
from stream_monitor.settings import KafkaSettings, Settings
from stream_monitor.times import DAY_MS
from stream_monitor.training import archive
from stream_monitor.training.collect import collect, manifest_path
from stream_monitor.training.folder import Folder
from stream_monitor.training.merging import merge
from stream_monitor.training.sources import ArchiveSource, KafkaSource
from tests.training_world import START_MS, Stream, as_read, oracle, write

MODEL = "fraud/EU ü"
EVER = 1 << 60


def settings_of(bootstrap: str, path: Path, **more: Any) -> Settings:
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap), archive=Archive(path=str(path), **more)
    )


@pytest.fixture
def broker():
    with start_in_thread(partitions=2) as running:
        yield running


def make_topics(settings: Settings) -> None:
    async def made() -> None:
        async with topics.admin(settings) as client:
            await topics.create(
                settings, client, dict.fromkeys(("predictions", "labels", "observations"), 2)
            )

    asyncio.run(made())


def archive_once(settings: Settings) -> archive.Written:
    async def run() -> archive.Written:
        return await archive.Archiver(settings).run(asyncio.Event(), once=True)

    return asyncio.run(run())


def rows_of(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def test_both_sources_give_what_a_batch_join_gives(broker, tmp_path):
    settings = settings_of(broker.bootstrap, tmp_path / "kept")
    make_topics(settings)
    stream = Stream(seed=7)
    for _ in range(3):
        asyncio.run(write(settings, stream.more(100)))
        archive_once(settings)
    since, until = START_MS + 20_000, START_MS + 250_000
    expected = [as_read(r) for r in oracle(stream.sent, MODEL, since, until)]
    assert len(expected) > 80
    made = {}
    for name, source in (
        ("archive", ArchiveSource(tmp_path / "kept")),
        ("kafka", KafkaSource(settings)),
    ):
        output = tmp_path / name / "x.parquet"
        manifest = collect(source, MODEL, since, until, output)
        assert rows_of(output) == expected
        assert (manifest.rows, manifest.labelled) == (len(expected), len(expected))
        assert manifest.predictions > len(expected)
        assert json.loads(manifest_path(output).read_bytes())["hash"] == manifest.hash
        made[name] = output.read_bytes()
        collect(source, MODEL, since, until, output)
        assert output.read_bytes() == made[name]
    assert made["archive"] == made["kafka"]


def hurried(settings: Settings) -> None:
    """An archiver in a process of its own that writes often, so that a kill meets every step."""
    archive.SESSION_MS, archive.ROWS_MAX = 400, 60
    asyncio.run(archive.Archiver(settings).run(asyncio.Event()))


@pytest.mark.parametrize("kills", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_at_random_moments_lose_and_double_nothing(broker, tmp_path, kills):
    settings = settings_of(broker.bootstrap, tmp_path / "kept", flush_interval_ms=20)
    make_topics(settings)
    stream, rng = Stream(seed=kills), random.Random(kills)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["stream_monitor.training.archive", "pyarrow.parquet"])
    for _ in range(kills):
        asyncio.run(write(settings, stream.more(600 // kills), chunk=7))
        process = server.Process(target=hurried, args=(settings,))
        process.start()
        # it needs most of a second to join the group; then every step is met
        process.join(0.6 + rng.random() * 0.6)
        process.kill()
        process.join()
    archive.SESSION_MS, before = 400, archive.SESSION_MS
    try:
        archive_once(settings)
    finally:
        archive.SESSION_MS = before
    collect(ArchiveSource(tmp_path / "kept"), MODEL, None, None, tmp_path / "x.parquet")
    made = rows_of(tmp_path / "x.parquet")
    expected = [as_read(row) for row in oracle(stream.sent, MODEL, 0, EVER)]
    different = [(a, b) for a, b in zip(made, expected, strict=False) if a != b]
    assert (len(made), different[:1]) == (len(expected), [])
    assert len(list((tmp_path / "kept").rglob("*.parquet"))) > kills


def command(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(cli, list(arguments))
    assert done.exit_code == code, done.output + repr(done.exception)
    return json.loads(done.stdout) if "--json" in arguments else done.output


@pytest.fixture
def kept(broker, tmp_path):
    """An archive, a configuration that names it, and what is in it."""
    settings = settings_of(broker.bootstrap, tmp_path / "kept", drop=("age",))
    make_topics(settings)
    stream = Stream(seed=3)
    asyncio.run(write(settings, stream.more(150)))
    config = tmp_path / "monitor.yaml"
    config.write_text(
        f"kafka: {{bootstrap_servers: '{broker.bootstrap}'}}\n"
        f"archive: {{path: '{tmp_path / 'kept'}', drop: [age]}}\n"
    )
    return stream, str(config)


def test_the_commands_archive_collect_and_forget(kept, tmp_path):
    stream, config = kept
    done = command("archive", "--once", "--json", "--config", config)
    failed = sum(one.event.get("status") == "error" for one in stream.sent)
    assert done["rows"] == len(stream.sent) - failed
    assert command("archive", "--until-caught-up", "--json", "--config", config)["rows"] == 0
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700
    assert all(not (path.stat().st_mode & 0o077) for path in (tmp_path / "kept").rglob("*.parquet"))
    output = tmp_path / "data" / "x.parquet"
    arguments = ("collect", "--model", MODEL, "--config", config, "-o", str(output))
    manifest = command(*arguments, "--json")
    expected = [as_read(row) for row in oracle(stream.sent, MODEL, 0, EVER)]
    for row in expected:  # `later` has no value yet, `age` is dropped
        del row["features.later"], row["features.age"]
    assert rows_of(output) == expected
    assert (manifest["source"], manifest["rows"]) == ("archive", len(expected))
    assert "features.age" not in manifest["columns"]
    gone = [one.event["event_id"] for one in stream.sent if one.event.get("unit") == "user-3"]
    for times in (1, 0):
        found = command("archive", "forget", "--unit", "user-3", "--json", "--config", config)
        assert (found["predictions"] > 0, found["labels"] > 0) == (times > 0, times > 0)
    command(*arguments)
    left = {row["event_id"] for row in rows_of(output)}
    hashed = {f"{xxh3_64_intdigest(i.encode()):016x}" for i in gone}
    assert left == {row["event_id"] for row in expected} - hashed
    # what was taken out does not come back
    assert command("archive", "--once", "--json", "--config", config)["rows"] == 0


def test_what_retention_took_is_said_in_the_manifest(tmp_path):
    with start_in_thread(partitions=2, bytes_max=12_000) as broker:
        settings = settings_of(broker.bootstrap, tmp_path / "kept")
        make_topics(settings)
        stream = Stream(seed=3)
        asyncio.run(write(settings, stream.more(20)))
        assert archive_once(settings).holes == 0
        logs = broker.broker.topics["observations"].logs
        archived = [log.end for log in logs]
        asyncio.run(write(settings, stream.more(300)))
        lost = [(n, at, log.start) for n, (at, log) in enumerate(zip(archived, logs, strict=True))]
        lost = [(n, at, start) for n, at, start in lost if at < start]
        assert lost
        assert archive_once(settings).holes == len(lost)
        assert archive_once(settings).holes == 0
    source = ArchiveSource(tmp_path / "kept")
    manifest = collect(source, MODEL, None, None, tmp_path / "x.parquet")
    assert [(h.partition, h.first, h.end) for h in manifest.holes] == lost
    assert all(h.after_ms is not None and h.before_ms is not None for h in manifest.holes)
    ended = max(h.before_ms or 0 for h in manifest.holes)
    assert collect(source, MODEL, ended, None, tmp_path / "x.parquet").holes == []


def test_a_writer_that_wakes_up_takes_nothing_away(tmp_path):
    """Two write from the same offset; the older one, which read less, is the later one."""
    folder = Folder(tmp_path)
    rows = pa.table({"log_offset": [4, 5, 6], "log_time": [100, 110, 120], "id": [1, 2, 3]})
    assert folder.write("label", "m", "2026-01-01", 0, 7, rows) == 3
    assert folder.write("label", "m", "2026-01-01", 0, 6, rows.slice(0, 2)) == 0
    assert folder.write("label", "m", "2026-01-01", 0, 9, pa.concat_tables([rows, later()])) == 1
    assert folder.write("label", "m", "2026-01-01", 0, 9, later()) == 0
    # a topic of the same name that began again
    assert (
        folder.write(
            "label",
            "m",
            "2026-01-01",
            0,
            5,
            pa.table({"log_offset": [4], "log_time": [900], "id": [9]}),
        )
        == 1
    )
    ids = [
        i for p in folder.files("label", "m") for i in pq.ParquetFile(p).read()["id"].to_pylist()
    ]
    assert sorted(ids) == [1, 2, 3, 4, 9]


def later() -> pa.Table:
    return pa.table({"log_offset": [8], "log_time": [130], "id": [4]})


def test_old_days_go(tmp_path):
    folder = Folder(tmp_path)
    for day in ("2026-01-01", "2026-01-09"):
        table = pa.table({"log_offset": [1], "log_time": [1], "id": [1]})
        folder.write("prediction", "a/b", day, 0, 2, table)
    now_ms = round(datetime(2026, 1, 10, 12, tzinfo=UTC).timestamp() * 1e3)
    assert folder.sweep(None, now_ms) == 0
    assert folder.sweep(2 * DAY_MS, now_ms) == 1
    assert [p.parent.name for p in folder.files("prediction", "a/b")] == ["day=2026-01-09"]


def test_without_an_archive_it_says_what_to_do(tmp_path):
    config = tmp_path / "monitor.yaml"
    config.write_text("{}")
    assert "archive.path is not set" in str(
        CliRunner().invoke(cli, ["archive", "--config", str(config)]).exception
    )


def test_sigterm_writes_what_waits_and_ends(kept, tmp_path):
    stream, config = kept
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_monitor", "archive", "--json", "--config", config],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any(" is archived from offset" in line for line in iter(process.stderr.readline, ""))
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    rows = (
        json.loads(out)["rows"] + command("archive", "--once", "--json", "--config", config)["rows"]
    )
    assert rows == sum(one.event.get("status") != "error" for one in stream.sent)


def test_merged_files_have_the_same_rows(broker, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "ROWS_MAX", 40)
    settings = settings_of(broker.bootstrap, tmp_path / "kept")
    make_topics(settings)
    stream = Stream(seed=11)
    for _ in range(4):
        asyncio.run(write(settings, stream.more(60)))
        archive_once(settings)
    folder, output = Folder(tmp_path / "kept"), tmp_path / "x.parquet"
    before = collect(ArchiveSource(folder.path), MODEL, None, None, output)
    files = len(list(folder.path.rglob("*.parquet")))
    assert merge(folder, now_ms()) == 0  # today
    gone = merge(folder, now_ms() + 3 * DAY_MS)
    assert len(list(folder.path.rglob("*.parquet"))) == files - gone < files / 2
    assert merge(folder, now_ms() + 3 * DAY_MS) == 0
    assert collect(ArchiveSource(folder.path), MODEL, None, None, output).hash == before.hash
    assert rows_of(output) == [as_read(row) for row in oracle(stream.sent, MODEL, 0, EVER)]


async def send_another_format(servers: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        await producer.send_and_wait("observations", b"SMO\x09 later", partition=0)


def test_a_record_of_another_format_is_a_hole(kept, tmp_path, broker):
    stream, config = kept
    asyncio.run(send_another_format(broker.bootstrap))
    asyncio.run(write(settings_of(broker.bootstrap, tmp_path / "kept"), stream.more(40)))
    done = command("archive", "--once", "--json", "--config", config)
    assert done["unreadable"] == 1
    assert done["rows"] == sum(one.event.get("status") != "error" for one in stream.sent)
    source = ArchiveSource(tmp_path / "kept")
    (hole,) = collect(source, MODEL, None, None, tmp_path / "x.parquet").holes
    assert (hole.partition, hole.end - hole.first) == (0, 1)
    with pytest.raises(InputError, match="no predictions of model 'other'"):
        collect(source, "other", None, None, tmp_path / "x.parquet")


def test_a_topic_that_is_not_there_is_not_made(broker, tmp_path):
    settings = settings_of(broker.bootstrap, tmp_path / "kept")
    with pytest.raises(BrokerError, match="observations does not exist"):
        archive_once(settings)
    assert "observations" not in broker.broker.topics


def test_a_folder_that_cannot_be_written_is_named(kept, tmp_path):
    _, config = kept
    command("archive", "--once", "--config", config)
    (tmp_path / "kept" / "kind=prediction").rename(tmp_path / "kept" / "other")
    (tmp_path / "kept" / "kind=prediction").write_text("no folder")
    asyncio.run(write(load(config, {}), Stream(seed=5).more(20)))
    done = CliRunner().invoke(cli, ["archive", "--once", "--config", config])
    assert "archive.path" in str(done.exception)
    assert "cannot be written" in str(done.exception)


def test_the_hash_of_a_manifest_is_that_of_dvc(kept, tmp_path):
    _, config = kept
    command("archive", "--once", "--config", config)
    project = tmp_path / "project"
    output = project / "data" / "x.parquet"
    made = command("collect", "--model", MODEL, "--config", config, "-o", str(output), "--json")
    for words in (["init", "--no-scm"], ["add", "data/x.parquet"]):
        subprocess.run(
            [sys.executable, "-m", "dvc", "-q", *words],
            cwd=project,
            env={**os.environ, "DVC_NO_ANALYTICS": "1"},
            check=True,
            timeout=120,
        )
    told = YAML(typ="safe").load((project / "data" / "x.parquet.dvc").read_text())
    assert f"md5:{told['outs'][0]['md5']}" == made["hash"]
