"""
Laws of the join: equal to taking rows one by one, independent of cutting; the final labels do not
depend on the order of labels.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.join.join import Join
from stream_monitor.join.ring_snapshot import full_slabs, slab
from stream_monitor.join.rows import LabelRows, Predictions
from stream_monitor.join.store import ANY, SERVED, StoreForm
from stream_monitor.state import decode, encode

VERSIONS = [0, 0, 1]  # model of each version
NAMELESS = {
    0: 0,
    1: 2,
}  # the version of each model that a label means with its own prediction when it names none
DELAY = 50 << 4
LATER = 30 << 4
"""Two such steps are longer than the delay, one is not."""


class Row(NamedTuple):
    """
    A prediction, a failed call, or a label for (model, version); `time` is the label's, `outcome`
    what a label brings along.
    """

    kind: str
    event: int
    model: int
    version: int
    time: int
    value: float
    outcome: float | None = None
    later: bool = False
    """Log time goes on before it."""


@dataclass
class Oracle:
    """The join as a person would write it: dictionaries, one row at a time."""

    predictions: dict[tuple[int, int], tuple[int, float, bool]] = field(default_factory=dict)
    """Arrival, outcome, and whether a label brought it along."""
    failures: dict[tuple[int, int], int] = field(default_factory=dict)
    labels: list[tuple[int, int, int, tuple[int, int, int], float, int]] = field(
        default_factory=list
    )
    won: dict[tuple[int, int], tuple[tuple[int, int, int], float, int]] = field(
        default_factory=dict
    )
    """The label of each prediction: by what it wins, its value, its arrival."""
    duplicates: int = 0
    served: int = 0
    """
    Predictions that wait for a label or have got one, those that labels brought along included.
    """
    events: list[tuple[int, int, float, float, bool]] = field(default_factory=list)

    def failure(self, event: int, version: int, now: int) -> None:
        if (event, version) in self.failures and self.failures[event, version] + DELAY >= now:
            self.duplicates += 1
        else:
            self.failures[event, version] = now

    def prediction(self, event: int, version: int, outcome: float, now: int) -> None:
        at, had, stands_in = self.predictions.get((event, version), (-DELAY - 1, 0.0, False))
        if at + DELAY >= now:
            self.duplicates += not stands_in
            # one that comes after its stand-in is counted, and judged no second time
            self.predictions[event, version] = (
                at,
                had,
                False,
            )
            return
        self._add(event, version, outcome, now, stands_in=False)
        fitting = [
            (key, value, at)
            for i, m, v, key, value, at in self.labels
            if i == event
            and m in (ANY, VERSIONS[version])
            and v in (ANY, version)
            and at + DELAY >= now
        ]
        if fitting:
            self._pair(event, version, max(fitting))

    def label(
        self,
        event: int,
        model: int,
        version: int,
        key: tuple[int, int, int],
        value: float,
        outcome: float | None,
        now: int,
    ) -> None:
        self.labels.append((event, model, version, key, value, now))
        met = False
        for (i, v), (at, predicted, _) in sorted(self.predictions.items()):
            if (
                i != event
                or at + DELAY < now
                or model not in (ANY, VERSIONS[v])
                or version not in (ANY, v)
            ):
                continue
            met = True
            had = self.won.get((i, v))
            if had is None:
                self._pair(i, v, (key, value, now))
            elif key > had[0] and had[2] + DELAY >= now:  # one that is forgotten stays
                self.won[i, v] = (key, value, now)
                if value != had[1]:
                    self.events.append((i, v, predicted, value, True))
        if outcome is not None and model != ANY and not met:
            own = NAMELESS[model] if version == ANY else version
            self._add(event, own, outcome, now, stands_in=True)
            self._pair(event, own, (key, value, now))

    def _add(self, event: int, version: int, outcome: float, now: int, *, stands_in: bool) -> None:
        self.predictions[event, version] = (now, outcome, stands_in)
        self.won.pop((event, version), None)
        self.served += 1

    def _pair(
        self, event: int, version: int, label: tuple[tuple[int, int, int], float, int]
    ) -> None:
        self.won[event, version] = label
        self.events.append((event, version, self.predictions[event, version][1], label[1], False))

    @property
    def labelled(self) -> int:
        return sum(not corrected for *_, corrected in self.events)


values = st.sampled_from([0.0, 1.0])
events = st.integers(1, 4)
later = st.sampled_from([False, False, False, True])
rows = st.one_of(
    st.builds(
        lambda kind, e, v, value, later: Row(kind, e, VERSIONS[v], v, 0, value, None, later),
        st.sampled_from(["served", "served", "failed"]),
        events,
        st.integers(0, 2),
        values,
        later,
    ),
    st.builds(
        lambda e, target, time, value, outcome, later: Row(
            "label", e, target[0], target[1], time, value, outcome, later
        ),
        events,
        st.sampled_from(
            [(ANY, ANY), (0, ANY), (1, ANY), *((model, v) for v, model in enumerate(VERSIONS))]
        ),
        st.integers(0, 3),
        values,
        st.none() | values,
        later,
    ),
)


def predictions_of(part: list[tuple[int, Row]]) -> Predictions:
    n = len(part)
    return Predictions(
        row=np.array([i for i, _ in part], np.int64),
        id=np.array([r.event for _, r in part], np.uint64),
        time=np.zeros(n, np.int64),
        version=np.array([r.version for _, r in part], np.int64),
        outcome=np.array([r.value for _, r in part], np.float64),
        score=np.ones(n),
        segment=np.zeros(n, np.int64),
        probabilities=np.empty((n, 0)),
        failed=np.array([r.kind == "failed" for _, r in part], bool),
    )


def labels_of(part: list[tuple[int, Row]], start: int) -> LabelRows:
    def own(r: Row) -> int:
        return (
            ANY
            if r.outcome is None or r.model == ANY
            else NAMELESS[r.model]
            if r.version == ANY
            else r.version
        )

    n = len(part)
    return LabelRows(
        row=np.array([i for i, _ in part], np.int64),
        id=np.array([r.event for _, r in part], np.uint64),
        model=np.array([r.model for _, r in part], np.int64),
        version=np.array([r.version for _, r in part], np.int64),
        label=np.array([r.value for _, r in part], np.float64),
        time=np.array([r.time for _, r in part], np.int64),
        partition=np.zeros(n, np.int64),
        offset=np.array([start + i for i, _ in part], np.int64),
        own=np.array([own(r) for _, r in part], np.int64),
        outcome=np.array([np.nan if r.outcome is None else r.outcome for _, r in part], np.float64),
        score=np.full(n, np.nan),
        probabilities=np.empty((n, 0)),
    )


class Run:
    """A join that takes these rows, cut at these places and wherever log time goes on."""

    def __init__(
        self, given: list[Row], cuts: list[int], *, restored: bool = False, limit: int = 10_000
    ) -> None:
        self.join = Join(limit)
        for code, model in enumerate(VERSIONS):
            self.join.register(code, model, DELAY)
        self.events: list[tuple[int, int, float, float, bool]] = []
        self.duplicates = self.lost = now = 0
        bounds = sorted(
            {
                0,
                len(given),
                *(c % (len(given) + 1) for c in cuts),
                *(i for i, r in enumerate(given) if r.later),
            }
        )
        for start, end in itertools.pairwise(bounds):
            if given[start].later:
                now += LATER
                self.join.expire(now)
            if restored:
                state = encode(self.join.form())
                self.join = Join.restored(limit, 0, decode(state, StoreForm), {})
                assert encode(self.join.form()) == state
            part = list(enumerate(given[start:end]))
            joined = self.join.apply(
                predictions_of([x for x in part if x[1].kind != "label"]),
                labels_of([x for x in part if x[1].kind == "label"], start),
                now,
            )
            self.duplicates += int(joined.duplicate.sum())
            self.lost += joined.outcomes["evicted"]
            columns = [
                (p.row, p.id, p.version, p.outcome, p.label, p.corrected) for p in joined.pairs
            ]
            found = sorted(
                (int(row), int(i), int(v), float(o), float(y), bool(c))
                for each in columns
                for row, i, v, o, y, c in zip(*each, strict=True)
            )
            self.events += [each[1:] for each in found]


@dataclass
class Kept:
    """A row in the store of `Full`."""

    event: int
    model: int
    version: int
    value: float
    kind: str = ""
    key: tuple[int, int, int] = (0, 0, 0)
    label: Kept | None = None
    used: bool = False

    def suits(self, prediction: Kept) -> bool:
        """Whether this label is for that prediction."""
        return (
            self.event == prediction.event
            and self.model in (ANY, prediction.model)
            and self.version in (ANY, prediction.version)
        )


@dataclass
class Full:
    """
    The store with a limit, one row at a time: after every quarter of the limit that comes, what has
    its label goes first, then the oldest.
    """

    limit: int
    rows: list[Kept] = field(default_factory=list)
    labels: list[Kept] = field(default_factory=list)
    evicted_rows: list[Kept] = field(default_factory=list)
    evicted_labels: list[Kept] = field(default_factory=list)
    n: int = 0
    duplicates: int = 0
    lost: int = 0
    evicted: int = 0
    events: list[tuple[int, int, float, float, bool]] = field(default_factory=list)

    def take(self, offset: int, r: Row) -> None:
        if r.kind == "label":
            self.label(offset, r)
        else:
            self.prediction(r)
        self.n += 1
        if self.n % max(self.limit // 4, 1) == 0:
            self.evict()

    def pair(self, row: Kept, label: Kept, *, corrected: bool = False) -> None:
        row.label, label.used = label, True
        self.events.append((row.event, row.version, row.value, label.value, corrected))

    def prediction(self, r: Row) -> None:
        same = [
            k
            for k in self.rows
            if (k.event, k.version) == (r.event, r.version)
            and (k.kind == "failed") == (r.kind == "failed")
        ]
        if same:
            self.duplicates += same[0].kind != "stood in"
            same[0].kind = r.kind
            return
        row = Kept(r.event, VERSIONS[r.version], r.version, r.value, r.kind)
        self.rows.append(row)
        if r.kind == "failed":
            return
        if fitting := [label for label in self.labels if label.suits(row)]:
            self.pair(row, max(fitting, key=lambda label: label.key))
        else:
            missed = [label for label in self.evicted_labels if label.suits(row) and not label.used]
            self.lost += len(missed)
            for label in missed:
                label.used = True

    def label(self, offset: int, r: Row) -> None:
        label = Kept(r.event, r.model, r.version, r.value, key=(r.time, 0, offset))
        self.labels.append(label)
        met = sorted(
            (k for k in self.rows if k.kind != "failed" and label.suits(k)), key=lambda k: k.version
        )
        for row in met:
            if row.label is None:
                self.pair(row, label)
            else:
                label.used = True
                if any(row.label is kept for kept in self.labels) and label.key > row.label.key:
                    changed, row.label = label.value != row.label.value, label
                    if changed:
                        self.events.append((row.event, row.version, row.value, label.value, True))
        if met:
            return
        if r.outcome is not None and r.model != ANY:
            own = NAMELESS[r.model] if r.version == ANY else r.version
            self.rows.append(Kept(r.event, r.model, own, r.outcome, "stood in"))
            self.pair(self.rows[-1], label)
        elif any(label.suits(row) for row in self.evicted_rows):
            self.lost += 1
            label.used = True

    def evict(self) -> None:
        while len(self.rows) > self.limit:
            done = [k for k in self.rows if k.kind == "failed" or k.label is not None]
            gone = (done or self.rows)[0]
            self.rows = [k for k in self.rows if k is not gone]
            if not done:
                self.evicted += 1
                self.evicted_rows = [*self.evicted_rows, gone][-self.limit :]
        while len(self.labels) > self.limit:
            gone = self.labels.pop(0)
            if not gone.used:
                self.evicted_labels = [*self.evicted_labels, gone][-self.limit :]


def oracle_of(given: list[Row]) -> Oracle:
    oracle, now = Oracle(), 0
    for offset, r in enumerate(given):
        now += LATER * r.later
        if r.kind == "label":
            oracle.label(r.event, r.model, r.version, (r.time, 0, offset), r.value, r.outcome, now)
        elif r.kind == "failed":
            oracle.failure(r.event, r.version, now)
        else:
            oracle.prediction(r.event, r.version, r.value, now)
    return oracle


@settings(max_examples=500, deadline=None)
@given(st.lists(rows, max_size=40), st.lists(st.integers(0, 100), max_size=6), st.booleans())
def test_equal_to_one_row_at_a_time_however_it_is_cut_and_restored(
    given: list[Row], cuts: list[int], restored: bool
) -> None:
    oracle, run = oracle_of(given), Run(given, cuts, restored=restored)
    assert run.duplicates == oracle.duplicates
    assert run.events == oracle.events
    assert (
        run.join.state.pending.sum() + run.join.state.expired.sum()
        == oracle.served - oracle.labelled
    )


many_rows = st.one_of(
    st.builds(
        lambda kind, e, v, value: Row(kind, e, VERSIONS[v], v, 0, value),
        st.sampled_from(["served", "served", "failed"]),
        st.integers(1, 20),
        st.integers(0, 2),
        values,
    ),
    st.builds(
        lambda e, target, time, value, outcome: Row(
            "label", e, target[0], target[1], time, value, outcome
        ),
        st.integers(1, 20),
        st.sampled_from(
            [(ANY, ANY), (0, ANY), (1, ANY), *((model, v) for v, model in enumerate(VERSIONS))]
        ),
        st.integers(0, 3),
        values,
        st.none() | values,
    ),
)


def out_of_order(given: list[Row]) -> list[int]:
    """
    Where a record must end so that its rows enter the store in their order: before an id that it
    has already, and between a label's own prediction and one that was served.
    """
    cuts: list[int] = []
    ids: set[int] = set()
    own = False
    for i, r in enumerate(given):
        if r.event in ids or (own and r.kind != "label"):
            cuts.append(i)
            ids, own = set(), False
        ids.add(r.event)
        own = own or r.outcome is not None
    return cuts


@settings(max_examples=500, deadline=None)
@given(
    st.lists(many_rows, max_size=80),
    st.lists(st.integers(0, 100), max_size=6),
    st.booleans(),
    st.integers(4, 16),
)
def test_what_is_evicted_and_lost_by_it_is_what_one_row_at_a_time_evicts(
    given: list[Row], cuts: list[int], restored: bool, limit: int
) -> None:
    full, run = (
        Full(limit),
        Run(given, [*cuts, *out_of_order(given)], restored=restored, limit=limit),
    )
    for offset, r in enumerate(given):
        full.take(offset, r)
    assert (run.duplicates, run.events) == (full.duplicates, full.events)
    assert (run.join.state.evicted.sum(), run.lost) == (full.evicted, full.lost)
    assert run.join.state.pending.sum() == sum(
        k.kind != "failed" and k.label is None for k in full.rows
    )
    assert len(run.join.predictions) == len(full.rows)
    assert len(run.join.labels) == len(full.labels)


@pytest.mark.parametrize("seed", range(6))
def test_floods_evict_what_one_row_at_a_time_evicts(seed: int) -> None:
    """Thousands of rows, in which labels come late, early or never."""
    chance = random.Random(seed)
    limit, n, delay = chance.choice([100, 257]), 1_500, chance.choice([-150, -20, 20, 90, 240, 600])
    due = sorted(
        [(i, "served", i) for i in range(n)]
        + [
            (i + delay * chance.choice([1.0, chance.random()]), "label", i)
            for i in range(n)
            if chance.random() < 0.8
        ],
        key=lambda d: d[0],
    )
    given = [Row(kind, event, 0, 0, 0, float(event % 2)) for _, kind, event in due]
    full = Full(limit)
    for offset, r in enumerate(given):
        full.take(offset, r)
    run = Run(
        given,
        [chance.randrange(len(given)) for _ in range(chance.choice([0, 5, 200]))],
        limit=limit,
        restored=seed % 2 == 1,
    )
    assert run.events == full.events
    assert (run.join.state.evicted.sum(), run.lost) == (full.evicted, full.lost)
    assert sorted(
        run.join.predictions.rows(
            "id", run.join.predictions.tail, run.join.predictions.head
        ).tolist()
    ) == sorted(k.event for k in full.rows)


def test_the_generated_rows_have_what_they_are_for() -> None:
    """
    A failed call and its retry, a label with its own prediction and the one that it stood in for, a
    label too late.
    """
    given = [
        Row("failed", 1, 0, 0, 0, 0.0),
        Row("served", 1, 0, 0, 0, 1.0),
        Row("failed", 1, 0, 0, 0, 0.0),
        Row("label", 2, 0, ANY, 1, 1.0, 0.0),
        Row("served", 2, 0, 0, 0, 1.0),
        Row("served", 2, 0, 0, 0, 1.0),
        Row("label", 1, ANY, ANY, 1, 0.0, 0.0),
        Row("label", 2, 0, 0, 2, 0.0, 1.0, later=True),
        Row("label", 2, 0, 0, 3, 1.0, 1.0, later=True),
    ]
    for found in (oracle_of(given), Run(given, [])):
        assert found.duplicates == 2
        assert found.events == [
            (2, 0, 0.0, 1.0, False),
            (1, 0, 1.0, 0.0, False),
            (2, 0, 0.0, 0.0, True),
            (2, 0, 1.0, 1.0, False),
        ]


@settings(max_examples=100, deadline=None)
@given(st.lists(rows, max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_labels_does_not_matter(given: list[Row], chance: random.Random) -> None:
    """That of labels that bring no prediction, within the delay."""
    predictions = [r._replace(later=False) for r in given if r.kind != "label"]
    labels = [
        r._replace(time=i, outcome=None, later=False)
        for i, r in enumerate(r for r in given if r.kind == "label")
    ]  # distinct times
    mixed = predictions + labels
    chance.shuffle(mixed)

    def final(join: Join) -> dict[tuple[int, int], float]:
        ring = join.predictions
        seqs = np.arange(ring.tail, ring.head)
        seqs = seqs[ring.get("kind", seqs) == SERVED]
        had = join._label_of(seqs)
        return {
            (int(i), int(v)): float(join.labels.get("label", np.array([s]))[0])
            for i, v, s in zip(ring.get("id", seqs), ring.get("version", seqs), had, strict=True)
            if s >= 0
        }

    assert final(Run(mixed, []).join) == final(Run(predictions + labels, [7]).join)


def test_a_million_rows_leave_only_the_limit_and_counts_of_the_rest() -> None:
    join = Join(5_000)
    join.register(0, 0, 10**9)
    none = LabelRows.empty()
    n = 20_000
    for k in range(10):
        ids = np.arange(k * n + 1, (k + 1) * n + 1).astype(np.uint64)
        rows = Predictions(
            row=np.arange(n),
            id=ids,
            time=np.arange(n),
            version=np.zeros(n, np.int64),
            outcome=np.ones(n),
            score=np.ones(n),
            segment=np.zeros(n, np.int64),
            probabilities=np.empty((n, 0)),
            failed=np.zeros(n, bool),
        )
        join.apply(rows, none, k)
    assert len(join.predictions) == 5_000
    assert join.state.evicted.tolist() == [195_000]
    assert join.state.pending.tolist() == [5_000]
    assert len(join.predictions.column["id"]) <= 32_768


def test_waiting_ends_with_the_delay_of_the_model() -> None:
    join = Join(1_000)
    join.register(0, 0, 160)
    join.register(1, 1, 1_600)
    ids = np.array([1, 2], np.uint64)
    none = LabelRows.empty()
    join.apply(
        Predictions(
            row=np.arange(2),
            id=ids,
            time=np.zeros(2, np.int64),
            version=np.array([0, 1]),
            outcome=np.ones(2),
            score=np.ones(2),
            segment=np.zeros(2, np.int64),
            probabilities=np.empty((2, 0)),
            failed=np.zeros(2, bool),
        ),
        none,
        0,
    )
    join.expire(176)
    assert join.state.expired.tolist() == [1, 0]
    assert join.state.pending.tolist() == [0, 1]
    join.expire(1_616)
    assert join.state.expired.tolist() == [1, 1]
    assert len(join.predictions) == 0


def test_ages_are_exact_over_years_and_a_restart_does_not_show() -> None:
    """
    Rows have their own log time, in a record of years; those that fill a slab keep theirs in
    every snapshot.
    """
    year = 366 * 86_400_000
    join = Join(200_000)
    join.register(0, 0, year)
    n = 70_000
    ids = np.arange(n, dtype=np.uint64)

    def predicted(rows: slice) -> Predictions:
        k = len(ids[rows])
        return Predictions(
            row=np.arange(k),
            id=ids[rows],
            time=np.zeros(k, np.int64),
            version=np.zeros(k, np.int64),
            outcome=np.ones(k),
            score=np.ones(k),
            segment=np.zeros(k, np.int64),
            probabilities=np.empty((k, 0)),
            failed=np.zeros(k, bool),
        )

    times = np.arange(n, dtype=np.int64) * (3 * year // n)
    join.apply(predicted(slice(None)), LabelRows.empty(), times)
    slabs = {
        "predictions": {
            k: slab(join.predictions, a, b) for k, (a, b) in full_slabs(join.predictions).items()
        }
    }
    end = int(times[-1])
    join.expire(end)
    other = Join.restored(200_000, 0, join.form(), slabs)
    for one in (join, other):
        assert int(one.state.expired[0]) == int((times + year < end).sum())
        assert np.array_equal(
            one.predictions.rows("arrival", one.predictions.tail, one.predictions.head),
            times[times + year >= end],
        )
