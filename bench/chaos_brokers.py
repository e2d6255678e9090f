"""
The brokers of a chaos run: one, or a cluster in which leaders move; each behind a proxy of its own.

Rule of the file: never are two brokers away at once; the next is hurt only when every broker says
that all replicas are in sync. What the cluster says at rest is compared with what it said at the
rest before: those are the leader changes that are counted, no guess from what was done to it.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import ElectionType, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from kafka_server import KafkaServer, free_port

from bench.tcp_proxy import Fault, TcpProxy

REST_S = 90
"""Within which a broker that is back must be in sync again."""
SESSION_S = 9
"""
Of brokers with the controller (Kafka's default): a broker that is silent for longer loses its
leaders.
"""
HEAP_MB = 320
CLUSTER = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "unclean.leader.election.enable": "false",
    "auto.leader.rebalance.enable": "false",  # a leader stays where it is until something moves it
    "broker.session.timeout.ms": str(SESSION_S * 1000),
    "log.cleaner.dedupe.buffer.size": "16777216",
    "num.network.threads": "2",
    "num.io.threads": "4",
}
WATCHED = ("predictions", "labels", "observations", "__consumer_offsets", "__transaction_state")
"""
Topics whose leaders have to move in a run with several brokers; those of the last two are the
coordinators.
"""


class Partition(NamedTuple):
    leader: int
    replicas: tuple[int, ...]
    in_sync: frozenset[int]


Layout = dict[tuple[str, int], Partition]


def changes(before: Layout, after: Layout) -> Counter[str]:
    """
    By topic, partitions that have another leader now.

    >>> one, two = (Partition(leader, (1, 2), frozenset({1, 2})) for leader in (1, 2))
    >>> changes(
    ...     {("labels", 0): one, ("labels", 1): one},
    ...     {("labels", 0): two, ("labels", 1): one, ("alerts", 0): one},
    ... )
    Counter({'labels': 1})
    """
    return Counter(
        at[0]
        for at in sorted(before.keys() & after.keys())
        if before[at].leader != after[at].leader
    )


def reordered(layout: Layout, choose: random.Random) -> Layout:
    """
    The same replicas, but another than the leader comes first: a preferred election then moves
    every leader.

    >>> reordered({("labels", 0): Partition(1, (1, 2), frozenset({1, 2}))}, random.Random(1))[
    ...     ("labels", 0)
    ... ].replicas
    (2, 1)
    """
    out = {}
    for at, partition in layout.items():
        first = choose.choice([node for node in partition.replicas if node != partition.leader])
        out[at] = partition._replace(
            replicas=(first, *(node for node in partition.replicas if node != first))
        )
    return out


class Broker:
    """A Kafka with a second listener, which is told to clients as the port of its proxy."""

    def __init__(self, node: int = 1, controllers: Iterable[int] = ()) -> None:
        ports = list(controllers)
        self.server = (
            KafkaServer(None, CLUSTER, node=node, controllers=ports, heap_mb=HEAP_MB)
            if ports
            else KafkaServer()
        )
        self.node, proxy_port, port = node, free_port(), free_port()
        text = self.server.properties.read_text()
        for before, after in (
            (
                "\nlisteners=",
                f"\ninter.broker.listener.name=PLAINTEXT\nlisteners=PROXIED://127.0.0.1:{port},",
            ),
            (
                "\nadvertised.listeners=",
                f"\nadvertised.listeners=PROXIED://127.0.0.1:{proxy_port},",
            ),
            (
                "listener.security.protocol.map=",
                "listener.security.protocol.map=PROXIED:PLAINTEXT,",
            ),
        ):
            assert before in text
            text = text.replace(before, after)
        self.server.properties.write_text(text)
        self.proxy = TcpProxy(proxy_port, port).start()

    def kill(self) -> None:
        """Power cut."""
        assert self.server.process is not None
        self.server.signal(signal.SIGKILL)
        self.server.process.wait(20)

    def layout(self) -> tuple[int, Layout]:
        """
        How many brokers this one knows, and the partitions as it sees them.

        Raises KafkaException.
        """
        known = AdminClient(
            {"bootstrap.servers": self.server.bootstrap, "log_level": 0}
        ).list_topics(timeout=5)
        found = {
            (name, p.id): Partition(p.leader, tuple(p.replicas), frozenset(p.isrs))
            for name, topic in known.topics.items()
            for p in topic.partitions.values()
        }
        return len(known.brokers), found


class Brokers:
    """All of them."""

    def __init__(self, number: int) -> None:
        controllers = [free_port() for _ in range(number)] if number > 1 else []
        self.members = [Broker(node, controllers) for node in range(1, number + 1)]
        self.bootstrap = ",".join(b.server.bootstrap for b in self.members)
        self.proxied = ",".join(f"127.0.0.1:{b.proxy.port}" for b in self.members)
        """Addresses for the workers."""
        self.leader_changes: Counter[str] = Counter()
        """By topic."""
        self._known: Layout = {}

    @property
    def several(self) -> bool:
        return len(self.members) > 1

    def start(self) -> None:
        with ThreadPoolExecutor() as pool:  # one alone would wait for a majority
            list(pool.map(lambda b: b.server.start(), self.members))

    def rest(self) -> str:
        """
        Wait until every broker says that all replicas are in sync, and count the leaders that have
        changed; why not, else nothing.
        """
        deadline = time.monotonic() + REST_S
        while time.monotonic() < deadline:
            try:
                seen = [b.layout() for b in self.members]
            except KafkaException:
                seen = []
            if (
                seen
                and all(n == len(self.members) and layout == seen[0][1] for n, layout in seen)
                and all(p.in_sync == set(p.replicas) for p in seen[0][1].values())
            ):
                self.leader_changes += changes(self._known, seen[0][1])
                self._known = seen[0][1]
                return ""
            time.sleep(1)
        return f"the cluster is not whole within {REST_S} s: {seen}"

    def victim(self, choose: random.Random) -> Broker:
        """The only one, or one that leads something at the last rest."""
        leads = {p.leader for p in self._known.values()}
        return choose.choice([b for b in self.members if b.node in leads] or self.members)

    def elect(self, choose: random.Random) -> None:
        """Another leader for every partition, with all brokers there."""
        wanted, server = reordered(self._known, choose), self.members[0].server
        file = server.folder / "reassign.json"
        file.write_text(
            json.dumps(
                {
                    "version": 1,
                    "partitions": [
                        {"topic": t, "partition": n, "replicas": p.replicas}
                        for (t, n), p in wanted.items()
                    ],
                }
            )
        )
        server.run(
            "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
            "--bootstrap-server",
            self.bootstrap,
            "--reassignment-json-file",
            str(file),
            "--execute",
        )
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        refused = admin.elect_leaders(
            ElectionType.PREFERRED, [TopicPartition(*at) for at in wanted]
        ).result(60)
        assert not any(refused.values()), refused

    def unreplicated(self) -> list[str]:
        """Topics with a partition of fewer replicas than brokers."""
        return sorted(
            {topic for (topic, _), p in self._known.items() if len(p.replicas) < len(self.members)}
        )

    # ---- the proxies

    def arm(self, fault: Fault, choose: random.Random) -> None:
        """
        Hurt the next EndTxn; with several brokers, the next that one of the transaction
        coordinators gets.
        """
        leads = {
            p.leader for (topic, _), p in self._known.items() if topic == "__transaction_state"
        }
        choose.choice([b for b in self.members if b.node in leads] or self.members).proxy.arm(fault)

    def disarm(self) -> None:
        for broker in self.members:
            broker.proxy.disarm()

    @property
    def hurt(self) -> Counter[str]:
        """Ends of transactions that were lost or late, by kind."""
        return sum((b.proxy.done for b in self.members), Counter())

    @property
    def generation(self) -> int:
        """Of the group, as it was last answered: the number of rebalances."""
        return max(b.proxy.generation for b in self.members)

    def close(self) -> None:
        for broker in self.members:
            broker.proxy.stop()
            broker.server.close()
