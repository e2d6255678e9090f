"""Laws of the join: equal to taking rows one by one, independent of cutting; the final labels do not depend on the order of labels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.events.join import ANY, WAITING, Join, LabelRows, Predictions

VERSIONS = [0, 0, 1]  # model of each version
DELAY = 50 << 4


@dataclass
class Oracle:
    """The join as a person would write it: dictionaries, one row at a time."""

    predictions: dict[tuple[int, int], tuple[int, float]] = field(default_factory=dict)
    labels: list[tuple[int, int, int, tuple[int, int, int], float, int]] = field(default_factory=list)
    won: dict[tuple[int, int], tuple[tuple[int, int, int], float]] = field(default_factory=dict)
    duplicates: int = 0
    events: list[tuple[int, int, float, bool]] = field(default_factory=list)

    def prediction(self, event: int, version: int, now: int) -> None:
        if (event, version) in self.predictions and self.predictions[event, version][0] + DELAY >= now:
            self.duplicates += 1
            return
        self.predictions[event, version] = (now, 0.0)
        self.won.pop((event, version), None)
        fitting = [(key, value) for i, m, v, key, value, at in self.labels if i == event and m in (ANY, VERSIONS[version]) and v in (ANY, version) and at + DELAY >= now]
        if fitting:
            key, value = max(fitting)
            self.won[event, version] = (key, value)
            self.events.append((event, version, value, False))

    def label(self, event: int, model: int, version: int, key: tuple[int, int, int], value: float, now: int) -> None:
        self.labels.append((event, model, version, key, value, now))
        for (i, v), (at, _) in sorted(self.predictions.items()):
            if i != event or at + DELAY < now or model not in (ANY, VERSIONS[v]) or version not in (ANY, v):
                continue
            had = self.won.get((i, v))
            if had is None:
                self.won[i, v] = (key, value)
                self.events.append((i, v, value, False))
            elif key > had[0]:
                self.won[i, v] = (key, value)
                if value != had[1]:
                    self.events.append((i, v, value, True))


def without_predictions(n: int) -> tuple[np.ndarray, ...]:
    return np.full(n, ANY), np.full(n, np.nan), np.full(n, np.nan), np.empty((n, 0))


def no_labels() -> LabelRows:
    empty = np.empty(0, np.int64)
    return LabelRows(empty, empty.astype(np.uint64), empty, empty, empty.astype(np.float64), empty, empty, empty, *without_predictions(0))


row = st.tuples(st.booleans(), st.integers(1, 5), st.sampled_from([ANY, 0, 1, 2]), st.integers(0, 3), st.sampled_from([0.0, 1.0]))


def run(rows: list[tuple[bool, int, int, int, float]], cuts: list[int], clock: list[int]) -> tuple[Join, list[tuple[int, int, float, bool]], int]:
    join = Join(10_000)
    for code, model in enumerate(VERSIONS):
        join.register(code, model, DELAY)
    events: list[tuple[int, int, float, bool]] = []
    duplicates = 0
    bounds = sorted({0, len(rows), *(c % (len(rows) + 1) for c in cuts)})
    for start, end in itertools.pairwise(bounds):
        p = [(i, r) for i, r in enumerate(rows[start:end]) if r[0]]
        q = [(i, r, start + i) for i, r in enumerate(rows[start:end]) if not r[0]]
        n = len(p)
        predictions = Predictions(
            np.array([i for i, _ in p], np.int64),
            np.array([r[1] for _, r in p], np.uint64),
            np.zeros(n, np.int64),
            np.array([max(r[2], 0) for _, r in p], np.int64),
            np.ones(n),
            np.ones(n),
            np.zeros(n, np.int64),
            np.empty((n, 0)),
            np.zeros(n, bool),
        )
        labels = LabelRows(
            np.array([i for i, _, _ in q], np.int64),
            np.array([r[1] for _, r, _ in q], np.uint64),
            np.array([ANY if r[2] == ANY else VERSIONS[r[2]] for _, r, _ in q], np.int64),
            np.array([r[2] for _, r, _ in q], np.int64),
            np.array([r[4] for _, r, _ in q], np.float64),
            np.array([r[3] for _, r, _ in q], np.int64),
            np.zeros(len(q), np.int64),
            np.array([o for _, _, o in q], np.int64),
            *without_predictions(len(q)),
        )
        joined = join.apply(predictions, labels, clock[0])
        duplicates += int(joined.duplicate.sum())
        found = sorted(
            (int(part.row[i]), int(part.id[i]), int(part.version[i]), float(part.label[i]), bool(part.corrected[i])) for part in joined.pairs for i in range(len(part.row))
        )
        events += [(i, v, value, corrected) for _, i, v, value, corrected in found]
    return join, events, duplicates


def oracle_of(rows: list[tuple[bool, int, int, int, float]]) -> Oracle:
    oracle = Oracle()
    for offset, (prediction, event, version, time, value) in enumerate(rows):
        if prediction:
            oracle.prediction(event, max(version, 0), 0)
        else:
            oracle.label(event, ANY if version == ANY else VERSIONS[version], version, (time, 0, offset), value, 0)
    return oracle


@settings(max_examples=300, deadline=None)
@given(st.lists(row, max_size=40), st.lists(st.integers(0, 100), max_size=6))
def test_equal_to_one_row_at_a_time_however_it_is_cut(rows: list[tuple[bool, int, int, int, float]], cuts: list[int]) -> None:
    oracle = oracle_of(rows)
    join, events, duplicates = run(rows, cuts, [0])
    assert duplicates == oracle.duplicates
    assert events == oracle.events
    labelled = int(sum(join.predictions.rows("label", join.predictions.tail, join.predictions.head) != WAITING))
    assert labelled == len(oracle.won)
    assert int(join.pending.sum()) == len(join.predictions) - labelled


@settings(max_examples=100, deadline=None)
@given(st.lists(row, max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_labels_does_not_matter(rows: list[tuple[bool, int, int, int, float]], random: object) -> None:
    predictions = [r for r in rows if r[0]]
    labels = [(False, r[1], r[2], i, r[4]) for i, r in enumerate(r for r in rows if not r[0])]  # distinct times
    mixed = predictions + labels
    random.shuffle(mixed)  # type: ignore[attr-defined]

    def final(join: Join) -> dict[tuple[int, int], float]:
        ring = join.predictions
        seqs = np.arange(ring.tail, ring.head)
        had = join._label_of(seqs)
        return {(int(i), int(v)): float(join.labels.get("label", np.array([s]))[0]) for i, v, s in zip(ring.get("id", seqs), ring.get("version", seqs), had, strict=True) if s >= 0}

    assert final(run(mixed, [], [0])[0]) == final(run(predictions + labels, [7], [0])[0])


@settings(max_examples=50, deadline=None)
@given(st.lists(row, max_size=40), st.lists(row, max_size=20))
def test_restoring_a_snapshot_is_invisible(before: list[tuple[bool, int, int, int, float]], after: list[tuple[bool, int, int, int, float]]) -> None:
    oracle = oracle_of(before + after)
    join, events, _ = run(before, [], [0])
    state = join.state()
    restored = Join.from_state(10_000, 0, state, {"predictions": {}, "labels": {}})
    assert restored.state() == state
    assert len(events) <= len(oracle.events)


def test_a_million_rows_leave_only_the_limit_and_counts_of_the_rest() -> None:
    join = Join(5_000)
    join.register(0, 0, 10**9)
    none = no_labels()
    n = 20_000
    for k in range(10):
        ids = np.arange(k * n + 1, (k + 1) * n + 1).astype(np.uint64)
        rows = Predictions(np.arange(n), ids, np.arange(n), np.zeros(n, np.int64), np.ones(n), np.ones(n), np.zeros(n, np.int64), np.empty((n, 0)), np.zeros(n, bool))
        join.apply(rows, none, k)
    assert len(join.predictions) == 5_000
    assert join.evicted.tolist() == [195_000]
    assert join.pending.tolist() == [5_000]
    assert len(join.predictions.column["id"]) <= 32_768


def test_waiting_ends_with_the_delay_of_the_model() -> None:
    join = Join(1_000)
    join.register(0, 0, 160)
    join.register(1, 1, 1_600)
    ids = np.array([1, 2], np.uint64)
    none = no_labels()
    join.apply(Predictions(np.arange(2), ids, np.zeros(2, np.int64), np.array([0, 1]), np.ones(2), np.ones(2), np.zeros(2, np.int64), np.empty((2, 0)), np.zeros(2, bool)), none, 0)
    join.expire(176)
    assert join.expired.tolist() == [1, 0]
    assert join.pending.tolist() == [0, 1]
    join.expire(1_616)
    assert join.expired.tolist() == [1, 1]
    assert len(join.predictions) == 0
