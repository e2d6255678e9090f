"""
What a cluster and its operators may do to a worker: transactions that hang, odd settings of topics,
topics that are gone or refuse, stops at bad moments.
"""

from __future__ import annotations

import json
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from bench.chaos_fleet import Member
from bench.odd_records import event
from tests.kafka.site import Site, header, read_all, reasons, value

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def admin(site: Site) -> AdminClient:
    return AdminClient({"bootstrap.servers": site.bootstrap, "log_level": 0})


def make(site: Site, topic: str, partitions: int, **config: str) -> None:
    client, name = admin(site), site.prefix + topic
    client.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(20)


def alter(site: Site, topic: str, key: str, value: str) -> None:
    resource = ConfigResource(
        ResourceType.TOPIC,
        site.prefix + topic,
        incremental_configs=[ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)],
    )
    client = admin(site)
    client.incremental_alter_configs([resource])[resource].result(20)


def grow(site: Site, topic: str, partitions: int) -> None:
    client, name = admin(site), site.prefix + topic
    client.create_partitions([NewPartitions(name, partitions)])[name].result(20)


def readiness(site: Site) -> str:
    """What `/ready` answers: its code and its reason."""
    try:
        with urllib.request.urlopen(site.url + "/ready", timeout=5) as response:
            return f"{response.status} {response.read().decode()}"
    except urllib.error.HTTPError as e:
        return f"{e.code} {e.read().decode()}"


def test_a_transaction_that_hangs_shows_as_lag_until_its_timeout_and_nothing_is_lost(
    site: Site,
) -> None:
    """What lies behind it is not given to anybody; then the broker aborts it."""
    site.start()
    site.ready()
    hanging = Producer(
        {
            "bootstrap.servers": site.bootstrap,
            "transactional.id": site.prefix + "hanging",
            "transaction.timeout.ms": 3_000,
            "log_level": 0,
        }
    )
    hanging.init_transactions(20)
    hanging.begin_transaction()
    hanging.produce(site.prefix + "predictions", event("hangs"), b"k", partition=0)
    assert hanging.flush(20) == 0
    site.send([event(f"behind-{i}") for i in range(20)])
    lag = f'stream_monitor_consumer_lag_records{{partition="0",topic="{site.prefix}predictions"}}'
    site.wait("the lag", lambda: site.metrics().get(lag) == 21)
    assert site.predictions() == 0
    site.wait("the broker's abort", lambda: site.predictions() == 20)
    site.wait("no lag", lambda: site.metrics().get(lag) == 0)
    assert site.stop() == 0


def test_settings_of_a_source_that_brokers_apply_and_partitions_that_come_later(site: Site) -> None:
    """
    Records that the broker compresses again and stamps with its own time, one of 6 MB, and a topic
    that grows while it is read.
    """
    make(
        site,
        "predictions",
        1,
        **{
            "compression.type": "zstd",
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(8 << 20),
        },
    )
    site.start()
    site.ready()
    began_ms = time.time_ns() // 1_000_000
    records = [
        {"value": event(f"{i}"), "timestamp": 1} for i in range(50)
    ]  # of 1970, says the producer
    options: dict[str, Any] = {"compression.type": "gzip", "message.max.bytes": 8 << 20}
    site.send([*records, event("large", note="x" * (6 << 20)), event("last")], **options)
    site.wait("all but one", lambda: site.predictions() == 51)
    stored = read_all(site.bootstrap, site.prefix + "predictions")
    assert {m.timestamp()[0] for m in stored} == {2}, "the broker's time"
    assert min(m.timestamp()[1] for m in stored) >= began_ms - 1_000
    (letter,) = site.letters(1)
    assert (header(letter, "stream-monitor.reason"), letter.value()) == ("too_large", b"")
    assert int(header(letter, "stream-monitor.truncated")) > 6 << 20
    grow(site, "predictions", 3)
    producer = Producer({"bootstrap.servers": site.bootstrap, "log_level": 0})
    for partition in (1, 2):
        producer.produce(site.prefix + "predictions", event(f"late-{partition}"), b"k", partition)
    assert producer.flush(20) == 0
    site.wait("the new partitions", lambda: site.predictions() == 53)
    assert site.stop() == 0


def test_alerts_that_the_topic_refuses_hold_everything_up_and_are_there_once_afterwards(
    site: Site,
) -> None:
    site.start()
    site.ready()
    alter(site, "alerts", "max.message.bytes", "200")
    # beyond limits.models: an alert of each partition
    site.send([event(f"{i}", f"model-{i}") for i in range(200)])
    refusals: list[str] = []

    def refused() -> bool:
        refusals.append(readiness(site))
        return sum(r.startswith("503 ") and "being reopened" in r for r in refusals) >= 2

    site.wait("not ready", refused)
    assert read_all(site.bootstrap, site.prefix + "alerts") == []
    alter(site, "alerts", "max.message.bytes", "1000000")
    site.wait(
        "the alerts",
        lambda: (
            site.metrics().get('stream_monitor_alert_events_total{status="firing"}', 0) > 0
            and site.metrics().get("stream_monitor_ready") == 1
        ),
    )
    counted = lambda: sum(  # noqa: E731
        v for s, v in site.metrics().items() if s.startswith("model_predictions_total")
    )
    site.wait("all of them", lambda: counted() == 200)
    assert site.stop() == 0
    ids = Counter(
        json.loads(value(m))["id"] for m in read_all(site.bootstrap, site.prefix + "alerts")
    )
    assert ids
    assert set(ids.values()) == {1}


def test_snapshots_that_are_gone_are_told_and_never_replaced_by_an_empty_state(site: Site) -> None:
    make(site, "snapshots", 1)
    make(site, "observations", 2)
    site.start()
    assert site.ended() == 1
    assert (
        f"{site.prefix}snapshots has 1 partitions and {site.prefix}observations has 2" in site.log
    )
    name = site.prefix + "snapshots"
    grow(site, "snapshots", 2)
    site.start()
    site.ready()
    site.send([event(f"{i}") for i in range(50)])
    site.wait("counted", lambda: site.predictions() == 50)
    assert site.stop() == 0
    site.start()
    site.ready()
    client = admin(site)
    client.delete_topics([name])[name].result(20)
    site.wait("it is told", lambda: f"topics are missing: {name}" in readiness(site))
    assert readiness(site).startswith("503 ")
    assert site.process is not None
    site.process.kill()
    site.ended()
    site.start()
    assert site.ended() == 71
    assert "is gone; delete the group's offset of this partition of `observations`" in site.log


def test_sigterm_at_bad_moments_ends_a_worker_in_time(site: Site) -> None:
    """Before it has opened anything, twice, and while another one joins."""
    site.start()
    site.ready()
    site.send([event(f"{i}") for i in range(500)])
    site.wait("counted", lambda: site.predictions() == 500)
    assert site.process is not None
    site.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    site.process.send_signal(signal.SIGTERM)
    assert site.ended() == 0
    for pause_s in (
        0.0,
        1.5,
        2.5,
    ):
        # in its first requests, while it joins, while it opens or just after
        site.start()
        time.sleep(pause_s)
        began = time.monotonic()
        assert site.stop() == 0, site.log
        assert time.monotonic() - began < 12, site.log
    site.start()
    site.ready()
    # of the same name: the group sends the first one away
    other = Member(1, site.file, site.folder)
    try:
        site.wait("it starts", other.out.read_text)
        time.sleep(1.5)  # what it asks for before it joins
        assert site.stop() in (0, 70, 71), site.log
    finally:
        other.send(signal.SIGTERM)
        assert other.process.wait(20) == 0, other.log
    site.start()
    site.wait("nothing lost, nothing twice", lambda: site.predictions() == 500)
    assert site.stop() == 0


class Feed:
    """Sends predictions of eight models until it is stopped, and counts them."""

    def __init__(self, site: Site) -> None:
        self.site, self.sent, self.stopping = site, 0, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join(40)

    def run(self) -> None:
        producer = Producer(
            {"bootstrap.servers": self.site.bootstrap, "linger.ms": 5, "log_level": 0}
        )
        topic = self.site.prefix + "predictions"
        while not self.stopping.wait(0.02):
            for _ in range(10):
                key = f"{self.sent}"
                producer.produce(topic, event(key, f"m{self.sent % 8}"), key.encode())
                self.sent += 1
            producer.poll(0)
        assert producer.flush(30) == 0


def test_a_storm_of_rebalances_leaves_progress_and_exact_counts(kafka: Any, tmp_path: Path) -> None:
    """A worker comes, and goes as soon as it has opened something, while events flow."""
    site = Site(kafka.bootstrap, tmp_path)
    site.file.write_text(site.file.read_text().replace("instance_id: one, ", ""))
    members = [Member(0, site.file, tmp_path)]
    feed = Feed(site)

    def counted() -> float:
        return sum(
            v
            for m in members
            if m.alive
            for series, v in m.metrics().items()
            if series.startswith("model_predictions_total")
        )

    def wait(what: str, condition: Any) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.1)

    try:
        wait("ready", members[0].ready)
        feed.start()
        progress = []
        for turn in range(6):
            if turn % 2 == 0:
                members.append(Member(len(members), site.file, tmp_path))
                wait("it joins", lambda: " open: " in members[-1].log)
            else:
                leaving = members[-1]
                leaving.send(signal.SIGTERM)
                assert leaving.process.wait(20) == 0, leaving.log
            time.sleep(0.5)
            progress.append(
                max(
                    m.metrics().get(
                        'stream_monitor_records_total{outcome="forwarded",topic="predictions"}', 0.0
                    )
                    for m in members[:1]
                )
            )
        feed.stop()
        assert progress[-1] > progress[0] > 0
        wait(f"all of {feed.sent}", lambda: counted() == feed.sent)
        time.sleep(1)
        assert counted() == feed.sent
        assert reasons(site.letters()) == {}
    finally:
        feed.stopping.set()
        for member in members:
            if member.alive:
                member.send(signal.SIGTERM)
                member.process.wait(20)
    assert members[0].log.count(" close: ") >= 6, "each coming and going takes what it has"
