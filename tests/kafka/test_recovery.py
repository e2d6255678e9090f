"""
A survivor takes over, a worker ends under load, a broker is away. How soon is measured by
`bench/recovery.py`.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import chaos, chaos_check
from bench.chaos_brokers import KafkaServer
from bench.chaos_faults import GROUP
from bench.chaos_fleet import Member
from stream_monitor.events.observations import unpack
from stream_monitor.stages.snapshots import Manifest
from tests.kafka.site import value

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
TERM_S = 10
BEHIND_S = 2
"""So far behind the sender counts as caught up: rows wait for a flush and for their reduction."""


class Load:
    """
    Workers on a Kafka of their own, and events at a steady rate with a history of how many
    predictions were sent when.
    """

    def __init__(self, folder: Path, workers: int, rate: int, seconds: int) -> None:
        self.server = KafkaServer()
        self.server.start()
        self.file = folder / "monitor.yaml"
        self.file.write_text(chaos.CONFIG.format(bootstrap=self.server.bootstrap, group=GROUP))
        self.members = [Member(0, self.file, folder)]
        self.wait("ready", self.members[0].ready)
        self.members += [Member(n, self.file, folder) for n in range(1, workers)]
        self.wait("all own something", lambda: all(m.owned() for m in self.members))
        self.feed = chaos.Feed(
            self.server.bootstrap,
            argparse.Namespace(seed=1, models=30, events=rate * seconds, minutes=seconds / 60),
        )
        self.sent: list[tuple[float, int]] = []
        self.feed.start()
        threading.Thread(target=self._remember, daemon=True).start()

    def _remember(self) -> None:
        while self.feed.is_alive():
            self.sent.append((time.monotonic(), len(self.feed.oracle.predictions)))
            time.sleep(0.1)

    def wait(self, what: str, condition: Any, limit_s: float = 60) -> None:
        began = time.monotonic()
        while time.monotonic() - began < limit_s:
            if condition():
                return
            time.sleep(0.2)
        pytest.fail(f"not within {limit_s} s: {what}\n" + "\n".join(m.log for m in self.members))

    def counted(self) -> float:
        return sum(
            v
            for m in self.members
            for series, v in m.metrics().items()
            if series.startswith("model_predictions_total")
        )

    def caught_up(self) -> bool:
        before = time.monotonic() - BEHIND_S
        return self.counted() >= max((n for at, n in self.sent if at <= before), default=0)

    def committed(self, topic: str) -> dict[int, int]:
        return {
            partition: at
            for partition, (at, _) in chaos_check.ends(self.server.bootstrap, GROUP, topic).items()
        }

    def written(self, topic: str) -> dict[int, int]:
        """By source partition: the offset after the last row of it on `observations`."""
        out: dict[int, int] = {}
        for message in itertools.chain(
            *chaos_check.read(self.server.bootstrap, "observations").values()
        ):
            found = unpack(value(message))
            for number, source in enumerate(found.head.sources):
                if source.startswith(topic + "@"):
                    partition = int(source.rpartition("/")[2])
                    out[partition] = max(
                        out.get(partition, 0),
                        int(found.rows["offset"][found.rows["source"] == number].max()) + 1,
                    )
        return out

    def snapshots(self) -> dict[int, int]:
        """By partition: the position of the last snapshot that was committed."""
        read = chaos_check.read(self.server.bootstrap, "snapshots").items()
        manifests = {
            partition: [value(m) for m in messages if (m.key() or b"").endswith(b"/manifest")]
            for partition, messages in read
        }
        return {
            partition: msgspec.msgpack.decode(values[-1], type=Manifest).position
            for partition, values in manifests.items()
        }

    def exact(self) -> None:
        """All that was sent is counted, once."""
        self.feed.join(120)
        assert not self.feed.failed
        expected = self.feed.oracle.expected()

        def wrong() -> list[str]:
            got, twice = chaos_check.shown([m.metrics() for m in self.members])
            return twice + chaos_check.differences("oracle and /metrics", expected, got)

        self.wait(
            "everything is counted",
            lambda: self.counted() == sum(of["predictions"] for of in expected.values()),
        )
        self.wait("and reduced", lambda: not wrong())
        time.sleep(1)  # nothing comes twice
        assert wrong() == []

    def close(self) -> None:
        for member in self.members:
            if member.alive:
                member.process.kill()
                member.process.wait(10)
        self.server.close()


def test_after_kill_9_a_survivor_takes_over_and_catches_up(kafka, tmp_path):
    load = Load(tmp_path, workers=2, rate=1_000, seconds=30)
    try:
        load.wait("both fold", lambda: load.counted() > 3_000)
        load.members[0].send(signal.SIGKILL)
        load.members[0].process.wait(10)
        load.wait(
            "the survivor has everything", lambda: sorted(load.members[1].owned()) == [0, 1, 2, 3]
        )
        load.wait("and has caught up", load.caught_up)
        load.exact()
    finally:
        load.close()


def test_sigterm_under_load_leaves_nothing_to_replay(kafka, tmp_path):
    load = Load(tmp_path, workers=1, rate=2_000, seconds=12)
    try:
        load.wait("it folds", lambda: load.counted() > 5_000)
        began = time.monotonic()
        load.members[0].send(signal.SIGTERM)
        assert load.members[0].process.wait(20) == 0, load.members[0].log
        assert time.monotonic() - began < TERM_S
        # INGEST reads nothing again,
        assert load.committed("predictions") == load.written("predictions")
        assert load.committed("labels") == load.written("labels")
        # and EVALUATE goes on from a snapshot that is as new as its position
        assert load.committed("observations") == load.snapshots()
        load.members.append(Member(1, load.file, tmp_path))
        load.exact()
    finally:
        load.close()


def test_a_broker_away_for_a_minute_is_waited_for(kafka, tmp_path):
    """The worker stays, says that it is not ready, keeps its memory, and is exact afterwards."""
    load = Load(tmp_path, workers=1, rate=300, seconds=80)
    worker = load.members[0]

    def rss_mb() -> int:
        line = next(
            x
            for x in Path(f"/proc/{worker.process.pid}/status").read_text().splitlines()
            if x.startswith("VmRSS")
        )
        return int(line.split()[1]) // 1024

    try:
        load.wait("it folds", load.caught_up)
        before = rss_mb()
        load.server.stop()
        load.wait("not ready", lambda: not worker.ready(), 30)
        time.sleep(60)
        assert worker.alive, worker.log
        assert not worker.ready()
        assert rss_mb() < before + 50
        load.server.start()
        load.wait("ready again", worker.ready, 60)
        load.exact()
        assert worker.alive, worker.log
    finally:
        load.close()
