"""
Labels that come late: rows are judged at once if delays say nothing, and when they are mature if
delays depend on the class; however rows were cut, and over restarts.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from stream_monitor.join.rows import Pairs
from stream_monitor.monitors import late_errors
from stream_monitor.monitors.due import of_evidence
from stream_monitor.monitors.errors import Errors, ErrorsState
from stream_monitor.monitors.late_errors import LateErrors, Told
from stream_monitor.monitors.maturity import BINS, GROUPS, Coded, Maturity
from stream_monitor.monitors.version import Version
from stream_monitor.settings import CoreSettings, Labels, ModelSettings, Segment, Threshold
from stream_monitor.state import decode, encode

T0, HOUR = 1_760_000_000_000, 3_600_000
DELAY = 24 * HOUR


def late(seed: int, days: int, fraud_h: float, other_h: float, *, worse: bool = False) -> Pairs:
    """
    Rows of a model that finds 70 % of the fraud, two a minute, in the order of their labels; from
    the middle on it finds 10 %.
    """
    rng = np.random.default_rng(seed)
    n = days * 2_880
    time = T0 + np.arange(n) * 30_000
    fraud = rng.random(n) < 0.1
    found = np.where(worse & (np.arange(n) > n // 2), 0.1, 0.7)
    answer = rng.random(n) < np.where(fraud, found, 0.02)
    delay = rng.uniform(0.8, 1.2, n) * np.where(fraud, fraud_h, other_h) * HOUR
    nan, order = np.full(n, np.nan), np.argsort(time + delay, kind="stable")
    return Pairs(
        row=np.arange(n),
        version=np.zeros(n, np.int64),
        id=rng.integers(1, 2**63, n).astype(np.uint64),
        time=time,
        outcome=answer.astype(float),
        score=nan,
        segment=np.zeros(n, np.int64),
        probabilities=np.empty((n, 0)),
        label=fraud.astype(float),
        label_time=time + delay.astype(np.int64),
        previous=nan,
        corrected=np.zeros(n, bool),
        origin=np.arange(n),
    ).at(order)


def version(thresholds: dict[str, Threshold], segments: tuple[Segment, ...] = ()) -> Version:
    defaults = ModelSettings(
        task="binary",
        thresholds=thresholds,
        labels=Labels(max_delay_ms=DELAY),
        segments=segments,
    )
    return Version("m", "1", CoreSettings(defaults=defaults), {}, [], [])


def told(of: Version, pairs: Pairs, size: int = 500, *, all_came: bool = True) -> list[float]:
    """
    Hours of event time at which performance was bad. Predictions are counted as they are made; if
    not `all_came`, ten times as many as have labels.
    """
    found: list[float] = []
    predicted = np.sort(pairs.time)
    for at in range(0, len(pairs.row), size):
        part = pairs.at(slice(at, at + size))
        now = int(part.label_time.max())
        made = predicted[(predicted <= now) & (predicted > of.watermark_ms)]
        if len(made):
            of.volume.rows.add_grouped(*panes(made, 1 if all_came else 10))
        of.watermark_ms = now

        def judge(verdict, now=now) -> None:
            if verdict.level not in ("ok", "info") and verdict.key.kind == "performance":
                found.append((now - T0) / HOUR)

        of.take_pairs(part, [], now)
        of.reduce(judge, look=True)
    assert not of.contained.off
    return found


def panes(times: np.ndarray, each: int) -> tuple[np.ndarray, np.ndarray]:
    starts, counts = np.unique(times // 10_000, return_counts=True)
    return starts * 10_000, np.stack([counts * each, counts * 0], axis=1).astype(np.float64)


THRESHOLDS = {m: Threshold(min=least) for m, least in (("accuracy", 0.9), ("recall", 0.5))}
CASES = {"fraud first": (1, 20), "fraud last": (20, 1)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("thresholds", [THRESHOLDS, {}])
def test_delays_by_class_alarm_nobody_and_a_change_is_found_when_it_is_mature(case, thresholds):
    of = version(thresholds)
    assert told(of, late(1, 8, *CASES[case])) == []
    assert of.performance.maturity.wait_ms is not None
    assert thresholds or of.performance.level.mature
    found = told(version(thresholds), late(2, 8, *CASES[case], worse=True))
    assert 96 < min(found) < 96 + 24 + 24
    soon = told(version({"recall": Threshold(min=0.5)}), late(3, 2, 1, 1, worse=True))
    assert 24 < min(soon) < 24 + 12, "nobody waits where delays are the same"


def drifts(of: Version) -> list[tuple[float, float]]:
    """When the errors drifted, by event time, and whether they became more (1) or fewer (-1)."""
    assert of.errors.evidence is not None
    found = of.errors.evidence.drifted.values()
    shares = [(d.before / d.before[:2].sum(), d.after / d.after[:2].sum()) for d in found]
    ways = [float(np.sign(after[1] - before[1])) for before, after in shares]
    return [((d.change_ms - T0) / HOUR, way) for d, way in zip(found, ways, strict=True)]


@pytest.mark.parametrize("case", CASES)
def test_errors_are_compared_in_the_order_of_predictions_where_delays_depend_on_the_class(case):
    """Nine of ten fraud labels that come first are no rate of errors."""
    of = version({})
    told(of, late(11, 8, *CASES[case]))
    assert of.errors.late.waits
    assert not drifts(of)
    of = version({})
    told(of, late(12, 8, *CASES[case], worse=True))
    ((changed, way),) = drifts(of)
    assert way == 1
    assert abs(changed - 96) < 12


def test_a_drift_of_the_labels_that_came_first_ends_when_delays_depend_on_the_class():
    of = version({})
    early = (np.arange(3_000) % np.where(np.arange(3_000) < 2_000, 20, 2) == 0).astype(float)
    of.errors.days = 30.0
    of.errors.add(early, T0 + np.arange(3_000) * 30_000, binary=True)
    (firing,) = of_evidence(of)
    assert firing.level != "ok"
    maturity, at = Maturity(DELAY, depends=True, wait_ms=DELAY), np.full(1, T0 + 4_000 * 30_000)
    assert of.errors.turn(maturity) == (None, True)
    assert of.errors.ready(Told(np.zeros(1), at, at), maturity, due=False) is None
    (over,) = of_evidence(of)
    assert (over.key, over.level, over.clear, of.errors.moved) == (firing.key, "ok", True, True)
    of.errors.load(decode(encode(of.errors.state()), ErrorsState))
    (after,) = of_evidence(of)
    assert after.clear


def test_errors_that_wait_are_cut_and_restored_without_a_trace():
    pairs = late(13, 3, *CASES["fraud last"], worse=True)
    whole, cut = version({}), version({})
    told(whole, pairs, 500)
    for at in range(0, len(pairs.row), 500):
        told(cut, pairs.at(slice(at, at + 500)), 500)
        state = decode(encode(cut.errors.state()), ErrorsState)
        cut.errors = Errors(cut.signals.tolerance)
        cut.errors.days = whole.errors.days
        cut.errors.load(state)
    assert whole.errors.late.waits
    assert encode(cut.errors.state()) == encode(whole.errors.state())


def test_segments_pause_at_the_same_row_wherever_the_log_is_cut(monkeypatch):
    """Delays depend on the class from the second look on to the fifth."""
    pairs, found = late(16, 1, 1, 1), []
    pairs = pairs._replace(segment=np.ones(len(pairs.row), np.int64))
    looks = {"n": 0}

    def look(maturity, covered) -> None:
        looks["n"] += 1
        maturity.depends = 2 <= looks["n"] < 5
        maturity.wait_ms = DELAY if maturity.depends else None

    monkeypatch.setattr(Maturity, "look", look)
    for known in (True, False):
        monkeypatch.setattr(Maturity, "is_known", known)
        for size in (40, 730, len(pairs.row)):
            of, looks["n"] = version({}, segments=(Segment(name="country"),)), 0
            assert of.segments is not None
            of.segments.codes(("segments.country",), np.zeros((1, 1)), [])
            for at in range(0, len(pairs.row), size):
                part = pairs.at(slice(at, at + size))
                of.take_pairs(part, [], int(part.label_time.max()))
                of.reduce(lambda _: None, look=False)
            assert looks["n"] > 5
            assert of.errors.sliced is not None
            found.append(encode(of.errors.sliced.form()))
    assert found[0] == found[1] == found[2] != found[3] == found[4] == found[5]


@pytest.mark.parametrize("fraud", [(20, 10), (8, 4)])
def test_groups_of_few_rows_make_all_wait_too(fraud):
    """Few labels of fraud come late; each of its two groups is too small to be asked alone."""
    maturity, counts = Maturity(DELAY), np.zeros((GROUPS, BINS))
    counts[0, 24], (counts[2, 31], counts[3, 31]) = 500, fraud
    maturity.counts, maturity.now_ms = {0: counts.ravel()}, 10 * DELAY
    maturity.look(lambda: (0.0, 0.0))
    assert maturity.depends
    assert maturity.wait_ms == math.ceil(1_000 * 2**15.5)


def test_more_rows_than_there_is_room_for_are_thinned(monkeypatch):
    monkeypatch.setattr(late_errors, "WAITING_MAX", 100)
    rng = np.random.default_rng(14)
    late, times = LateErrors(waits=True), np.arange(3_000)
    errors = (rng.random(3_000) < 0.3).astype(float)
    for at in range(0, 3_000, 70):
        part = slice(at, at + 70)
        late.add(Told(errors[part], times[part], times[part]))
    assert late.waiting == len(late.joined().errors) <= 100
    assert late.every == 32
    found = late.take(3_000)
    assert late.waiting == 0
    assert late.every == 16
    assert found.times_ms.tolist() == sorted(found.times_ms)
    assert (found.errors == errors[found.times_ms]).all()
    late.add(Told(errors[:32], times[:32] + 3_000, times[:32]))
    assert late.waiting == 2


def test_thinning_is_cut_without_a_trace(monkeypatch):
    monkeypatch.setattr(late_errors, "WAITING_MAX", 100)
    rng = np.random.default_rng(15)
    times, errors = rng.permutation(1_500), (rng.random(1_500) < 0.3).astype(float)
    found = []
    for size in (1_500, 70, 1):
        waiting = LateErrors(waits=True, taken_ms=400)
        for at in range(0, 1_500, size):
            part = slice(at, at + size)
            waiting.add(Told(errors[part], times[part], times[part]))
        waiting.joined()
        found.append(encode(waiting))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("hours", [0.001, 1, 12])
def test_delays_that_say_nothing_make_nobody_wait(hours):
    of = version(THRESHOLDS)
    assert told(of, late(4, 8, hours, hours)) == []
    assert of.performance.maturity.wait_ms is None


def test_few_labels_of_many_predictions_wait_for_the_longest_delay():
    of = version(THRESHOLDS)
    told(of, late(5, 1, 1, 1).at(slice(0, 1_500)), all_came=False)
    assert of.performance.maturity.wait_ms == DELAY
    told(of, late(5, 4, 1, 1).at(slice(1_500, None)), all_came=False)
    assert of.performance.maturity.wait_ms is None, "now it is known that no more will come"


@pytest.mark.parametrize("pause_min", [10, 60])
@pytest.mark.parametrize("after_h", [2, 8])
def test_a_pause_of_the_source_of_labels_is_no_dependence_and_keeps_the_drift_open(
    pause_min, after_h
):
    """On the first day a model gets worse, and then labels pause and come all at once."""
    rng = np.random.default_rng(17)
    began, end = T0 + int(after_h * HOUR), T0 + int(after_h * HOUR) + 4 * HOUR
    pairs = late(17, 1, 1, 1)
    time = np.linspace(T0, end, len(pairs.row)).astype(np.int64)
    came, pause = time + 5_000, pause_min * 60_000
    stop = began + 20 * 60_000
    came = np.where((came > stop) & (came < stop + pause), stop + pause, came)
    wrong = rng.random(len(time)) < np.where(time > began, 0.4, 0.1)
    fraud = rng.random(len(time)) < 0.5
    pairs = pairs._replace(
        time=time, label_time=came, label=fraud.astype(float), outcome=(fraud ^ wrong).astype(float)
    )
    of = version({})
    told(of, pairs)
    assert not of.performance.maturity.is_known
    assert not of.performance.maturity.depends
    assert of.errors.evidence is not None
    (drifted,) = of.errors.evidence.drifted.values()
    assert drifted.open
    assert abs(drifted.change_ms - began) < HOUR / 4


@pytest.mark.parametrize("sizes", [[1, 7], [300, 2], [5_000]])
def test_how_rows_were_cut_and_restarts_do_not_show(sizes):
    rng = np.random.default_rng(6)
    n = 5_000
    cohort = np.sort(rng.integers(100, 130, n)) - rng.integers(0, 12, n)
    time = np.where(rng.random(n) < 0.1, -1, cohort * 12 * HOUR + rng.integers(0, HOUR, n))
    rows = Coded(time, rng.integers(0, 8 * BINS, n), time + rng.integers(0, 24 * HOUR, n))
    whole, cut, at = Maturity(DELAY), Maturity(DELAY), 0
    whole.add(rows)
    while at < n:
        size = sizes[at % len(sizes)]
        cut.add(rows.at(slice(at, at + size)))
        cut = decode(encode(cut), Maturity)
        at += size
    for maturity in (whole, cut):
        maturity.look(lambda: (1.0, 1.0))
    assert encode(cut) == encode(whole)


def test_the_difference_of_delays_is_that_of_scipy():
    """Bins are coarse, so it is at most the distance of the delays themselves."""
    rng = np.random.default_rng(7)
    for factor, depends in ((1.0, False), (1.1, False), (4.0, True)):
        fraud = rng.random(4_000) < 0.2
        delay = rng.exponential(np.where(fraud, factor, 1.0)) * HOUR
        pairs = late(8, 2, 1, 1).at(slice(0, 4_000))
        pairs = pairs._replace(label_time=pairs.time + delay.astype(np.int64))
        maturity = Maturity(DELAY)
        maturity.add(maturity.coded(pairs, 2 * fraud.astype(np.int64)))
        counts = np.sum(list(maturity.counts.values()), axis=0).reshape(1, -1, BINS)
        assert maturity._depends(counts) == depends
        assert (ks_2samp(delay[fraud], delay[~fraud]).statistic > 0.1) == depends
