"""
Every detector of `METHODS` meets every check.

What is left out is in `EXCLUSIONS`, with its reason.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from river import drift
from river.drift import binary
from scipy import stats

from stream_monitor.detectors.base import EVIDENCE, METHODS, ValueDetector, make, restore
from stream_monitor.detectors.conformal import unit

STATE_BYTES_MAX = 12_000
"""The Mersenne Twister of KSWIN alone takes 3 kB; ADWIN grows with the logarithm of its window."""
CUTS = ([10_000], [1], [333], [1_000, 1, 7], [64, 65])
EXCLUSIONS: dict[tuple[str, str], str] = {}


class Case(NamedTuple):
    method: str
    parameters: dict[str, float]
    river: Callable[[], Any]
    values: np.ndarray
    """A stream with changes in it."""

    def make(self) -> ValueDetector:
        return make(self.method, self.parameters)

    def restored(self, detector: ValueDetector) -> ValueDetector:
        return restore(
            self.method,
            self.parameters,
            msgspec.msgpack.decode(msgspec.msgpack.encode(detector.state())),
        )


class ByScipy:
    """`conformal` label by label, with the tails of SciPy; only the random numbers are shared."""

    def __init__(self, threshold: float = 1e6, chunk: int = 25, warm: int = 500) -> None:
        self.threshold, self.chunk, self.warm = threshold, chunk, warm
        self.part, self.before, self.number = list[float](), list[float](), 0
        self.evidence = np.zeros(12)
        self.drift_detected = False

    def update(self, value: float) -> None:
        self.drift_detected = False
        self.part.append(value)
        if len(self.part) < self.chunk:
            return
        k, known = sum(self.part), len(self.before)
        self.before, self.part = self.before + self.part, []
        self.number += 1
        if known < self.warm:
            return
        law = stats.hypergeom(len(self.before), sum(self.before), self.chunk)
        z = stats.norm.isf(law.sf(k) + unit(1, self.number) * law.pmf(k))
        theta = np.array([s * t for t in (0.25, 0.5, 1, 1.5, 2, 3) for s in (1, -1)])
        self.evidence = (self.evidence + 1) * np.exp(theta * z - theta**2 / 2)
        if self.chunk * self.evidence.mean() >= self.threshold:
            self.drift_detected = True
            self.before, self.evidence = [], np.zeros(12)


def _streams() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    levels = [(0.0, 1.0, 1_500), (1.0, 1.0, 1_100), (-1.0, 2.0, 500), (6.0, 0.1, 400)]
    real = np.concatenate([rng.normal(mean, sd, n) for mean, sd, n in levels])
    errors = (
        rng.random(len(real)) < np.repeat([0.1, 0.4, 0.05, 0.9], [n for _, _, n in levels])
    ).astype(float)
    return real, errors


REAL, ERRORS = _streams()
CASES = [
    Case("adwin", {}, drift.ADWIN, REAL),
    Case(
        "adwin",
        {"delta": 0.05, "clock": 1, "grace_period": 5},
        lambda: drift.ADWIN(delta=0.05, clock=1, grace_period=5),
        REAL,
    ),
    Case("page_hinkley", {}, lambda: drift.PageHinkley(1_000, 0.25, 50.0, 1.0), REAL),
    Case(
        "page_hinkley",
        {"min_instances": 30, "delta": 0.005, "alpha": 0.9999},
        lambda: drift.PageHinkley(30, 0.005, 50.0, 0.9999),
        REAL,
    ),
    Case("ddm", {}, binary.DDM, ERRORS),
    Case(
        "ddm",
        {"warm_start": 100, "drift_threshold": 2.0},
        lambda: binary.DDM(100, 2.0, 2.0),
        ERRORS,
    ),
    Case("conformal", {}, ByScipy, ERRORS),
    Case(
        "conformal",
        {"threshold": 3_000.0, "chunk": 10, "warm_start": 100},
        lambda: ByScipy(3_000.0, 10, 100),
        ERRORS,
    ),
    Case("hddm_a", {}, binary.HDDMA, ERRORS),
    Case("hddm_a", {"two_sided_test": 1}, lambda: binary.HDDMA(two_sided_test=True), ERRORS),
    Case("hddm_w", {}, binary.HDDMW, ERRORS),
    Case(
        "hddm_w",
        {"lambda_val": 0.2, "two_sided_test": 1},
        lambda: binary.HDDMW(lambda_val=0.2, two_sided_test=True),
        ERRORS,
    ),
    Case("kswin", {}, lambda: drift.KSWIN(alpha=0.0001, seed=1), REAL[1_400:1_700]),
    Case(
        "kswin",
        {"window_size": 60, "stat_size": 20, "seed": 7},
        lambda: drift.KSWIN(alpha=0.0001, window_size=60, stat_size=20, seed=7),
        REAL[2_900:3_200],
    ),
]


def pieces(values: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    out: list[np.ndarray] = []
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(values):
            return out
        out.append(values[at : at + size])
        at += size
    return out


def fired(detector: ValueDetector, parts: list[np.ndarray]) -> list[int]:
    out, at = [], 0
    for part in parts:
        found = detector.update(part)
        assert found.dtype == np.int64
        assert (np.diff(found) > 0).all()
        out += (found + at).tolist()
        at += len(part)
    return out


def gauges(detector: ValueDetector) -> tuple[float | None]:
    return (detector.score,)


# ---- the checks


def check_fires_where_river_fires(case: Case) -> None:
    river, expected = case.river(), []
    for i, value in enumerate(case.values.tolist()):
        river.update(value)
        if river.drift_detected:
            expected.append(i)
    assert expected, (
        "nothing to compare: the stream of this case must have a change that the method finds"
    )
    assert fired(case.make(), [case.values]) == expected


def check_cutting_does_not_show(case: Case) -> None:
    whole = case.make()
    expected = fired(whole, [case.values])
    for sizes in CUTS[1:]:
        cut = case.make()
        assert fired(cut, pieces(case.values, sizes)) == expected, sizes
        assert gauges(cut) == pytest.approx(gauges(whole), rel=1e-9, abs=1e-9), sizes


def check_a_restored_state_goes_on(case: Case) -> None:
    whole = case.make()
    expected = fired(whole, pieces(case.values, [97]))
    for at in (0, 1, len(case.values) // 2, (expected or [50])[0], (expected or [50])[0] + 1):
        first = case.make()
        before = fired(first, pieces(case.values[:at], [97]))
        second = case.restored(first)
        assert not getattr(second, "restarted", False)
        assert second.state() == first.state()
        after = fired(second, pieces(case.values[at:], [97]))
        assert before + [i + at for i in after] == expected, at
        assert gauges(second) == pytest.approx(gauges(whole), rel=1e-9, abs=1e-9), at


def check_a_restore_does_not_share_its_state(case: Case) -> None:
    """Going on with one of two detectors leaves the other where it was."""
    first = case.make()
    fired(first, [case.values[:200]])
    second = case.restored(first)
    kept = msgspec.msgpack.encode(first.state())
    fired(second, [case.values[200:]])
    assert msgspec.msgpack.encode(first.state()) == kept


def check_an_empty_chunk_does_nothing(case: Case) -> None:
    detector = case.make()
    for at in (0, 200):
        fired(detector, [case.values[at : at + 200]])
        before, seen = detector.state(), gauges(detector)
        assert detector.update(np.empty(0)).tolist() == []
        assert (detector.state(), gauges(detector)) == (before, seen)


def check_a_constant_stream_never_fires(case: Case) -> None:
    for level in (0.0, 1.0) if METHODS[case.method].binary else (0.0, 1.0, -3.0, 1e6, 0.1):
        assert (
            fired(
                case.make(),
                pieces(np.full(1_000 if case.method == "kswin" else 4_000, level), [501]),
            )
            == []
        ), level


def check_the_score_is_always_finite(case: Case) -> None:
    rng = np.random.default_rng(1)
    wild = [np.zeros(300), np.ones(300), (rng.random(300) < 0.5).astype(float)]
    if not METHODS[case.method].binary:
        wild += [rng.normal(0, 1e-300, 300), rng.normal(0, 3, 300) * 1e6, rng.standard_cauchy(300)]
    detector = case.make()
    assert math.isfinite(detector.score)
    for part in wild:
        for piece in pieces(part, [37]):
            detector.update(piece)
            assert math.isfinite(detector.score)
            assert all(map(math.isfinite, detector.befores))


def check_the_state_is_bounded(case: Case) -> None:
    rng = np.random.default_rng(2)
    detector = case.make()
    n = 3_000 if case.method == "kswin" else 200_000
    values = (
        (rng.random(n) < 0.2).astype(float) if METHODS[case.method].binary else rng.normal(size=n)
    )
    detector.update(values)
    assert len(msgspec.msgpack.encode(detector.state())) <= STATE_BYTES_MAX


def check_the_state_is_plain(case: Case) -> None:
    """
    Numbers, strings, bytes, lists and mappings: msgpack gives them back as they were, JSON takes
    them with bytes as base64.
    """
    detector = case.make()
    fired(detector, [case.values])
    state = detector.state()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state)) == state
    assert json.loads(msgspec.json.encode(state)).keys() == state.keys()


def check_it_is_deterministic(case: Case) -> None:
    one, other = case.make(), case.make()
    for part in pieces(case.values, [131]):
        # side by side, so that a random state in common would show
        assert one.update(part).tolist() == other.update(part).tolist()
        assert one.state() == other.state()


def check_its_input_is_left_alone(case: Case) -> None:
    values = case.values.copy()
    values.setflags(write=False)
    case.make().update(values)
    assert (values == case.values).all()


def check_nothing_latches(case: Case) -> None:
    """A firing belongs to its row: the next chunk does not report it again."""
    detector = case.make()
    expected = fired(case.make(), [case.values])
    at = expected[0] + 1
    assert fired(detector, [case.values[:at]]) == expected[:1]
    assert detector.update(case.values[at : at + 1]).tolist() == [0] * (expected[1:2] == [at])


CHECKS = {
    name.removeprefix("check_"): function
    for name, function in list(globals().items())
    if name.startswith("check_")
}


def test_every_method_has_a_case():
    assert {case.method for case in CASES} == set(METHODS) - {EVIDENCE}


def test_every_exclusion_is_of_a_case_and_a_check():
    assert all(
        method in METHODS and check in CHECKS and reason
        for (method, check), reason in EXCLUSIONS.items()
    )


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "-".join([case.method, *map(str, case.parameters.values())])
)
def test_detector(case: Case, check: str) -> None:
    if (case.method, check) in EXCLUSIONS:
        pytest.skip(EXCLUSIONS[case.method, check])
    CHECKS[check](case)


@pytest.mark.parametrize("share", [0.005, 0.1, 0.65])
def test_conformal_fires_on_clean_labels_no_more_often_than_it_says(share: float) -> None:
    """At one in 2,000 labels: Poisson's upper end of 1 % at what the theorem allows."""
    rng, labels, threshold = np.random.default_rng(11), 120_000, 2_000.0
    detector = make("conformal", {"threshold": threshold})
    found = len(detector.update((rng.random(labels) < share).astype(np.float64)))
    allowed = labels / threshold
    assert 0 < found <= allowed + 2.4 * allowed**0.5
