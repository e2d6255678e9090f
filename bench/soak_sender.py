"""
What `soak.py` sends, from a process of its own: good events of a few models, and a share of odd
records of every kind among them.

Rule of the file: every record is counted under what must become of it (`OUTCOMES`), so that nothing
can be lost or counted twice unseen. Odd records never name a good model.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import odd_records
import workload
from confluent_kafka import Producer
from steady import LABEL_DELAY_S, OPTIONS, SLICE_S, TEMPLATES, templates

from stream_monitor.schema import REJECT_REASONS

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
GOOD, ACCEPTED, EITHER, TOMBSTONE, ABORTED = "good", "accepted", "either", "tombstone", "aborted"
"""`accepted`: odd, but an event; `either`: mutilated, it may be one still."""
OUTCOMES = (GOOD, ACCEPTED, EITHER, TOMBSTONE, ABORTED, *REJECT_REASONS)
HEAVY_BYTES, HEAVY_S = 50_000, 1.0
"""Odd records of this size are sent once in so many seconds; the others at random."""
TRANSACTION_S, TRANSACTION_RECORDS = 5.0, 50
MUTILATED = 2_000
Odd = tuple[str, str, dict[str, Any]]
"""Topic, outcome, and what is given to `produce`."""


def cases() -> Iterator[Odd]:
    """Every single odd record, for both topics."""
    for topic, of in (("predictions", odd_records.CASES), ("labels", odd_records.LABELS)):
        for case in of.values():
            yield (
                topic,
                case.reason or ACCEPTED,
                case.record if isinstance(case.record, dict) else {"value": case.record},
            )


class Odds:
    """Odd records without end, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.heavy = [odd for odd in cases() if len(odd[2]["value"]) >= HEAVY_BYTES]
        self.single = [odd for odd in cases() if len(odd[2]["value"]) < HEAVY_BYTES]
        whole = [
            odd_records.event(f"whole-{i}", features=odd_records.GOOD_FEATURES) for i in range(20)
        ]
        self.mutilated = [
            odd_records.mutilated(self.random.choice(whole), self.random) for _ in range(MUTILATED)
        ]
        self.n = 0

    def next(self) -> Odd:
        """One of them: half from the list, the others new each time."""
        self.n += 1
        kind = self.random.random()
        if kind < 0.5:
            return self.random.choice(self.single)
        if kind < 0.65:
            return "predictions", ACCEPTED, {"value": next(odd_records.flood(1, self.n))}
        if kind < 0.8:
            return "predictions", EITHER, {"value": self.random.choice(self.mutilated)}
        if kind < 0.85:
            clock = self.random.randrange(odd_records.EARLIEST_MS, int(time.time() * 1e3))
            return (
                "predictions",
                ACCEPTED,
                {"value": odd_records.event(f"clock-{self.n}", timestamp=clock)},
            )
        if kind < 0.95:
            return "labels", ACCEPTED, {"value": b'{"event_id":"orphan-%d","label":1}' % self.n}
        return self.random.choice(["predictions", "labels"]), TOMBSTONE, {"value": None}


class Sender:
    """
    A process that sends until it is told to stop.

    Parameters
    ----------
    bootstrap, prefix : str
    models : sequence of str
        The good ones.
    rate : float, events a second
    odd_share, label_share : float
        Of the rate.
    """

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        models: Sequence[str],
        *,
        rate: float,
        odd_share: float,
        label_share: float,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._sent = context.Array("q", 2 * len(OUTCOMES))
        self._done = context.Event()
        self.process = context.Process(
            target=_run,
            args=(
                bootstrap,
                prefix,
                tuple(models),
                (rate, odd_share, label_share),
                self._sent,
                self._done,
            ),
            daemon=True,
        )
        self.process.start()

    def sent(self) -> Counter[tuple[str, str]]:
        """Records by topic and outcome."""
        return Counter(
            {
                (topic, outcome): n
                for (topic, outcome), n in zip(_places(), self._sent[:], strict=True)
                if n
            }
        )

    def stop(self) -> Counter[tuple[str, str]]:
        """No more; what was sent and acknowledged."""
        self._done.set()
        self.process.join(90)
        if self.process.exitcode != 0:
            raise RuntimeError(
                f"the sender ended with {self.process.exitcode}: what it sent is not known"
            )
        return self.sent()


def _places() -> list[tuple[str, str]]:
    return [(topic, outcome) for topic in workload.INPUTS for outcome in OUTCOMES]


class Source:
    """The producers of the process, one a codec, and what they were given."""

    def __init__(self, bootstrap: str, prefix: str, models: Sequence[str]) -> None:
        common = {**OPTIONS, "bootstrap.servers": bootstrap, "log_level": 3}
        self.producers = [Producer({**common, "compression.type": codec}) for codec in CODECS]
        self.transactional = Producer(
            {**common, "transactional.id": f"{prefix}soak", "transaction.timeout.ms": 20_000}
        )
        self.transactional.init_transactions(30)
        self.topics = {topic: prefix + topic for topic in workload.INPUTS}
        self.bodies, self.odds, self.transactions = templates(models), Odds(5), 0
        self.counts: Counter[tuple[str, str]] = Counter()
        self.answers = [
            predicted ^ (self.odds.random.random() < workload.ERROR_RATE)
            for _, predicted in self.bodies
        ]
        self.waiting: deque[tuple[float, bytes, int]] = deque()
        self.good = 0
        self.turn = 0

    def predict(self, n: int, now: float, now_ms: int, label_share: float) -> None:
        """Good predictions, some of which get a label later."""
        producer, topic = self.producers[self.turn % len(CODECS)], self.topics["predictions"]
        every = max(round((1 - label_share) / label_share), 1) if label_share else 0
        for k in range(self.good, self.good + n):
            key = b"%016x" % k
            workload.send(
                producer,
                topic,
                b'{"event_id":"%s","timestamp":%d' % (key, now_ms) + self.bodies[k % TEMPLATES][0],
                key,
                now_ms,
            )
            if every and k % every == 0:
                self.waiting.append((now + LABEL_DELAY_S, key, self.answers[k % TEMPLATES]))
        self.good += n
        self.counts["predictions", GOOD] += n

    def tell(self, now: float, now_ms: int) -> None:
        """Labels that are due."""
        producer, topic = self.producers[self.turn % len(CODECS)], self.topics["labels"]
        while self.waiting and self.waiting[0][0] <= now:
            _, key, answer = self.waiting.popleft()
            workload.send(
                producer,
                topic,
                b'{"event_id":"%s","label":%d,"timestamp":%d}' % (key, answer, now_ms),
                key,
                now_ms,
            )
            self.counts["labels", GOOD] += 1

    def be_odd(self, odd: Odd) -> None:
        topic, outcome, record = odd
        producer = self.producers[self.odds.n % len(CODECS)]
        while True:
            try:
                producer.produce(self.topics[topic], **{"key": b"%d" % self.odds.n, **record})
            except BufferError:
                producer.poll(0.1)
            else:
                break
        self.counts[topic, outcome] += 1

    def transact(self) -> None:
        """
        A small transaction, every other of which is aborted: what lies behind it waits for its end.
        """
        self.transactions += 1
        self.transactional.begin_transaction()
        for i in range(TRANSACTION_RECORDS):
            self.transactional.produce(
                self.topics["predictions"],
                odd_records.event(f"transaction-{self.transactions}-{i}"),
            )
        self.transactional.flush(30)
        (
            self.transactional.abort_transaction
            if self.transactions % 2
            else self.transactional.commit_transaction
        )(30)
        self.counts["predictions", ABORTED if self.transactions % 2 else ACCEPTED] += (
            TRANSACTION_RECORDS
        )

    def flush(self) -> None:
        for producer in self.producers:
            producer.poll(0)
            if producer.flush(30):
                raise TimeoutError("not every record could be produced within 30 s")


def _run(
    bootstrap: str,
    prefix: str,
    models: tuple[str, ...],
    pace: tuple[float, float, float],
    sent: Any,
    done: Any,
) -> None:
    """The work of the process."""
    rate, odd_share, label_share = pace
    source = Source(bootstrap, prefix, models)
    began, odd_n, heavy_n = time.monotonic(), 0, 0
    per_s = rate * (1 - odd_share - label_share)
    while not done.is_set():
        now, now_ms = time.monotonic(), int(time.time() * 1e3)
        source.turn += 1
        source.predict(
            int((now - began) * per_s) - source.good, now, now_ms, label_share / (1 - odd_share)
        )
        source.tell(now, now_ms)
        for _ in range(int((now - began) * rate * odd_share) - odd_n):
            source.be_odd(source.odds.next())
            odd_n += 1
        if now - began > heavy_n * HEAVY_S:
            for heavy in source.odds.heavy:
                source.be_odd(heavy)
            heavy_n += 1
        if now - began > source.transactions * TRANSACTION_S:
            source.transact()
        for producer in source.producers:
            producer.poll(0)
        sent[:] = [source.counts[place] for place in _places()]
        time.sleep(max(0.0, now + SLICE_S - time.monotonic()))
    source.flush()
    sent[:] = [source.counts[place] for place in _places()]
