"""
Events at a steady rate, from a process of its own that takes little: values are put together from
bytes that were encoded before.

Rule of the file: a prediction is one of `workload.py` with an id and a time of its own; its label,
without a model, comes `LABEL_DELAY_S` later. What was sent when is in `sent`, so that a count of
predictions says how far behind a worker is.
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import workload
from confluent_kafka import Producer

from stream_monitor.ingest import home

TEMPLATES = 4_000
LABEL_DELAY_S = 2.0
SLICE_S = 0.01
HISTORY_S = 0.05
OPTIONS = {
    "compression.type": "lz4",
    "linger.ms": 10,
    "batch.size": 262_144,
    "queue.buffering.max.messages": 500_000,
    "enable.idempotence": True,
}


def even(models: int, partitions: int = workload.PARTITIONS) -> list[str]:
    """
    Names of models, equally many on each partition of `observations`.

    Examples
    --------
    >>> even(4)
    ['model-2', 'model-8', 'model-0', 'model-1']
    """
    found: list[list[str]] = [[] for _ in range(partitions)]
    names = (f"model-{i}" for i in itertools.count())
    while min(map(len, found)) * partitions < models:
        name = next(names)
        found[home(name, partitions)].append(name)
    return [name for of in zip(*found, strict=False) for name in of][:models]


def templates(models: Sequence[str]) -> list[tuple[bytes, int]]:
    """Predictions without id and time, and what was predicted."""
    out = []
    for i, event in enumerate(workload.events(TEMPLATES)):
        rest = event.prediction.split(b'"version"', 1)[1]
        start = rest.index(b',"timestamp"')
        end = rest.index(b",", start + 1)
        value = b',"model":"%s","version"%s' % (
            models[i % len(models)].encode(),
            rest[:start] + rest[end:],
        )
        out.append((value, int(b'"prediction":1' in value)))
    return out


class Steady:
    """
    A process that sends.

    Parameters
    ----------
    bootstrap, prefix : str
    models : sequence of str
    fill : int
        Predictions that are sent first, as fast as possible, and never get a label.
    rate : float, events a second
    label_share : float
        Of the rate.
    """

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        models: Sequence[str],
        *,
        fill: int,
        rate: float,
        label_share: float,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.predictions, self.labels = context.Value("q", 0), context.Value("q", 0)
        self._done = context.Event()
        self.fill, self.rate, self.label_share = fill, rate, label_share
        work = Work(
            bootstrap,
            prefix,
            tuple(models),
            fill,
            rate,
            label_share,
            self.predictions,
            self.labels,
            self._done,
        )
        self.process = context.Process(target=send, args=(work,), daemon=True)
        self.times_s: list[float] = []
        self.counts: list[int] = []
        self.process.start()
        threading.Thread(target=self._remember, daemon=True).start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def _remember(self) -> None:
        while self.process.is_alive():
            n = self.predictions.value
            self.times_s.append(time.monotonic())
            self.counts.append(n)
            time.sleep(HISTORY_S)

    def behind_s(self, counted: float) -> float:
        """How long ago as many predictions had been sent as are counted now."""
        times, counts = self.times_s[:], self.counts[:]
        n = min(len(times), len(counts))
        at = bisect_left(counts, counted, 0, n)
        return time.monotonic() - times[at] if at < n else 0.0

    def stop(self) -> tuple[int, int]:
        """No more; the predictions and labels that were sent."""
        self._done.set()
        self.process.join(60)
        if self.process.exitcode != 0:
            raise RuntimeError(
                f"the sender ended with {self.process.exitcode}: what it sent is not known"
            )
        return self.predictions.value, self.labels.value


class Work(NamedTuple):
    """What the process is told, and what it tells."""

    bootstrap: str
    prefix: str
    models: tuple[str, ...]
    fill: int
    rate: float
    label_share: float
    predictions: Any
    labels: Any
    done: Any


class Events:
    """Predictions and labels by number, put together from `TEMPLATES` bodies and ids."""

    def __init__(self, producer: Producer, prefix: str, models: Sequence[str]) -> None:
        self.producer, self.prefix = producer, prefix
        bodies, rnd = templates(models), random.Random(11)
        self._ids = [
            b"%08x-%04x-4%03x-" % (rnd.getrandbits(32), rnd.getrandbits(16), rnd.getrandbits(12))
            for _ in range(TEMPLATES)
        ]
        self._bodies = [body for body, _ in bodies]
        self._answers = [
            predicted ^ (rnd.random() < workload.ERROR_RATE) for _, predicted in bodies
        ]

    def predict(self, k: int, now_ms: int) -> bytes:
        """Send prediction `k`; its id."""
        key = self._ids[k % TEMPLATES] + b"%04x-%012x" % (k & 0xFFFF, k)
        value = b'{"event_id":"%s","timestamp":%d' % (key, now_ms) + self._bodies[k % TEMPLATES]
        workload.send(self.producer, self.prefix + "predictions", value, key, now_ms)
        return key

    def label(self, k: int, key: bytes, now_ms: int) -> None:
        """Send the label of prediction `k`."""
        answer = self._answers[k % TEMPLATES]
        value = b'{"event_id":"%s","label":%d,"timestamp":%d}' % (key, answer, now_ms)
        workload.send(self.producer, self.prefix + "labels", value, key, now_ms)


def send(work: Work) -> None:
    """The work of the process."""
    producer = Producer({"bootstrap.servers": work.bootstrap, **OPTIONS})
    events = Events(producer, work.prefix, work.models)
    for k in range(work.fill):
        events.predict(k, int(time.time() * 1e3))
        if k % 1_000 == 999:
            producer.poll(0)
            work.predictions.value = k + 1
            if work.done.is_set():
                return
    producer.flush(120)
    work.predictions.value = work.fill
    at_rate(work, events)
    if producer.flush(60):
        raise TimeoutError("not every event could be produced within 60 s")


def at_rate(work: Work, events: Events) -> None:
    """Send predictions, and the labels of some of them later, until there shall be no more."""
    k, told, owed = work.fill, 0, 0.0
    predictions_a_second, per_prediction = (
        work.rate * (1 - work.label_share),
        work.label_share / (1 - work.label_share),
    )
    waiting: deque[tuple[float, int, bytes]] = deque()
    began = time.monotonic()
    while not work.done.is_set():
        now, now_ms = time.monotonic(), int(time.time() * 1e3)
        for _ in range(int((now - began) * predictions_a_second) - (k - work.fill)):
            key = events.predict(k, now_ms)
            owed += per_prediction
            if owed >= 1:
                owed -= 1
                waiting.append((now + LABEL_DELAY_S, k, key))
            k += 1
        while waiting and waiting[0][0] <= now:
            _, labelled, key = waiting.popleft()
            events.label(labelled, key, now_ms)
            told += 1
        events.producer.poll(0)
        work.predictions.value, work.labels.value = k, told
        time.sleep(max(0.0, now + SLICE_S - time.monotonic()))
