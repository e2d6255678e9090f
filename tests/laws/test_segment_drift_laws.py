"""
Detectors on declared segments: neither how rows arrive together nor a restart shows, a change in a
segment is found and the segment is named, what changes everywhere names none, and clean rows keep
the budget, with many segments and rare ones.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_monitor.monitors.context import Context
from stream_monitor.monitors.errors import Errors
from stream_monitor.monitors.evidence_verdicts import drift_verdicts
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.inputs_state import form_of, restore
from stream_monitor.monitors.judged import Judged
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.segment_blocks import Members
from stream_monitor.monitors.segment_drift import CHUNK_LABELS, SegmentDrift, places
from stream_monitor.monitors.segment_exposition import drift_samples
from stream_monitor.monitors.segments import Segments
from stream_monitor.settings import Baseline, Limits, ModelSettings, Segment
from stream_monitor.state import decode, encode
from stream_monitor.verdicts import Verdict

Ints = NDArray[np.int64]
DAY_MS = 86_400_000
SETTINGS = ModelSettings(baseline=Baseline(rows=1_000))
NAMES = ("x", "flag")
ROWS, CHANGE = 16_000, 12_000
SEGMENTS = 6
RARE = SEGMENTS - 1
PLACES = 5_000 + np.arange(ROWS)
"""Where each row came from."""


def sliced(segments: int = SEGMENTS, chunk: int = 25) -> SegmentDrift:
    """A row has its segment as its code; -1 is none."""
    numbers = (np.arange(segments),)
    of = lambda codes, _: Members(codes[:, None], numbers, segments)  # noqa: E731
    return SegmentDrift(of, segments, chunk)


def made() -> Inputs:
    inputs = Inputs(lambda c: c, SETTINGS, Limits(), tolerance=lambda _: 0.005)
    inputs.drift.days, inputs.drift.sliced = 60.0, sliced()
    return inputs


def stream(where: tuple[int, ...] = (3,), seed: int = 1) -> tuple[NDArray[np.float64], Ints, Ints]:
    """A tenth of the rows or less is in each segment; one has three rows, and some rows none."""
    rng = np.random.default_rng(seed)
    segment = rng.choice([-1, 0, 1, 2, 3, 4], ROWS, p=[0.1, 0.4, 0.2, 0.1, 0.1, 0.1])
    segment[[5, 9_000, 15_000]] = RARE
    x = np.array([rng.normal(size=ROWS), rng.random(ROWS) < 0.3], np.float64)
    x[0, CHANGE:] += np.isin(segment[CHANGE:], where)
    return x, segment, (np.arange(ROWS) * 86).astype(np.int64)


def feed(inputs: Inputs, size: int, start: int = 0, where: tuple[int, ...] = (3,)) -> Inputs:
    x, segment, times = stream(where)
    for at in range(start, ROWS, size):
        part = slice(at, min(at + size, ROWS))
        inputs.add(Rows(NAMES, x[:, part].copy(), times[part], [], PLACES[part], segment[part]))
    return inputs


def told(inputs: Inputs) -> bytes:
    form = inputs.drift.form()
    return encode((form.evidence, sorted(form.sliced.evidence.items())))


@pytest.fixture(scope="module")
def whole() -> Inputs:
    return feed(made(), 1_000)


@pytest.mark.parametrize("size", [37, ROWS])
def test_how_rows_arrive_together_does_not_show(whole: Inputs, size: int) -> None:
    assert told(feed(made(), size)) == told(whole)


@pytest.mark.parametrize("stop", [1_777, 12_350])
def test_a_restart_does_not_show(whole: Inputs, stop: int) -> None:
    before, after = made(), made()
    x, segment, times = stream()
    for at in range(0, stop, 500):
        part = slice(at, min(at + 500, stop))
        before.add(Rows(NAMES, x[:, part].copy(), times[part], [], PLACES[part], segment[part]))
    assert before.profile is not None
    after.use(before.profile)
    restore(after, decode(encode(form_of(before)), type(form_of(before))), (), fences_anew=False)
    assert told(feed(after, 1_000, stop)) == told(whole)


def verdict(inputs: Inputs, name: str = "country") -> Verdict:
    assert inputs.drift.sliced is not None
    found = [(f"{name}=c{n}", e) for n, e in sorted(inputs.drift.sliced.evidence.items())]
    context, groups = Context("m", "", SETTINGS), [inputs.drift.evidence, None, None]
    (only,) = drift_verdicts(context, groups, [inputs.profile], sliced=(found, (), ()))
    return only


def contributors(verdict: Verdict) -> list[tuple[str, list[str]]]:
    assert verdict.evidence is not None
    return [(c["subject"], c.get("segments", [])) for c in verdict.evidence["contributors"]]  # type: ignore[attr-defined]


def test_a_change_in_a_segment_is_found_soon_and_named(whole: Inputs) -> None:
    found = verdict(whole)
    assert found.level == "warning"
    assert "segment `country=c3`" in found.summary
    assert contributors(found) == [("x", ["country=c3"])]
    assert whole.drift.sliced is not None
    drifted = whole.drift.sliced.evidence[3].drifted["x"]
    own = np.flatnonzero(stream()[1] == 3)
    assert own[drifted.found_row - 1] - CHANGE <= 1_300
    assert abs(own[drifted.change_row] - CHANGE) <= 600
    assert drifted.origin == PLACES[own[drifted.change_row]]
    shown = np.array(drifted.rows) - PLACES[0]
    assert set(shown) < set(own[drifted.change_row : drifted.found_row])
    assert (stream()[0][0, shown] > 1).all()  # in the upper tail, where a shift adds most


def test_the_gauge_says_which_segments_have_drifted(whole: Inputs) -> None:
    """One series for each segment with detectors, so at most as many as share the budget."""
    names = cast("Segments", SimpleNamespace(name_of=lambda n: f"country=c{n}"))
    found = whole.drift.sliced
    assert found is not None
    samples = list(drift_samples(names, "data_drift", found, ("m", "1")))
    assert {(s.name, s.labels[:2], s.labels[3]) for s in samples} == {
        ("model_segment_drift_detected", ("m", "1"), "data_drift")
    }
    by_segment = {s.labels[2]: s.value for s in samples}
    assert by_segment == {f"country=c{n}": float(n == 3) for n in range(RARE)}
    assert len(samples) <= found.count


def test_segments_of_a_feature_say_nothing_of_that_feature(whole: Inputs) -> None:
    """A shift moves rows from range to range, so what is left in one has another law."""
    found = verdict(whole, "x")
    assert "segment" not in found.summary
    assert [c for c in contributors(found) if c[1]] == []


def test_what_changes_everywhere_names_no_segment() -> None:
    found = verdict(feed(made(), 1_000, where=(-1, 0, 1, 2, 3, 4)))
    assert "segment" not in found.summary
    assert contributors(found) == [("x", [])]


def add(errors: Errors, wrong: NDArray[np.float64], segment: Ints, size: int, kind: str) -> Errors:
    times = (np.arange(len(wrong)) * 86).astype(np.int64)
    for at in range(0, len(wrong), size):
        p = slice(at, at + size)
        z = np.full(len(wrong[p]), np.nan)
        rows = Judged(times[p], z, z, z, z, z, z, z, segment[p], times[p])
        errors.add(wrong[p], times[p], binary=kind == "classes")
        errors.add_by_segment(rows, wrong[p], kind)
    return errors


def errors_with(segments: int, days: float) -> Errors:
    errors = Errors(lambda _: 0.005)
    errors.days, errors.sliced = days, sliced(segments, CHUNK_LABELS)
    return errors


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_errors_that_rise_in_a_segment_are_found_and_arrival_does_not_show(kind: str) -> None:
    rng = np.random.default_rng(4)
    _, segment, _ = stream()
    worse = (segment == 3) & (np.arange(ROWS) >= CHANGE)
    wrong = (
        (rng.random(ROWS) < np.where(worse, 0.4, 0.1)).astype(np.float64)
        if kind == "classes"
        else np.abs(rng.normal(size=ROWS)) * np.where(worse, 2.0, 1.0)
    )
    one, other = (
        add(errors_with(SEGMENTS, 120.0), wrong, segment, size, kind) for size in (333, 4_000)
    )
    assert one.sliced is not None
    assert other.sliced is not None
    assert encode(one.sliced.form().evidence) == encode(other.sliced.form().evidence)
    drifted = {n: set(e.drifted) for n, e in one.sliced.evidence.items() if e.drifted}
    assert drifted == {3: {"__error__"}}
    episode = one.sliced.evidence[3].drifted["__error__"]
    shown, found = np.array(episode.rows) // 86, episode.found_row
    assert (segment[shown] == 3).all()
    assert (wrong[shown] >= 1).all()
    left_out = 0 if kind == "classes" else int((segment[:500] == 3).sum())
    assert np.flatnonzero(segment == 3)[left_out + found - 1] - CHANGE <= 1_300


def test_clean_rows_keep_the_share_of_the_segments() -> None:
    """At 50 false alarms a day, 40 segments of which most are rare; Poisson's upper end of 1 %."""
    n, days, segments, found = 20_000, 0.02, 40, 0
    weights = 1 / np.arange(1, segments + 1)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        segment = rng.choice(segments, n, p=weights / weights.sum())
        wrong = (rng.random(n) < 0.1).astype(np.float64)
        errors = add(errors_with(segments, days), wrong, segment, 1_000, "classes")
        assert errors.sliced is not None
        found += sum(len(e.drifted) for e in errors.sliced.evidence.values())
    allowed = 3 * n * 86 / DAY_MS / days / 2
    assert found <= allowed + 2.4 * allowed**0.5


def test_the_budget_is_split_over_as_many_segments_as_there_may_be() -> None:
    defined = (Segment(name="country"), Segment(name="age", cut=(18.0, 65.0)))
    assert places(defined, Limits(segments=10)) == 11 + 3
    assert places(defined, Limits()) == 50 + 3
    errors, alone = errors_with(14, 120.0), Errors(lambda _: 0.005)
    alone.days = 120.0
    wrong = np.zeros(100)
    for each in (errors, alone):
        each.add(wrong, np.arange(100), binary=True)
    rates = 1 / errors.bounds() + 14 / errors.bounds_of_a_segment()
    assert rates == pytest.approx(1 / alone.bounds())
