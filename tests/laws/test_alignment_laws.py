"""Sources are read in step, and none stands still for it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from aiokafka import TopicPartition

from stream_monitor.ingest import CHUNK_RECORDS, Ingest
from stream_monitor.stages.alignment import NEWS_S, SILENT_S, TOLD_MS, Alignment, Told

SKEW_MS, WAIT_S, PART = 1_000, 60.0, 100
NEVER = 1 << 62


def partitions(n: int, topic: str = "predictions") -> list[TopicPartition]:
    return [TopicPartition(topic, p) for p in range(n)]


class Reading:
    """
    A worker over logs of event times: in each turn it takes a part of one partition that need not
    wait.
    """

    def __init__(
        self,
        logs: dict[TopicPartition, list[int]],
        *,
        mine: list[TopicPartition] | None = None,
        ahead_rows: int = 1_000,
    ) -> None:
        self.logs, self.mine = logs, list(logs) if mine is None else mine
        self.at = dict.fromkeys(self.mine, 0)
        self.now_s = 0.0
        self.alignment = Alignment(SKEW_MS, WAIT_S, ahead_rows)
        self.alignment.begin({tp: (None, bool(logs[tp])) for tp in self.mine})
        self.order: list[tuple[TopicPartition, int]] = []

    def behind(self) -> set[TopicPartition]:
        return {tp for tp in self.mine if self.at[tp] < len(self.logs[tp])}

    def turn(
        self,
        choice: random.Random,
        *,
        silent: frozenset[TopicPartition] = frozenset(),
        step_s: float = 0.01,
    ) -> TopicPartition | None:
        self.now_s += step_s
        behind = self.behind()
        waiting = self.alignment.hold(self.now_s, behind, behind - silent)
        ready = sorted(behind - waiting - silent)
        if not ready:
            return None
        tp = choice.choice(ready)
        part = self.logs[tp][self.at[tp] : self.at[tp] + PART]
        self.at[tp] += len(part)
        self.order += [(tp, t) for t in part]
        self.alignment.take(tp, np.array(part, np.int64))
        return tp

    def told(self) -> dict[TopicPartition, Told]:
        return {
            tp: Told(self.alignment.time_of(tp), self.at[tp], self.at[tp] < len(self.logs[tp]))
            for tp in self.mine
        }


def dense(rows: int, step_ms: float, start_ms: int = 0) -> list[int]:
    return [start_ms + int(i * step_ms) for i in range(rows)]


@pytest.mark.parametrize("seed", range(20))
def test_no_partition_is_read_further_ahead_than_the_skew_and_a_part(seed: int) -> None:
    choice = random.Random(seed)
    logs = {
        tp: dense(choice.randrange(3_000), choice.choice([0.5, 5, 50]), choice.randrange(5_000))
        for tp in partitions(choice.randrange(2, 6))
    }
    reading = Reading(logs)
    while behind := reading.behind():
        before = {tp: reading.alignment.time_of(tp) for tp in logs}
        tp = reading.turn(choice)
        assert tp is not None, "what is slowest never waits"
        slowest = min(-NEVER if (of := before[other]) is None else of for other in behind)
        at = before[tp]
        assert at is None or at <= max(slowest, -NEVER) + SKEW_MS
    assert sorted(reading.order) == sorted((tp, t) for tp, log in logs.items() for t in log)


def test_what_is_at_its_end_holds_nobody() -> None:
    ended, live = partitions(2)
    reading = Reading({ended: dense(10, 1), live: dense(5_000, 1_000, 10**9)})
    choice = random.Random(1)
    while reading.behind():
        assert reading.turn(choice)
    assert reading.now_s < 2


def test_what_is_silent_holds_the_others_for_some_seconds_and_again_when_it_is_heard() -> None:
    silent, live = partitions(2)
    reading = Reading({silent: dense(1_000, 1), live: dense(20_000, 1, 10**6)})
    choice = random.Random(1)
    while reading.at[live] < 1_000:
        reading.turn(choice, silent=frozenset({silent}))
        assert reading.now_s < SILENT_S + 1
    while reading.at[silent] == 0:
        reading.turn(choice)
    at = reading.at[live]
    while reading.at[silent] < 1_000:
        assert reading.turn(choice) == silent
    assert reading.at[live] == at


def test_what_waits_in_a_queue_here_is_not_silent() -> None:
    queued, live = partitions(2)
    alignment = Alignment(SKEW_MS, WAIT_S, 1_000)
    alignment.begin({queued: (0, True), live: (10**6, True)})
    for second in range(int(3 * SILENT_S)):
        assert alignment.hold(float(second), {queued, live}, {queued, live}) == {live}


@pytest.mark.parametrize("day_ms", [86_400_000, -86_400_000])
def test_a_clock_that_is_wrong_by_a_day_costs_the_wait_once_and_the_others_stay_in_step(
    day_ms: int,
) -> None:
    """One partition is a day ahead, or behind, and never ends; the others are a backlog."""
    wrong, *right = partitions(4)
    rows = 200_000
    reading = Reading(
        {
            wrong: dense(rows, 1, 2 * 86_400_000 + day_ms),
            **{tp: dense(rows, 1, 2 * 86_400_000) for tp in right},
        }
    )
    choice = random.Random(3)
    stood_s: dict[TopicPartition, float] = dict.fromkeys(reading.mine, 0.0)
    last_s = dict.fromkeys(reading.mine, 0.0)
    for _ in range(2_000):
        tp = reading.turn(choice, step_s=0.1)
        if tp is not None:
            stood_s[tp] = max(stood_s[tp], reading.now_s - last_s[tp])
            last_s[tp] = reading.now_s
        times = [t for other in right if (t := reading.alignment.time_of(other)) is not None]
        assert max(times, default=0) - min(times, default=0) <= SKEW_MS + 2 * PART
    assert all(reading.at[tp] > 0 for tp in reading.mine)
    assert max(stood_s.values()) <= WAIT_S + 5


def test_single_records_of_a_clock_that_is_ahead_move_nothing() -> None:
    one, other = partitions(2)
    times = dense(3_000, 1)
    odd = [NEVER if i % 3 == 0 else t for i, t in enumerate(times)]
    reading = Reading({one: odd, other: times})
    choice = random.Random(2)
    while reading.behind():
        assert reading.turn(choice) is not None
    assert reading.now_s < 1


@pytest.mark.parametrize("seed", range(10))
def test_workers_that_own_one_topic_each_stay_in_step(seed: int) -> None:
    """
    Each knows of the other what it committed a while ago; neither stands still, and few rows wait
    for the other kind.
    """
    choice = random.Random(seed)
    rows, step_ms, ahead = 40_000, choice.choice([1.0, 20.0, 1_000.0]), 4_000
    logs = {
        tp: dense(rows, step_ms)
        for topic in ("predictions", "labels")
        for tp in partitions(2, topic)
    }
    workers = [
        Reading(logs, mine=[tp for tp in logs if tp.topic == topic], ahead_rows=ahead)
        for topic in ("predictions", "labels")
    ]
    speed = choice.choice([1, 3, 10])
    turn = farthest = 0
    while any(w.behind() for w in workers):
        turn += 1
        if turn % 20 == 0:  # a commit and a question
            told = [w.told() for w in workers]
            workers[0].alignment.tell(told[1])
            workers[1].alignment.tell(told[0])
        workers[0].turn(choice)
        if turn % speed == 0:
            workers[1].turn(choice)
        farthest = max(farthest, abs(sum(workers[0].at.values()) - sum(workers[1].at.values())))
        assert turn < 200 * rows / PART
    window_rows = 2 * (SKEW_MS + TOLD_MS) / step_ms
    assert farthest <= ahead + window_rows + 20 * PART + 4 * PART
    assert max(w.now_s for w in workers) < WAIT_S or speed > 1


@pytest.mark.parametrize("told", [None, False])
def test_what_is_known_of_others_is_worth_some_rows_and_no_more(told: bool | None) -> None:
    """
    They had nothing to read, or were not heard yet; what has come for them since is not run away
    from.
    """
    mine, theirs = partitions(2)
    reading = Reading({mine: dense(50_000, 1), theirs: []}, mine=[mine], ahead_rows=2_000)
    reading.alignment.begin({mine: (None, True)}, shared=True)
    if told is not None:
        reading.alignment.tell({theirs: Told(0, 0, told)})
    choice = random.Random(1)
    for _ in range(int(NEWS_S / 0.01) - 10):
        reading.turn(choice)
    assert reading.at[mine] <= 1_000 + PART
    reading.alignment.tell({theirs: Told(0, 7, behind=False)})
    assert reading.turn(choice) == mine
    while reading.behind():  # nobody answers any more: no reason to stand still for good
        reading.turn(choice)
    assert reading.now_s < 2 * NEWS_S * 50_000 / 1_000


def test_a_worker_that_is_gone_holds_nobody() -> None:
    mine, gone = partitions(2)
    reading = Reading({mine: dense(100_000, 1_000), gone: []}, mine=[mine])
    reading.alignment.tell({gone: Told(0, 7, behind=True)})
    choice = random.Random(1)
    while reading.behind():
        reading.turn(choice, step_s=0.1)
    assert reading.now_s < 100_000 / PART * 0.1 + 2 * SILENT_S + 1


def test_nothing_waits_where_it_is_switched_off() -> None:
    slow, fast = partitions(2)
    alignment = Alignment(None, WAIT_S, 1_000)
    alignment.begin({slow: (0, True), fast: (10**9, True)})
    assert alignment.hold(1.0, {slow, fast}, set()) == set()


@pytest.mark.parametrize("rows", [1, CHUNK_RECORDS, 3 * CHUNK_RECORDS + 7])
def test_every_row_of_a_delivery_is_told_whatever_its_size(rows: int) -> None:
    """What is not told may be read ahead of other workers without bound."""
    times_ms = [1_760_000_000_000 + i for i in range(rows)]
    ingest = Ingest(2)
    for _ in range(2):  # the second does not tell of the first
        values = [
            f'{{"event_id": "{t}", "model": "m", "prediction": 1, "timestamp": {t}}}'.encode()
            for t in times_ms
        ]
        assert ingest.take("s", "predictions", values, np.arange(rows), np.array(times_ms)) == []
        assert np.concatenate(ingest.newest_ms["s"]).tolist() == times_ms
