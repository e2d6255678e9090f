"""
Whole experiments as the worker folds them, for `experiments.py`: a story in, verdicts out.

Rule of the file: `told` gives columns to `Experiments`, which is the worker's own fold of calls,
labels, maturity, phases and verdicts; only the log and the join before it are left out, because
they cost a hundred times as much. `told_by_log` is the whole way: JSON events through INGEST into
records, and these through a `Shard`. Both must tell the same verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from experiment_stories import DAY_MS, KEEP_DAYS, START_MS, Story
from experiment_worker import keys

from stream_monitor.evaluate import TICK_MS, Shard
from stream_monitor.events.cells import TEXT, boxed
from stream_monitor.experiments.inbox import Record
from stream_monitor.experiments.registry import Experiments
from stream_monitor.experiments.telling import VERDICT
from stream_monitor.ingest import Ingest, tick
from stream_monitor.join.rows import Joined, Pairs, Predictions
from stream_monitor.monitors.rows import Rows
from stream_monitor.settings import CoreSettings, Labels, ModelSettings

ARMS = ["control", "b", "c"]
COLUMNS = ("unit", "variant", "latency_ms")
KEEP_MS = (KEEP_DAYS + 1) * DAY_MS
CALLS_MAX = 500_000
TOPICS = ("lifecycle", "predictions", "labels")
EVENT, CALL, LABEL = range(3)


class Of(NamedTuple):
    """The version of all calls, as far as experiments ask for it."""

    model: str = "m"
    name: str = "1"
    settings: ModelSettings = ModelSettings()


class Part(NamedTuple):
    """Calls of a record."""

    rows: Rows
    version: np.ndarray
    failed: np.ndarray


class Flush(NamedTuple):
    """What came until a look, in the order of the log: kind of each row, and which one it is."""

    end_ms: int
    time_ms: np.ndarray
    kind: np.ndarray
    which: np.ndarray


Verdict = dict[str, Any]


def is_verdict(event: Verdict) -> bool:
    """Whether an event is a verdict, and not the numbers between verdicts."""
    return bool(event["type"] == VERDICT)


def flushes(story: Story) -> Iterator[Flush]:
    """The rows of a story, cut at the times of looks."""
    parts = [np.array([at for at, _ in story.events]), story.calls.time_ms, story.labels.time_ms]
    times = np.concatenate(parts)
    kind = np.repeat((EVENT, CALL, LABEL), [len(p) for p in parts])
    which = np.concatenate([np.arange(len(p)) for p in parts])
    order = np.argsort(times, kind="stable")
    times, kind, which = times[order], kind[order], which[order]
    flush = (times - START_MS) // story.flush_ms
    starts = np.flatnonzero(np.diff(flush, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(times)), strict=True):
        end_ms = START_MS + (int(flush[start]) + 1) * story.flush_ms
        yield Flush(end_ms, times[start:end], kind[start:end], which[start:end])


def told(story: Story, *, until: tuple[str, ...] = ()) -> list[Verdict]:
    """The verdicts of a story, up to the first one of those named in `until`."""
    experiments = Experiments(CALLS_MAX, lambda _: KEEP_MS)
    found: list[Verdict] = []
    before_ms = 0
    for part in flushes(story):
        # a `Shard` ticks when log time has come into another second, before it takes the rows
        if (now_ms := int(part.time_ms[0])) // TICK_MS != before_ms // TICK_MS:
            found += [json.loads(out.value) for out in experiments.tick(now_ms, 0)]
        before_ms = part.end_ms
        if any(is_verdict(v) and v["verdict"] in until for v in found):
            return found
        events = [
            (place, json.dumps(story.events[part.which[place]][1]))
            for place in np.flatnonzero(part.kind == EVENT).tolist()
        ]
        experiments.fold(record_of(story, part), events)
    last = experiments.tick(before_ms + story.flush_ms, 0)
    return found + [json.loads(out.value) for out in last]


def record_of(story: Story, part: Flush) -> Record:
    """The rows of a flush as they come out of the join."""
    row = np.flatnonzero(part.kind == CALL)
    call = part.which[row]
    c = story.calls
    n = len(call)
    arm = np.array([boxed(TEXT, i) for i in range(len(ARMS))])[c.arm[call]]
    cells = np.array([keys(c.unit[call]).astype(np.float64), arm, c.latency_ms[call]])
    none, nan = np.zeros(n, np.int64), np.full(n, np.nan)
    answered = np.where(c.failed[call], np.nan, c.prediction[call])
    no_scores = np.empty((n, 0))
    predictions = Predictions(
        row, ids(call), c.time_ms[call], none, answered, nan, none, no_scores, c.failed[call]
    )
    parts = [Part(Rows(COLUMNS, cells, c.time_ms[call], ARMS), none, c.failed[call])]
    pairs = [pairs_of(story, part)]
    return Record(
        parts if n else [],
        predictions,
        Joined(np.zeros(n, bool), pairs if len(pairs[0].row) else [], {}),
        part.time_ms,
        [Of()],  # type: ignore[list-item]  # experiments ask for no other attributes
        ARMS,
    )


def pairs_of(story: Story, part: Flush) -> Pairs:
    """Labels of a flush with their calls."""
    row = np.flatnonzero(part.kind == LABEL)
    label = part.which[row]
    call = story.labels.call[label]
    n = len(row)
    none, nan = np.zeros(n, np.int64), np.full(n, np.nan)
    return Pairs(
        row=row,
        version=none,
        id=ids(call),
        time=story.calls.time_ms[call],
        outcome=story.calls.prediction[call].astype(np.float64),
        score=nan,
        segment=none,
        probabilities=np.empty((n, 0)),
        label=story.labels.label[label].astype(np.float64),
        label_time=story.labels.time_ms[label],
        previous=nan,
        corrected=np.zeros(n, bool),
        origin=np.arange(n),
    )


def ids(call: np.ndarray) -> np.ndarray:
    """Hashes of calls."""
    return (call.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)


def told_by_log(story: Story) -> list[Verdict]:
    """The verdicts of a story whose events go through INGEST and a `Shard`."""
    settings = CoreSettings(defaults=ModelSettings(labels=Labels(max_delay_ms=KEEP_MS)))
    shard, ingest = Shard(0, settings, confirm_ms=0), Ingest(1)
    offsets = [0, 0, 0]
    for part in flushes(story):
        firsts, came = list(offsets), [part.time_ms[part.kind == kind] for kind in range(3)]
        ends = np.append(np.flatnonzero(np.diff(part.kind)) + 1, len(part.kind)).tolist()
        for start, end in zip([0, *ends], ends, strict=False):
            kind = int(part.kind[start])
            values = [_json(story, kind, i) for i in part.which[start:end].tolist()]
            at = offsets[kind] + np.arange(len(values))
            source = f"{TOPICS[kind]}@t/0"
            assert not ingest.take(source, TOPICS[kind], values, at, part.time_ms[start:end])
            offsets[kind] += len(values)
        arrivals = {
            f"{topic}@t/0": (firsts[kind], came[kind])
            for kind, topic in enumerate(TOPICS)
            if len(came[kind])
        }
        for record in ingest.flush(part.end_ms, arrivals)[0]:
            shard.fold(record, arrivals=arrivals)
    shard.fold(tick(part.end_ms + story.flush_ms))
    return [json.loads(out.value) for out in shard.outbox if out.topic == "lifecycle"]


def _json(story: Story, kind: int, i: int) -> bytes:
    if kind == EVENT:
        at, event = story.events[i]
        return json.dumps({**event, "timestamp": at}).encode()
    if kind == LABEL:
        label = {"event_id": f"e-{story.labels.call[i]}", "label": int(story.labels.label[i])}
        return json.dumps({**label, "timestamp": int(story.labels.time_ms[i])}).encode()
    c = story.calls
    call: dict[str, Any] = {
        "event_id": f"e-{i}",
        "model": "m",
        "version": "1",
        "variant": ARMS[c.arm[i]],
        "unit": f"user-{c.unit[i]}",
        "timestamp": int(c.time_ms[i]),
    }
    if c.latency_ms[i] == c.latency_ms[i]:
        call["latency_ms"] = float(c.latency_ms[i])
    answer = {"status": "error"} if c.failed[i] else {"prediction": int(c.prediction[i])}
    return json.dumps(call | answer).encode()
