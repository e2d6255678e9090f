"""
Sources that change under the worker: topics made again, records that retention took before they
were read.
"""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from bench.chaos_fleet import Member
from stream_monitor.ingest import home, tick

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
DEADLINE_S = 60


class Site:
    """A prefix of topics on the broker and the worker that reads them."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap, self.folder, self.prefix = bootstrap, folder, f"t{random.randrange(10**9)}."
        self.file = folder / "monitor.yaml"
        self.configure()
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.workers: list[Member] = []
        self.sent = 0

    def configure(self, worker: str = "", more: str = "") -> None:
        """Settings of `worker`, and others, for the next start."""
        options = f"{{group: '{self.prefix}group', metrics: {{port: 0}}, {worker}}}"
        self.file.write_text(
            f"kafka: {{bootstrap_servers: '{self.bootstrap}', topic_prefix: "
            f"'{self.prefix}'}}\nworker: {options}\n{more}\n"
        )

    @property
    def worker(self) -> Member:
        return self.workers[-1]

    def start(self) -> None:
        self.workers.append(Member(len(self.workers), self.file, self.folder))
        self.wait("ready", lambda: self.worker.metrics().get("stream_monitor_ready") == 1)

    def refused(self) -> str:
        """The last line of a worker that does not start, with the code that needs a person."""
        self.workers.append(Member(len(self.workers), self.file, self.folder))
        assert self.worker.process.wait(DEADLINE_S) == 71, self.worker.log
        return self.worker.log.splitlines()[-1]

    def kill(self) -> None:
        self.worker.process.kill()
        self.worker.process.wait(10)

    def committed(self, topic: str) -> dict[int, int]:
        """Offsets of the group by partition."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": self.prefix + "group", "log_level": 0}
        )
        found = consumer.committed([TopicPartition(self.prefix + topic, p) for p in range(4)], 20)
        consumer.close()
        return {tp.partition: tp.offset for tp in found}

    def move(self, topic: str, offsets: dict[int, int]) -> None:
        """As `kafka-consumer-groups.sh --reset-offsets`."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": self.prefix + "group", "log_level": 0}
        )
        consumer.commit(
            offsets=[TopicPartition(self.prefix + topic, p, o) for p, o in offsets.items()],
            asynchronous=False,
        )
        consumer.close()

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
            producer.produce(
                self.prefix + "predictions",
                json.dumps({"event_id": str(i), "model": "m", "prediction": 1}).encode(),
                str(i),
            )
        assert producer.flush(30) == 0
        self.sent += n

    def counted(self) -> float:
        return self.worker.metrics().get('model_predictions_total{model="m",version=""}', 0.0)

    def lost(self, topic: str) -> float:
        of_topic = f'topic="{self.prefix}{topic}"'
        found = self.worker.metrics().items()
        return sum(
            v
            for series, v in found
            if series.startswith("stream_monitor_lost_records{") and of_topic in series
        )

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

    def add_partitions(self, topic: str, total: int) -> None:
        for done in self.admin.create_partitions(
            [NewPartitions(self.prefix + topic, total)]
        ).values():
            done.result(30)

    def delete_all_records(self, topic: str) -> None:
        """As retention does."""
        name = self.prefix + topic
        partitions = self.admin.list_topics(name, timeout=10).topics[name].partitions
        for done in self.admin.delete_records(
            [TopicPartition(name, p, -1) for p in partitions]
        ).values():
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


@pytest.mark.parametrize(
    "running", [True, False], ids=["while the worker runs", "while it is stopped"]
)
def test_a_topic_that_was_made_anew_is_a_new_source(site: Site, running: bool) -> None:
    """
    Its offsets begin at 0 again, below what was seen of the old one; they must count all the same.
    """
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
    """
    Offsets tell nothing then, and the group's commits came back: only the topic's id does, which
    the commits carry.
    """
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
    assert "the topic was recreated" in site.worker.log
    site.stop()


def test_records_that_retention_took_before_ingest_read_them_end_the_worker_or_are_counted(
    site: Site,
) -> None:
    """With `on_lost: fail` it ends until a person decides, and nothing is committed meanwhile."""
    # so that no start waits for the session of a worker that ended
    site.configure("instance_id: one")
    site.start()
    site.send(100)
    site.wait("counted", lambda: site.counted() == 100)
    site.stop()
    site.send(500)
    site.delete_all_records("predictions")
    before = site.committed("predictions")
    site.configure("instance_id: one, on_lost: fail")
    gone = (
        rf"exit 71: {site.prefix}predictions/\d: records \d+ to \d+ were deleted by retention "
        r"before they were read, and worker.on_lost is fail; worker.on_lost: continue goes on"
    )
    assert re.search(gone, site.refused())
    assert site.committed("predictions") == before
    site.configure("instance_id: one")
    site.start()
    site.send(50)
    site.wait("it goes on behind the gap", lambda: site.counted() == 150)
    assert site.lost("predictions") == 500
    site.stop()


def test_observations_that_retention_took_before_they_were_folded_are_counted(site: Site) -> None:
    """
    The snapshot is older than what the log still has: what lies between is lost, is told, and does
    not stop the worker.
    """
    site.start()
    site.send(100)
    site.wait("counted", lambda: site.counted() == 100)
    site.wait(
        "the first transaction, with a snapshot",
        lambda: site.committed("observations")[home("m", 4)] > 0,
    )
    site.send(100)
    site.wait("counted", lambda: site.counted() == 200)
    site.kill()  # no snapshot of these
    site.delete_all_records("observations")
    site.start()
    site.send(50)
    site.wait("it goes on behind the gap", lambda: site.counted() == 150)
    assert site.lost("observations") > 0
    site.stop()


def test_observations_that_end_before_what_was_folded_are_refused_with_the_way_out(
    site: Site,
) -> None:
    site.start()
    site.send(100)
    site.wait("counted", lambda: site.counted() == 100)
    site.stop()
    site.move(
        "observations", {p: offset + 10_000 for p, offset in site.committed("observations").items()}
    )
    told = site.refused()
    assert "it was recreated, or its log was truncated" in told
    assert "delete the group's offset of this partition" in told


def test_with_on_lost_fail_a_gap_before_evaluate_ends_the_worker_until_it_is_told_to_go_on(
    site: Site,
) -> None:
    # so that no start waits for the session of a worker that ended
    site.configure("instance_id: one")
    site.start()
    site.send(100)
    site.wait("counted", lambda: site.counted() == 100)
    site.stop()
    before = site.committed("observations")
    producer = Producer({"bootstrap.servers": site.bootstrap, "log_level": 0})
    for p in before:
        producer.produce(
            site.prefix + "observations", tick(time.time_ns() // 1_000_000), partition=p
        )
    assert producer.flush(30) == 0
    site.delete_all_records("observations")
    site.configure("instance_id: one, on_lost: fail")
    gone = (
        rf"exit 71: {site.prefix}observations/\d: records \d+ to \d+ were deleted by retention "
        r"before they were folded, .* starts there with an empty state"
    )
    assert re.search(gone, site.refused())
    assert site.committed("observations") == before
    site.configure("instance_id: one, on_lost: continue")
    site.start()
    assert site.lost("observations") >= 4
    assert site.counted() == 100
    site.stop()


def test_partitions_that_are_added_to_the_sources_are_read_by_the_running_worker_from_their_beginning(  # noqa: E501
    site: Site,
) -> None:
    site.configure("auto_offset_reset: latest")
    site.start()
    site.send(100)
    site.wait("counted", lambda: site.counted() == 100)
    site.add_partitions("predictions", 6)
    site.add_partitions("labels", 5)
    producer = Producer({"bootstrap.servers": site.bootstrap, "log_level": 0})
    for p in (4, 5):
        producer.produce(
            site.prefix + "predictions",
            json.dumps({"event_id": f"new-{p}", "model": "m", "prediction": 1}).encode(),
            partition=p,
        )
        producer.produce(
            site.prefix + "labels",
            json.dumps({"event_id": f"new-{p}", "model": "m", "label": 1}).encode(),
            partition=4,
        )
    assert producer.flush(30) == 0
    site.wait("the added partitions are read", lambda: site.counted() == 102)
    site.wait(
        "their labels too",
        lambda: site.worker.metrics().get('model_labels_total{model="m",version=""}') == 2,
    )
    site.stop()


def test_partitions_that_are_added_to_observations_end_every_worker_with_the_procedure(
    site: Site,
) -> None:
    """
    The running one at the rebalance that follows, before it places a row otherwise; others at their
    start.
    """
    site.configure("instance_id: one")
    site.start()
    site.send(100)
    site.wait("counted", lambda: site.counted() == 100)
    site.add_partitions("observations", 6)
    assert site.worker.process.wait(DEADLINE_S) == 71, site.worker.log
    told = site.worker.log.splitlines()[-1]
    assert (
        f"exit 71: {site.prefix}observations has 6 partitions, but its rows were partitioned for 4"
        in told
    )
    site.workers.append(Member(len(site.workers), site.file, site.folder))
    assert site.worker.process.wait(DEADLINE_S) == 1, site.worker.log
    told_at_start = site.worker.log.splitlines()[-1]
    assert (
        f"{site.prefix}snapshots has 4 partitions and {site.prefix}observations has 6"
        in told_at_start
    )
    for line in (told, told_at_start):
        assert (
            f"stop all workers, delete {site.prefix}observations and {site.prefix}snapshots" in line
        )
