"""
What a worker on a real Kafka does with records that nobody should send: each has its reason, and
the good ones around them count.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from bench.chaos_brokers import KafkaServer
from bench.odd_records import CASES, event, flood
from tests.kafka.site import Site, header, read_all, reasons, value

pytestmark = pytest.mark.kafka
FLOOD, PARTS = 1_500, 5
POISONED = """
import sys
from stream_monitor.cli import main
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
take, fold = Ingest.take, Shard.fold
def taking(self, source, kind, values, offsets, times_ms):
    if any(v and b"poison-ingest" in v for v in values):
        raise ZeroDivisionError("poison")
    return take(self, source, kind, values, offsets, times_ms)
def folding(self, record, *when):
    fold(self, record, *when)
    if b"poison-evaluate" in record:
        raise ZeroDivisionError("poison")
Ingest.take, Shard.fold = taking, folding
main()
"""
"""A worker that cannot take records of one model, nor fold those of another."""


def test_every_bad_record_has_its_reason_and_the_good_ones_around_it_count(site: Site) -> None:
    site.start()
    site.ready()
    records: list[Any] = []
    for i, case in enumerate(CASES.values()):
        records += [event(f"good-{i}"), {"value": None}, case.record]
    for codec, part in zip(
        ["none", "gzip", "snappy", "lz4", "zstd"], [records[i::5] for i in range(5)], strict=True
    ):
        site.send(part, **{"compression.type": codec})
    site.send(
        [
            b"{",
            event("x"),
            json.dumps({"event_id": "good-0", "label": 1}).encode(),
            b'{"event_id": "y", "label": null}',
            b'{"event_id": "y", "label": [1]}',
        ],
        "labels",
    )
    good = len(CASES) + sum(case.reason is None for case in CASES.values())
    site.wait("all good ones", lambda: site.predictions() == good)
    site.wait(
        "their label", lambda: site.metrics().get('model_labels_total{model="m",version=""}') == 1
    )
    metrics = site.metrics()
    assert metrics['stream_monitor_records_total{outcome="tombstone",topic="predictions"}'] == len(
        CASES
    )
    assert metrics["stream_monitor_timestamps_replaced_total"] == 2
    letters = site.letters(sum(case.reason is not None for case in CASES.values()) + 4)
    found = {
        header(m, "__connect.errors.offset"): m
        for m in letters
        if header(m, "__connect.errors.topic").endswith("predictions")
    }
    stored = {str(m.offset()): m for m in read_all(site.bootstrap, site.prefix + "predictions")}
    got = {
        stored[offset].value(): header(m, "stream-monitor.reason") for offset, m in found.items()
    }
    values = {
        name: case.record["value"] if isinstance(case.record, dict) else case.record
        for name, case in CASES.items()
    }
    assert {name: got.get(values[name]) for name in CASES} == {
        name: case.reason for name, case in CASES.items()
    }
    for offset, letter in found.items():
        whole = len(value(stored[offset])) <= 900_000
        assert letter.value() == (stored[offset].value() if whole else b"")
        assert whole or header(letter, "stream-monitor.truncated") == str(
            len(value(stored[offset]))
        )
    assert reasons([m for m in letters if m not in found.values()]) == {
        "invalid_json": 1,
        "missing_field": 2,
        "wrong_type": 1,
    }
    assert site.stop() == 0


def test_aborted_transactions_never_count_and_hanging_ones_count_when_they_are_committed(
    site: Site,
) -> None:
    site.start()
    site.ready()
    producers = [
        Producer({"bootstrap.servers": site.bootstrap, "transactional.id": f"{site.prefix}{name}"})
        for name in ("aborted", "hanging")
    ]
    for producer, name in zip(producers, ("aborted", "hanging"), strict=True):
        producer.init_transactions(20)
        producer.begin_transaction()
        for i in range(5):
            producer.produce(site.prefix + "predictions", event(f"{name}-{i}"), b"k", partition=0)
        assert producer.flush(20) == 0
    site.send([event("behind")])
    producers[0].abort_transaction(20)
    time.sleep(1)
    assert site.predictions() == 0, "what lies behind an open transaction does not exist yet"
    producers[1].commit_transaction(20)
    site.wait("the committed ones", lambda: site.predictions() == 6)
    time.sleep(0.5)
    assert site.predictions() == 6
    assert site.stop() == 0


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_flood_of_names_stays_within_the_limits(site: Site) -> None:
    site.start()
    site.ready()
    assert site.process is not None

    def counted(count: int) -> bool:
        # By EVALUATE: on a busy machine it is seconds behind INGEST.
        metrics = site.metrics().items()
        return count == sum(v for s, v in metrics if s.startswith("model_predictions_total"))

    sizes, series = [], []
    for part in range(PARTS):
        site.send(list(flood(FLOOD, part * FLOOD)))
        site.wait("the flood", partial(counted, (part + 1) * FLOOD))
        time.sleep(1.5)  # gauges follow the counters
        sizes.append(resident_bytes(site.process.pid))
        series.append(len(site.metrics()))
    metrics = site.metrics()
    models = {
        s.split('model="')[1].split('"')[0]
        for s in metrics
        if s.startswith("model_predictions_total")
    }
    assert "__other__" in models
    assert len(models) <= 4 * (20 + 1), "limits are by partition of observations"
    assert all(
        metrics[f'stream_monitor_limit_hits_total{{limit="{name}"}}'] > 0
        for name in ("models", "versions", "features", "segments")
    )
    assert sizes[-1] - sizes[-2] < 40 << 20, sizes
    assert series[-1] <= series[2] * 1.02, series
    assert site.stop() == 0
    alerts = Counter(
        json.loads(value(m))["subject"]
        for m in read_all(site.bootstrap, site.prefix + "alerts")
        if json.loads(value(m))["subject"].startswith("limits.")
    )
    assert {"limits.models", "limits.versions", "limits.features", "limits.segments"} <= set(alerts)
    assert max(alerts.values()) <= 4, "one alert a limit and partition"


def test_what_ends_the_worker_three_times_is_set_aside(site: Site) -> None:
    """
    Once for a record of the source, once for one of `observations`; no event of another record is
    lost or counted twice.
    """
    site.start()
    site.ready()
    site.send([event(f"before-{i}") for i in range(10)])
    site.wait("before", lambda: site.predictions() == 10)
    assert site.stop() == 0
    site.send(
        [
            event("around-0"),
            event("p", "poison-ingest"),
            event("around-1"),
            event("q", "poison-ingest"),
        ]
    )
    for _ in range(3):
        site.start(("-c", POISONED))
        assert site.ended() == 73, site.log
        assert "a record between offsets 10 and 13 crashes the worker (attempt" in site.log
    site.start(("-c", POISONED))
    site.wait("around", lambda: site.predictions() == 12)
    site.send([event("e", "poison-evaluate")])
    assert site.ended() == 73
    for _ in range(2):
        site.start(("-c", POISONED))
        assert site.ended() == 73, site.log
    assert "observations" in site.log
    assert "(attempt 3): ZeroDivisionError: poison" in site.log
    site.start(("-c", POISONED))
    site.ready()
    site.send([event("after-0"), event("after-1", "poison-ingest")])
    site.wait("after", lambda: site.predictions() == 13)
    assert site.stop() == 0
    assert site.codes == [0, 73, 73, 73, 73, 73, 73, 0]
    letters = site.letters()
    assert reasons(letters) == {"ended_worker": 4}
    assert sorted(
        (
            header(m, "__connect.errors.topic").removeprefix(site.prefix),
            b"poison-evaluate" in value(m),
            b"poison-ingest" in value(m),
        )
        for m in letters
    ) == [
        ("observations", True, False),
        *[("predictions", False, True)] * 3,
    ]
    assert any(
        "ZeroDivisionError: poison" in header(m, "__connect.errors.exception.message")
        for m in letters
    )
    site.start()  # the restored state has no trace of it
    site.wait("restored", lambda: site.predictions() == 13)
    assert site.predictions("poison-evaluate") == 0
    assert site.stop() == 0


def test_a_batch_that_is_broken_on_the_brokers_disk(tmp_path: Path) -> None:
    broker = KafkaServer()
    site = None
    try:
        broker.start()
        site = Site(broker.bootstrap, tmp_path)
        site.start()
        site.ready()
        assert site.stop() == 0
        for name in ("first", "broken", "last"):
            site.send([event(f"{name}-{i}") for i in range(3)])
        broker.stop()
        (segment,) = broker.folder.glob(f"data/{site.prefix}predictions-0/*.log")
        raw = bytearray(segment.read_bytes())
        raw[raw.index(b"broken-1")] ^= 1
        segment.write_bytes(raw)
        broker.start()
        site.start()
        assert site.ended() == 73, site.log
        assert (
            f"{site.prefix}predictions/0: the batch of records 3 to 5 cannot be read: the "
            "checksum of the batch is wrong; worker.on_corrupt: skip goes on after it"
        ) in site.log
        site.start(STREAM_MONITOR_WORKER__ON_CORRUPT="skip")
        site.wait("the others", lambda: site is not None and site.predictions() == 6)
        assert (
            site.metrics()[
                'stream_monitor_dead_letters_total{reason="corrupt_batch",topic="predictions"}'
            ]
            == 1
        )
        assert site.stop() == 0
        (letter,) = site.letters()
        assert (
            header(letter, "stream-monitor.reason"),
            header(letter, "__connect.errors.offset"),
            letter.value(),
        ) == ("corrupt_batch", "3", b"")
        site.start()  # it is behind us
        site.wait("restored", lambda: site is not None and site.predictions() == 6)
        assert site.stop() == 0
    finally:
        if site is not None and site.process is not None:
            site.process.kill()
            site.process.wait(10)
        broker.close()
