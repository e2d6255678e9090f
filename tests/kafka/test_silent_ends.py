"""
Workers that end without an exception on a real Kafka: what crashes them is found and set aside; a
worker that is only killed loses nothing.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata

from bench.odd_records import event
from stream_monitor.ingest import home
from stream_monitor.stages.poison import parted
from tests.kafka.site import Site, header, value

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux", reason="copies of the process are made on Linux only"
    ),
]
CRASHING = """
import os, signal
from stream_monitor.cli import main
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
take, fold = Ingest.take, Shard.fold
def taking(self, source, kind, values, offsets, times_ms):
    if any(v and b"crash-ingest" in v for v in values):
        os.kill(os.getpid(), signal.SIGSEGV)
    return take(self, source, kind, values, offsets, times_ms)
def folding(self, record, *when):
    if b"crash-evaluate" in record:
        os._exit(9)
    fold(self, record, *when)
Ingest.take, Shard.fold = taking, folding
main()
"""
"""A worker that crashes over records of one model, and in its evaluation over those of another."""


KILLED = """
import os, signal
from stream_monitor.cli import main
from stream_monitor.ingest import Ingest
def taking(self, *arguments):
    os.kill(os.getpid(), signal.SIGKILL)
Ingest.take = taking
main()
"""
"""A worker that is killed as soon as it would take a record."""
SET_ASIDE = 'stream_monitor_dead_letters_total{reason="ended_worker",topic="observations"}'


def commits(site: Site, topic: str) -> dict[int, OffsetAndMetadata]:
    """Of the group, by partition."""

    async def ask() -> dict[int, OffsetAndMetadata]:
        admin = AIOKafkaAdminClient(bootstrap_servers=site.bootstrap)
        await admin.start()
        try:
            found = await admin.list_consumer_group_offsets(site.prefix + "group")
        finally:
            await admin.close()
        return {tp.partition: at for tp, at in found.items() if tp.topic == site.prefix + topic}

    return asyncio.run(ask())


def begun(site: Site, topic: str) -> int:
    """
    The greatest number of tenures that began at a position; those of `observations` are marked on
    `snapshots`.
    """
    return max((parted(at.metadata)[2] for at in commits(site, topic).values()), default=-1)


def letters(site: Site) -> Counter[tuple[str, str]]:
    """Dead letters by topic and what they say."""
    found = [
        (header(m, "__connect.errors.topic"), header(m, "__connect.errors.exception.message"))
        for m in site.letters()
    ]
    return Counter(
        (topic.removeprefix(site.prefix), message.rpartition(": ")[2]) for topic, message in found
    )


def test_an_observation_that_crashes_the_worker_three_times_is_set_aside(site: Site) -> None:
    site.start(("-c", CRASHING))
    site.send([event(f"before-{i}") for i in range(10)])
    site.wait("before", lambda: site.predictions() == 10)
    place, nothing = home("m", 4), OffsetAndMetadata(0, "")
    site.wait("a transaction", lambda: commits(site, "observations").get(place, nothing).offset > 0)
    site.send([event("e", "crash-evaluate")])
    assert site.ended() == 9
    for _ in range(3):  # each begins where the first has ended
        site.start(("-c", CRASHING))
        assert site.ended() == 9, site.log
    site.start(("-c", CRASHING))
    site.wait("it is set aside", lambda: site.metrics().get(SET_ASIDE, 0) > 0)
    site.send([event("after")])
    site.wait("after", lambda: site.predictions() == 11)
    assert site.stop() == 0
    assert set(letters(site)) == {
        ("observations", "exit code 9")
    }  # more than one: INGEST may have written the row again after each end
    site.start()  # the restored state has no trace of it
    site.wait("restored", lambda: site.predictions() == 11)
    assert site.predictions("crash-evaluate") == 0
    assert site.stop() == 0


def test_a_record_that_crashes_workers_is_found_among_those_of_workers_that_were_only_killed(
    site: Site,
) -> None:
    site.start(("-c", CRASHING))
    site.send([event("before")])
    site.wait("before", lambda: site.predictions() == 1)
    assert site.stop() == 0
    assert begun(site, "predictions") == 0
    site.send(
        [
            *(event(f"{i}") for i in range(500)),
            event("p", "crash-ingest"),
            *(event(f"{i}") for i in range(500, 2_000)),
        ]
    )
    for n, (program, code) in enumerate(
        [(KILLED, -signal.SIGKILL), (CRASHING, -signal.SIGSEGV), (KILLED, -signal.SIGKILL)]
    ):
        site.start(("-c", program))
        assert site.ended() == code, site.log
        assert begun(site, "predictions") == n + 1
    site.start(("-c", CRASHING))
    site.wait("all the others", lambda: site.predictions() == 2_001)
    site.send([event("q", "crash-ingest"), event("after")])
    site.wait("after", lambda: site.predictions() == 2_002)
    assert site.stop() == 0
    assert "3 times a worker started at" in site.log
    assert letters(site) == {("predictions", "signal SIGSEGV"): 2}
    assert {json.loads(value(m))["event_id"] for m in site.letters()} == {"p", "q"}
