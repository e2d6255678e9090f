"""
The world of a simulation: virtual time, the seed's faults, what is sent, and what must come of it.

Rule of the file: everything is decided by the seed; nothing waits. Each request of a worker to the
broker is a place where it may be killed (before the request leaves, or before the answer comes),
stopped for longer than its session, or told an error although the request was, or was not, carried
out.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, NotLeaderForPartitionError

from bench.chaos_check import METRICS, differences, summaries
from bench.chaos_events import Event, Oracle, stream
from stream_monitor.evaluate import Shard
from stream_monitor.events.observations import unpack
from stream_monitor.ingest import home
from stream_monitor.kafka import clocks
from stream_monitor.settings import CoreSettings, ModelSettings, Settings, Threshold, WorkerSettings
from stream_monitor.stages import (
    checkpoints,
    dead_letters,
    evaluate_stage,
    forks,
    hub,
    ingest_stage,
    owned,
    restoring,
    source_commits,
    tenures,
)
from tests.simulation.broker import ABORTED, COMMITTED, Broker, LaterError, Transaction
from tests.simulation.clients import Driver, Producer, SimulatedHub, worker
from tests.simulation.ledger import Ledger
from tests.simulation.process import DiedError, Process, ProcessTime

T0 = 1_760_000_000_000
SOURCES, TARGETS, WORKERS = 2, 2, 2
FEED_S, FAULTS_S, LIMIT_S, STEPS_MAX = 25.0, 35.0, 900.0, 400_000
WINDOW = 20
TOPICS = {
    "predictions": SOURCES,
    "labels": SOURCES,
    "lifecycle": 1,
    "observations": TARGETS,
    "snapshots": TARGETS,
    "alerts": 1,
    "dead-letters": 1,
    "history": 1,
    "baselines": 1,
    "anomalies": 1,
}
MODEL = ModelSettings(
    task="binary",
    windows=(f"last_{WINDOW}", "1h"),
    thresholds={"accuracy": Threshold(min=0.8, min_labels=10, judge="value")},
    cooldown_ms=0,
)
ARMS = {"arms": ["control", "b"], "primary": {"metric": "error", "effect": 0.01}}
FAULTS = ("killed before", "killed after", "stopped", "error before", "error after", "late")
EXCUSED = {0, 70, 71}
"""Exit codes that mean an end on request, or "start me again"."""


class Sent(NamedTuple):
    """A record that was sent to a source."""

    tp: TopicPartition
    offset: int
    event: Event


class Turn:
    """The place of a request among those that must reach the broker in their order."""

    def __init__(self, before: Turn | None = None) -> None:
        self.over = False
        self._before = before if before and not before.over else None

    @property
    def free(self) -> bool:
        """Whether the one before is through, well or not."""
        return self._before is None or self._before.over


class World:
    """
    One simulation.

    Parameters
    ----------
    seed : int
    real : bool
        With the product's statistics instead of a `Ledger`.
    once : bool
        With transactions; else alerts may be written again after a crash, and are compared as a
        set.
    """

    def __init__(self, seed: int, *, real: bool = False, once: bool = True) -> None:
        self.seed, self.real, self.once, self.chance = seed, real, once, random.Random(seed)
        self.now = 0.0
        self.broker = Broker(TOPICS, lambda: self.now, self.after, self.chance, T0)
        self.broker.assignable = sorted(
            tp
            for tp in self.broker.logs
            if tp.topic in ("predictions", "labels", "lifecycle", "observations")
        )
        guarantee: Any = "exactly_once" if once else "at_least_once"
        self.settings = Settings(
            core=CoreSettings(defaults=MODEL),
            worker=WorkerSettings(
                flush_interval_ms=self.chance.choice([50, 400]), processing_guarantee=guarantee
            ),
        )
        self.shard: Any = Shard if real else Ledger
        self.processes: list[Process] = []
        self.drivers: dict[int, Driver] = {}
        self.hits: Counter[str] = Counter()
        """Faults by request and kind."""
        self.sent: list[Sent] = []
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._budget = self.chance.randint(1, 9)
        self._rate = self.chance.choice([0.003, 0.01, 0.03])
        self._send_weight = self.chance.choice([0.05, 1.0])  # most requests are sends of INGEST
        self._hole_rate = self.chance.choice([0.0, 0.03])
        self._away_until = 0.0
        self._wanted = WORKERS

    # ---- time

    def after(self, delay_s: float, work: Callable[[], object]) -> None:
        """Do something later."""
        heapq.heappush(self._heap, (self.now + delay_s, next(self._numbers), work))

    def faulty(self) -> bool:
        """Whether faults may still happen."""
        return self.now < FAULTS_S

    # ---- requests

    turn = Turn

    def request(
        self, name: str, action: Callable[[], Any], *, faulty: bool = True, turn: Turn | None = None
    ) -> asyncio.Future[Any]:
        """
        Send a request to the broker, after the one before it in its turn; the future has its
        answer.
        """
        process = asyncio.get_running_loop()
        assert isinstance(process, Process)
        future = process.create_future()
        future.add_done_callback(lambda f: f.cancelled() or f.exception())  # nobody need ask
        if not process.alive:
            return future
        fault = self._fault(name) if faulty else ""
        delay_s = self.chance.uniform(3, 12) if fault == "late" else 0.02 * self.chance.random()
        if fault == "killed before":
            process.end(-9, f"kill -9 before {name}")
            return future
        if fault == "stopped":
            process.stopped_until = self.now + self.chance.choice(
                [2.0, self.chance.uniform(10.5, 25)]
            )
        self.after(
            delay_s, partial(self._arrive, process, future, name, action, fault, turn or Turn())
        )
        return future

    def _fault(self, name: str) -> str:
        if (
            not self.faulty()
            or self._budget <= 0
            or self.chance.random() > self._rate * (self._send_weight if name == "send" else 1)
        ):
            return ""
        self._budget -= 1
        kind = self.chance.choice(FAULTS)
        self.hits[f"{name}: {kind}"] += 1
        return kind

    def _arrive(
        self,
        process: Process,
        future: asyncio.Future[Any],
        name: str,
        action: Callable[[], Any],
        fault: str,
        turn: Turn,
    ) -> None:
        again = partial(self._arrive, process, future, name, action, fault, turn)
        if self.now < self._away_until or not turn.free:
            # the client asks again until the broker is back
            self.after(max(self._away_until - self.now, 0.0) + 0.1 * self.chance.random(), again)
            return
        result: Any = None
        if fault != "error before":
            try:
                result = action()
            except LaterError:
                self.after(0.05, again)
                return
            except Exception as e:
                result = e
        turn.over = True
        if fault.startswith("error"):
            result = self.chance.choice(
                [KafkaTimeoutError, KafkaConnectionError, NotLeaderForPartitionError]
            )()
        if fault == "killed after":
            process.end(-9, f"kill -9 after {name}")

        def answer() -> None:
            if process.alive and not future.done():
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

        self.after(0.02 * self.chance.random(), answer)

    def drops(self) -> bool:
        """Whether Faust drops what was just fetched."""
        return self.faulty() and self.chance.random() < self._hole_rate

    # ---- workers

    def add(self) -> None:
        """Start a worker."""
        process = Process(self, len(self.processes))
        self.processes.append(process)

        def begin() -> None:
            here = SimulatedHub(self.settings)
            here.world = self
            here.stages = [
                ingest_stage.IngestStage(here, TARGETS),
                evaluate_stage.EvaluateStage(here, TARGETS, {}),
            ]
            driver = self.drivers[process.number] = Driver(self, process, here)
            process.create_task(worker(self, process, here, driver))

        process.do(begin)

    def _alive(self) -> list[Process]:
        return [p for p in self.processes if p.alive]

    def _each_second(self) -> None:
        self.broker.expire()
        if len(self._alive()) < self._wanted and self.chance.random() < 0.5:
            self.add()  # as an orchestrator would
        self.after(1.0, self._each_second)

    def terminate(self, process: Process) -> None:
        """SIGTERM."""
        if process.alive:
            process.do(self.drivers[process.number].stop.set)

    # ---- what happens

    def _plan(self) -> None:
        """What is sent and what goes wrong, each at its time."""
        for event in itertools.islice(
            stream(self.seed, 3, T0, phase=WINDOW),
            self.chance.randint(60, 400 if self.real else 250),
        ):
            self.after(FEED_S * self.chance.random(), partial(self._send, event))
        for _ in range(self.chance.randint(0, 3)):
            self.after(FEED_S * self.chance.random(), self._send_in_transaction)
        for number in range(self.chance.randint(0, 12)):
            self.after(FEED_S * self.chance.random(), partial(self._send_lifecycle, number))
        kinds: list[Callable[[], None]] = [
            self._kill,
            self._stop,
            self._terminate_one,
            self._scale,
            self._broker_away,
            self._steal,
            self._compact,
        ]
        for _ in range(self.chance.randint(0, 7)):
            self.after(FAULTS_S * self.chance.random(), self.chance.choice(kinds))

    def _source(self, topic: str) -> TopicPartition:
        return TopicPartition(topic, self.chance.randrange(TOPICS[topic]))

    def _send_lifecycle(self, number: int) -> None:
        """An event of an experiment, which is a row, or what others write, which is none."""
        kind = self.chance.choice(["experiment_started", "experiment_stopped", "muted", "verdict"])
        value = {"type": kind, "model": f"model-{number % 3:02}", "experiment": f"x-{number // 3}"}
        if kind.startswith("experiment_"):
            self._send(Event("lifecycle", {**value, **ARMS}))
        else:
            text = json.dumps(value)[: self.chance.choice([5, 500])]
            self.broker.append(self._source("lifecycle"), text.encode(), None, None)

    def _send(self, event: Event, transaction: Transaction | None = None) -> Sent:
        tp = self._source(event.topic)
        sent = Sent(
            tp, self.broker.append(tp, json.dumps(event.value).encode(), None, transaction), event
        )
        if transaction is None:
            self.sent.append(sent)
        return sent

    def _send_in_transaction(self) -> None:
        """A model server that uses transactions, some of which it gives up."""
        transaction, tps = Transaction(), set[TopicPartition]()
        state = self.chance.choice([COMMITTED, ABORTED])
        for i in range(self.chance.randint(1, 5)):
            value = {
                "event_id": f"t-{next(self._numbers)}-{i}",
                "model": "model-00",
                "version": "1",
                "timestamp": T0 + i,
                "prediction": 1,
                "score": 0.9,
            }
            sent = self._send(Event("predictions", value), transaction)
            tps.add(sent.tp)
            if state == COMMITTED:
                self.sent.append(sent)

        def end() -> None:
            transaction.state = state
            for tp in sorted(tps):
                self.broker.append(tp, None, None, transaction, control=True)

        self.after(5 * self.chance.random(), end)

    def _any(self) -> Process | None:
        return self.chance.choice(self._alive() or [None])

    def _kill(self) -> None:
        process = self._any()
        if process:
            self.hits["anywhere: killed"] += 1
            process.end(-9, "kill -9")

    def _stop(self) -> None:
        process = self._any()
        if process:
            self.hits["anywhere: stopped"] += 1
            process.stopped_until = self.now + self.chance.uniform(1, 25)

    def _terminate_one(self) -> None:
        process = self._any()
        if process:
            self.hits["anywhere: terminated"] += 1
            self.terminate(process)

    def _scale(self) -> None:
        self.hits["anywhere: scaled"] += 1
        self._wanted = self.chance.choice([1, 2, 3])
        for process in self._alive()[self._wanted :]:
            self.terminate(process)

    def _broker_away(self) -> None:
        self.hits["broker: away"] += 1
        self._away_until = self.now + self.chance.choice([1.0, 5.0, 14.0])

    def _steal(self) -> None:
        self.hits["broker: id stolen"] += 1
        name = f"{self.settings.worker.group}.observations.{self.chance.randrange(TARGETS)}"
        if name in self.broker.transactional:
            try:
                self.broker.init(name)
            except LaterError:
                self.after(0.1, self._steal)

    def _compact(self) -> None:
        self.hits["broker: compacted"] += 1
        for p in range(TARGETS):
            self.broker.compact(TopicPartition("snapshots", p))

    # ---- the run

    def run(self) -> list[str]:
        """All of it; what is wrong at the end."""
        with self._patched():
            try:
                self._plan()
                for _ in range(WORKERS):
                    self.add()
                self.after(0.5, self._each_second)
                if not self._until(lambda: self.now > FAULTS_S and self._settled()):
                    return [f"nothing moves any more: after {self.now:.0f} s {self._unread()}"]
                self._wanted = 0
                for process in self._alive():
                    self.terminate(process)
                if not self._until(lambda: not self._alive()):
                    return [f"{len(self._alive())} workers do not stop"]
                return self._wrong()
            finally:
                for process in self.processes:
                    process.bury()

    def _until(self, condition: Callable[[], bool]) -> bool:
        limit, checked = self.now + LIMIT_S, -1.0
        for _ in range(STEPS_MAX):
            ready = [p for p in self.processes if p.alive and p.due()]
            if ready:
                self.chance.choice(ready).step()
                continue
            if self.now >= checked + 1.0:
                checked = self.now
                if condition():
                    return True
            if self.now > limit:
                return False
            self.now = max(self.now, min(self._heap[0][0], *(p.next_due() for p in self.processes)))
            while self._heap and self._heap[0][0] <= self.now:
                heapq.heappop(self._heap)[2]()
        return False

    def _settled(self) -> bool:
        return not self._unread() and any(p.alive for p in self.processes)

    def _unread(self) -> list[str]:
        """Partitions in which events or rows lie behind what the group committed."""
        out = []
        for tp in self.broker.assignable:
            at = self.broker.offsets.get(tp, (0, ""))[0]
            found, _ = self.broker.read(tp, at, 10**6)
            if self.broker.stable_end(tp) < self.broker.end(tp) or any(
                tp.topic != "observations" or unpack(e.value or b"").head.rows for e in found
            ):
                out.append(f"{tp.topic}/{tp.partition} from {at}")
        return out

    async def _apart(self, steps: Iterable[Any]) -> tuple[int, str]:
        """
        A copy of a worker, which no record of this world ends; workers are killed often enough that
        records are tried in one.
        """
        self.hits["anywhere: tried apart"] += 1
        await asyncio.sleep(self.chance.random())
        return len(list(steps)), ""

    @contextmanager
    def _patched(self) -> Iterator[None]:
        """The runtime with this world's Kafka, clock and end of a process."""

        def die(code: int, why: str) -> None:
            process = asyncio._get_running_loop()
            if isinstance(process, Process):
                process.end(code, why)
            raise DiedError

        clock = ProcessTime(T0, self.chance.random)
        with ExitStack() as stack:
            for module in (hub, ingest_stage, dead_letters, evaluate_stage, restoring):
                stack.enter_context(patch.object(module, "die", die))
                stack.enter_context(patch.object(module, "time", clock))
            for module in (owned, clocks, checkpoints, source_commits):
                stack.enter_context(patch.object(module, "time", clock))
            stack.enter_context(patch.object(tenures, "COPIES", True))
            for module in (dead_letters, forks):
                stack.enter_context(patch.object(module, "apart", self._apart))
            for module in (ingest_stage, evaluate_stage):
                stack.enter_context(
                    patch.object(module, "AIOKafkaProducer", partial(Producer, self))
                )
            stack.enter_context(patch.object(restoring, "Shard", self.shard))
            stack.enter_context(patch.object(evaluate_stage, "give_back", lambda: None))
            # several records a flush
            stack.enter_context(patch.object(ingest_stage, "RECORD_BYTES_MAX", 500))
            yield

    # ---- the verdict

    def _wrong(self) -> list[str]:
        wrong = [
            f"worker {p.number} ended with {p.exit_code}: {p.why}"
            for p in self.processes
            if p.exit_code not in {*EXCUSED, -9}
        ]
        shards, told = [], []
        for p in range(TARGETS):
            shard, tp = self.shard(p, self.settings.core), TopicPartition("observations", p)
            for entry in self.broker.read(tp, 0, 10**6)[0]:
                if entry.offset < self.broker.offsets[tp][0]:
                    shard.fold(entry.value)
                    told.append([o.value for o in shard.outbox if o.topic == "alerts"])
                    shard.outbox.clear()
            shards.append(shard)
        wrong += self._wrong_alerts([value for values in told for value in values])
        return wrong + (self._wrong_totals(shards) if self.real else self._wrong_rows(shards))

    def _wrong_alerts(self, folded: list[bytes]) -> list[str]:
        """Each partition's alerts, as a fresh fold finds them, against those that are committed."""

        def by_partition(values: list[bytes]) -> dict[int, list[bytes]]:
            out = defaultdict(list)
            for value in values:
                said = json.loads(value)
                out[home(said["model"], TARGETS) if self.real else said[0]].append(value)
            return {p: found if self.once else sorted(set(found)) for p, found in out.items()}

        want = by_partition(folded)
        got = by_partition(
            [e.value or b"" for e in self.broker.read(TopicPartition("alerts", 0), 0, 10**6)[0]]
        )
        return [
            f"alerts of {p}: {len(want.get(p, []))} expected, {len(got.get(p, []))} found"
            for p in range(TARGETS)
            if want.get(p) != got.get(p)
        ]

    def _wrong_rows(self, ledgers: list[Ledger]) -> list[str]:
        """
        Every record that was sent, once and in its order, in each partition that it belongs to.
        """
        wrong = []
        for p, ledger in enumerate(ledgers):
            want, got = defaultdict(list), defaultdict(list)
            for s in sorted(self.sent):
                if "model" not in s.event.value or home(s.event.value["model"], TARGETS) == p:
                    want[f"{s.tp.topic}@id/{s.tp.partition}"].append(s.offset)
            for source, offset in ledger.rows:
                got[source].append(offset)
            wrong += [
                f"observations/{p}: rows of {s}: {_first_difference(want[s], got[s])}"
                for s in sorted(want.keys() | got.keys())
                if want[s] != got[s]
            ]
        return wrong

    def _wrong_totals(self, shards: list[Shard]) -> list[str]:
        """Totals and windows as plain Python finds them from what was sent."""
        oracle = Oracle(WINDOW)
        for shard in shards:
            shard.close()  # rows of the last moments are reduced too
        for s in self.sent:
            if s.event.topic != "lifecycle":
                oracle.take(s.event)
        found = summaries(dict(enumerate(shards)))
        return differences(
            "totals",
            oracle.expected(),
            {
                key: {
                    k: v
                    for k, v in of.items()
                    if k.split("/")[0] in {*METRICS, "predictions", "labels"}
                }
                for key, of in found.items()
            },
        )


def _first_difference(want: list[int], got: list[int]) -> str:
    at = next(i for i, (a, b) in enumerate(itertools.zip_longest(want, got)) if a != b)
    return f"{want[at : at + 3]} expected, {got[at : at + 3]} found, after {at} rows"
