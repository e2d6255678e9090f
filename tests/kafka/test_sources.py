"""Sources that change under the worker: topics made anew, records that retention took before they were read."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.chaos_fleet import Member

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
DEADLINE_S = 60


class Site:
    """A prefix of topics on the broker and the worker that reads them."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap, self.folder, self.prefix = bootstrap, folder, f"t{random.randrange(10**9)}."
        self.file = folder / "monitor.yaml"
        self.file.write_text(f"kafka: {{bootstrap_servers: '{bootstrap}', topic_prefix: '{self.prefix}'}}\nworker: {{group: '{self.prefix}group', metrics: {{port: 0}}}}\n")
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.workers: list[Member] = []
        self.sent = 0

    @property
    def worker(self) -> Member:
        return self.workers[-1]

    def start(self) -> None:
        self.workers.append(Member(len(self.workers), self.file, self.folder))
        self.wait("ready", lambda: self.worker.metrics().get("stream_monitor_ready") == 1)

    def stop(self) -> None:
        self.worker.send(signal.SIGTERM)
        assert self.worker.process.wait(20) == 0, self.worker.log

    def wait(self, what: str, condition: Callable[[], Any], limit_s: float = DEADLINE_S) -> None:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if condition():
                return
            assert self.worker.alive, self.worker.log
            time.sleep(0.2)
        pytest.fail(f"not within {limit_s} s: {what}\n{self.worker.log}")

    def send(self, n: int) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0})
        for i in range(self.sent, self.sent + n):
            producer.produce(self.prefix + "predictions", json.dumps({"event_id": str(i), "model": "m", "prediction": 1}).encode(), str(i))
        assert producer.flush(30) == 0
        self.sent += n

    def counted(self) -> float:
        return self.worker.metrics().get('model_predictions_total{model="m",version=""}', 0.0)

    def lost(self, topic: str) -> float:
        return sum(v for series, v in self.worker.metrics().items() if series.startswith(f'stream_monitor_lost_records{{topic="{self.prefix}{topic}"'))

    def make_anew(self, topic: str) -> None:
        name = self.prefix + topic
        self.admin.delete_topics([name])[name].result(30)
        deadline = time.monotonic() + DEADLINE_S
        while name in self.admin.list_topics(timeout=10).topics and time.monotonic() < deadline:
            time.sleep(0.2)
        while True:
            try:
                self.admin.create_topics([NewTopic(name, 4, 1)])[name].result(30)
                break
            except Exception:
                assert time.monotonic() < deadline
                time.sleep(0.5)

    def delete_all_records(self, topic: str) -> None:
        """As retention does."""
        name = self.prefix + topic
        partitions = self.admin.list_topics(name, timeout=10).topics[name].partitions
        for done in self.admin.delete_records([TopicPartition(name, p, -1) for p in partitions]).values():
            done.result(30)


@pytest.fixture
def site(kafka: Any, tmp_path: Path) -> Iterator[Site]:
    found = Site(kafka.bootstrap, tmp_path)
    try:
        yield found
    finally:
        for worker in found.workers:
            if worker.alive:
                worker.process.kill()
                worker.process.wait(10)


@pytest.mark.parametrize("running", [True, False], ids=["while the worker runs", "while it is stopped"])
def test_a_topic_that_was_made_anew_is_a_new_source(site: Site, running: bool) -> None:
    """Its offsets begin at 0 again, below what was seen of the old one; they must count all the same."""
    site.start()
    site.send(400)
    site.wait("the old topic is counted", lambda: site.counted() == 400)
    if not running:
        site.stop()
    site.make_anew("predictions")
    site.send(300)
    if not running:
        site.start()
    site.wait("the new topic is counted too", lambda: site.counted() == 700)
    site.send(100)
    site.wait("and goes on", lambda: site.counted() == 800)
    site.stop()


def test_a_topic_that_grew_past_our_offset_since_it_was_made_anew(site: Site) -> None:
    """Offsets tell nothing then, and the group's commits came back: only the topic's id does, which the commits carry."""
    site.start()
    site.send(100)
    site.wait("the old topic is counted", lambda: site.counted() == 100)
    site.stop()
    name, group = site.prefix + "predictions", site.prefix + "group"
    consumer = Consumer({"bootstrap.servers": site.bootstrap, "group.id": group, "log_level": 0})
    committed = consumer.committed([TopicPartition(name, p) for p in range(4)], 20)
    assert sum(tp.offset for tp in committed) == 100
    site.make_anew("predictions")  # Kafka forgets the commits of a topic that is deleted
    site.send(1_000)
    consumer.commit(offsets=committed, asynchronous=False)
    consumer.close()
    site.start()
    site.wait("the new topic is counted from its beginning", lambda: site.counted() == 1_100)
    assert "made anew" in site.worker.log
    site.stop()


def test_records_that_retention_took_before_ingest_read_them_are_counted(site: Site) -> None:
    site.start()
    site.send(100)
    site.wait("counted", lambda: site.counted() == 100)
    site.stop()
    site.send(500)
    site.delete_all_records("predictions")
    site.start()
    site.send(50)
    site.wait("it goes on behind the gap", lambda: site.counted() == 150)
    assert site.lost("predictions") == 500
    site.stop()


def test_observations_that_retention_took_before_they_were_folded_are_counted(site: Site) -> None:
    """The snapshot is older than what the log still has: what lies between is lost, is told, and does not stop the worker."""
    site.start()
    site.send(100)
    site.wait("counted", lambda: site.counted() == 100)
    time.sleep(3)  # the first transaction, with a snapshot
    site.send(100)
    site.wait("counted", lambda: site.counted() == 200)
    site.worker.process.kill()  # no snapshot of these
    site.worker.process.wait(10)
    site.delete_all_records("observations")
    site.start()
    site.send(50)
    site.wait("it goes on behind the gap", lambda: site.counted() == 150)
    assert site.lost("observations") > 0
    site.stop()


def test_observations_that_end_before_what_was_folded_are_refused_with_the_way_out(site: Site) -> None:
    site.start()
    site.send(100)
    site.wait("counted", lambda: site.counted() == 100)
    site.stop()
    consumer = Consumer({"bootstrap.servers": site.bootstrap, "group.id": site.prefix + "group", "log_level": 0})
    committed = consumer.committed([TopicPartition(site.prefix + "observations", p) for p in range(4)], 20)
    consumer.commit(offsets=[TopicPartition(tp.topic, tp.partition, tp.offset + 10_000) for tp in committed], asynchronous=False)
    consumer.close()
    worker = Member(99, site.file, site.folder)
    site.workers.append(worker)
    assert worker.process.wait(60) == 71
    assert "it was made anew, or its log was cut" in worker.log
    assert "delete the group's offset of this partition" in worker.log
