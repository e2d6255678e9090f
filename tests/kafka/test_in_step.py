"""
Predictions and labels that two workers own are read in step, and a worker tells how far its clock
is off.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from bench import chaos_check
from bench.chaos_fleet import Member
from tests.kafka.site import Site

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
UNLABELLED, PAIRS, PENDING = 2_000, 80_000, 30_000
"""Rows of the backlog, and how many are kept until they meet: far fewer."""
ROW_MS, LATE_MS = 10, 2_000
SHOWN = (
    "stream_monitor_labels",
    "stream_monitor_predictions",
    "stream_monitor_records",
    "stream_monitor_source",
    "stream_monitor_consumer",
    "model_labels",
)


@pytest.fixture
def members(kafka: Any, tmp_path: Path) -> Iterator[tuple[Site, list[Member]]]:
    """Two workers, and sources of one partition each."""
    site = Site(kafka.bootstrap, tmp_path)
    names = [site.prefix + "predictions", site.prefix + "labels"]
    admin = AdminClient({"bootstrap.servers": site.bootstrap, "log_level": 0})
    for made in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
        made.result(20)
    site.file.write_text(
        f"kafka: {{bootstrap_servers: '{site.bootstrap}', topic_prefix: '{site.prefix}'}}\n"
        f"worker: {{group: '{site.prefix}group', metrics: {{port: 0}}}}\nlimits: {{pending: "
        f"{PENDING}}}\n"
    )
    found = [Member(0, site.file, tmp_path)]
    try:
        wait("ready", found[0].ready)
        found.append(Member(1, site.file, tmp_path))
        yield site, found
    finally:
        for member in found:
            if member.alive:
                member.process.kill()
                member.process.wait(10)


def wait(
    what: str, condition: Callable[[], Any], limit_s: float = 60, told: Callable[[], Any] = str
) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {limit_s} s: {what}; {told()}")
        time.sleep(0.2)


def owner(members: list[Member], topic: str) -> Member | None:
    """Who has opened the source, once every worker is ready."""
    for member in members:
        opened = [line for line in member.log.splitlines() if " open: " in line]
        if not member.ready() or not opened:
            return None
        if re.search(rf"{re.escape(topic)}/0\b", opened[-1]):
            return member
    return None


def apart(members: list[Member], prefix: str) -> bool:
    one, other = (owner(members, prefix + topic) for topic in ("predictions", "labels"))
    return None not in (one, other) and one is not other


def counted(members: list[Member], series: str) -> float:
    return sum(m.metrics().get(series, 0.0) for m in members)


def committed(site: Site, topic: str) -> dict[int, tuple[int, int]]:
    """By partition: what the group committed, and the end."""
    return chaos_check.ends(site.bootstrap, site.prefix + "group", site.prefix + topic)


def send(site: Site, topic: str, start: int, end: int, **fields: Any) -> None:
    producer = Producer(
        {
            "bootstrap.servers": site.bootstrap,
            "linger.ms": 20,
            "batch.num.messages": 1_000,
            "log_level": 0,
        }
    )
    now_ms = time.time_ns() // 1_000_000 - (UNLABELLED + PAIRS) * ROW_MS - LATE_MS
    for i in range(start, end):
        at_ms = now_ms + i * ROW_MS + (LATE_MS if topic == "labels" else 0)
        event = {"event_id": f"{i}", "model": "m", "timestamp": at_ms, **fields}
        producer.produce(site.prefix + topic, json.dumps(event).encode(), b"k", timestamp=at_ms)
        producer.poll(0)
    assert producer.flush(60) == 0


def test_labels_wait_for_predictions_that_another_worker_reads(
    members: tuple[Site, list[Member]],
) -> None:
    """
    The owner of the predictions stands still while labels are there; more of them than are kept.
    """
    site, workers = members
    wait("each owns one of the sources", lambda: apart(workers, site.prefix))
    reader, labeller = (owner(workers, site.prefix + topic) for topic in ("predictions", "labels"))
    assert reader is not None
    assert labeller is not None
    labels = 'model_labels_total{model="m",version=""}'
    send(site, "predictions", 0, 1, prediction=1)
    send(site, "labels", 0, 1, label=1)
    wait("the first pair", lambda: counted(workers, labels) == 1)
    sources = ("predictions", "labels")
    wait("both commit", lambda: all(committed(site, topic) == {0: (1, 1)} for topic in sources))
    taken = 'stream_monitor_records_total{outcome="forwarded",topic="labels"}'
    waited = (
        f'stream_monitor_source_wait_seconds_total{{partition="0",topic="{site.prefix}labels"}}'
    )
    reader.send(signal.SIGSTOP)
    send(site, "predictions", 1, UNLABELLED + PAIRS, prediction=1)
    time.sleep(4)  # the other one asks twice a second
    send(site, "labels", UNLABELLED, UNLABELLED + PAIRS, label=1)
    wait("they wait", lambda: labeller.metrics().get(waited, 0) > 1)
    assert labeller.metrics()[taken] < PENDING
    reader.send(signal.SIGCONT)
    wait(
        "all pairs",
        lambda: counted(workers, labels) == 1 + PAIRS,
        90,
        lambda: [{k: v for k, v in m.metrics().items() if k.startswith(SHOWN)} for m in workers],
    )
    assert counted(workers, 'model_predictions_total{model="m",version=""}') == UNLABELLED + PAIRS
    assert apart(workers, site.prefix), "nothing has changed hands meanwhile"


def test_a_running_worker_tells_how_far_its_clock_is_from_the_brokers(site: Site) -> None:
    """On one machine it is none: an answer takes less than this."""
    site.start()
    site.ready()
    gauge = "stream_monitor_clock_offset_seconds"
    site.wait("the gauge", lambda: gauge in site.metrics())
    assert abs(site.metrics()[gauge]) < 1
    assert site.stop() == 0
    assert "clock of this machine" not in site.log
