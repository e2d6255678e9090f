"""
Laws of features that come when the baseline has been learnt: learnt from their own first rows,
however rows are cut, and then watched.
"""

from __future__ import annotations

import numpy as np
import pytest

from stream_monitor.events.cells import (
    ABSENT,
    ABSENT_CELL,
    NULL_CELL,
    TEXT,
    TRUE_CELL,
    Texts,
    boxed,
    tags,
)
from stream_monitor.monitors.baseline import category_profile, numeric_profile
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.distances import distances
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.inputs_state import InputsForm, form_of, restore
from stream_monitor.monitors.quality import judge
from stream_monitor.monitors.readings import points, violations
from stream_monitor.monitors.rows import Rows
from stream_monitor.settings import Anomalies, Baseline, Feature, Limits, ModelSettings
from stream_monitor.state import decode, encode

N, ROWS = 300, 2_000
NAMES = ("old", "new", "empty", "named", "never")


def settings_of(**more):
    return ModelSettings(baseline=Baseline(rows=N), **more)


def made(seed):
    """
    Cells of five features: one that is there always, one that comes, one that is null at first, a
    text that comes, and one that never has a value.
    """
    rng, texts = np.random.default_rng(seed), Texts()
    cells = rng.normal(3, 1, (5, ROWS))
    begin = rng.integers(N, 2 * N, 3)
    cells[1, : begin[0]], cells[2, : begin[1]], cells[3, : begin[2]], cells[4] = (
        ABSENT_CELL,
        NULL_CELL,
        ABSENT_CELL,
        NULL_CELL,
    )
    colours = np.array([texts[c] for c in ("red", "green", "blue")])
    cells[3, begin[2] :] = rng.choice(colours, ROWS - begin[2], p=[0.6, 0.3, 0.1])
    for row, first in ((1, begin[0]), (2, begin[1])):
        cells[row, first + 1 :][rng.random(ROWS - first - 1) < 0.1] = NULL_CELL
    return cells, begin, texts.names


def rows_of(cells, first, last, texts):
    """A chunk; its columns are those that have something in it."""
    there = [i for i in range(5) if first % 2 or (tags(cells[i, first:last]) != ABSENT).any()]
    return Rows(
        tuple(NAMES[i] for i in there),
        cells[there, first:last],
        np.arange(first, last, dtype=np.int64) * 100,
        texts,
    )


def fed(cells, texts, cuts, limits=None, settings=None, at=None):
    """
    Inputs after all chunks, with what its detectors got; taken through a snapshot after chunk `at`.
    """
    got: dict[str, list[float]] = {}

    def watch(name: str, values: np.ndarray, _: np.ndarray) -> None:
        got.setdefault(name, []).extend(np.round(values, 9).tolist())

    inputs = Inputs(lambda c: c, settings or settings_of(), limits or Limits(), values=watch)
    for i, (first, last) in enumerate(zip([0, *cuts], [*cuts, ROWS], strict=True)):
        if last > first:
            inputs.add(rows_of(cells, first, last, texts))
        if i == at:
            form = decode(encode(form_of(inputs)), InputsForm)
            other = Inputs(lambda c: c, inputs.settings, inputs.limits, values=watch)
            if inputs.profile is not None:
                other.use(inputs.profile)
            restore(other, form, (), fences_anew=False)
            inputs = other
    return inputs, got


@pytest.mark.parametrize("seed", range(4))
def test_a_late_feature_is_learnt_from_its_own_first_rows(seed):
    cells, begin, texts = made(seed)
    inputs, got = fed(cells, texts, [500, 1_001, 1_400])
    found = inputs.profile.features
    own = [cells[i + 1, begin[i] : begin[i] + N] for i in range(3)]
    for name, values in (("new", own[0]), ("empty", own[1])):
        there = values[~np.isnan(values)]
        assert found[name] == numeric_profile(there, N - len(there))
        rest = cells[NAMES.index(name), begin[NAMES.index(name) - 1] + N :]
        assert got[name] == pytest.approx(
            (rest[~np.isnan(rest)] - there.mean()) / there.std(), abs=1e-6
        )
    assert found["named"] == category_profile(
        {t: int((own[2].view(np.uint64) == bits_of(t, texts)).sum()) for t in texts}, 0
    )
    assert found["never"].count == 0
    window, _, _ = inputs.window(ROWS * 100, 3_600_000)
    assert window["old"].counts.sum() == ROWS
    assert window["named"].counts.sum() == ROWS - begin[2] - N
    assert {r for f, r, _ in violations(inputs) if f == "named"} <= {"missing", "unknown_field"}
    assert all(distances(found[n], window[n]) for n in ("new", "empty", "named"))
    assert not distances(found["never"], window["never"])
    assert not [
        v for v in judge(Context("m", "1", inputs.settings), inputs, ROWS * 100) if v.level != "ok"
    ]


def bits_of(text, texts):
    return np.array([boxed(TEXT, texts.index(text))]).view(np.uint64)[0]


@pytest.mark.parametrize("reference", ["build", "trailing"])
@pytest.mark.parametrize("seed", range(4))
def test_how_rows_are_cut_and_a_restart_do_not_show(seed, reference):
    cells, _, texts = made(seed)
    settings = settings_of(
        anomalies=Anomalies(reference=reference, trailing_rows=100)
        if reference == "trailing"
        else Anomalies()
    )
    rng = np.random.default_rng(seed + 100)
    one, wanted = fed(cells, texts, [], settings=settings)
    for _ in range(4):
        cuts = sorted(rng.integers(1, ROWS, 7).tolist())
        other, got = fed(cells, texts, cuts, settings=settings, at=int(rng.integers(0, 8)))
        assert other.profile == one.profile
        assert other.layout.columns() == one.layout.columns()
        assert dict(points(other)) == dict(points(one))
        assert {v for v in violations(other) if v[1] != "unknown_field"} == {
            v for v in violations(one) if v[1] != "unknown_field"
        }
        assert other.totals == pytest.approx(one.totals, rel=1e-9, abs=1e-6)
        assert got == wanted


def test_no_more_are_learnt_than_there_is_room_for():
    cells, _, texts = made(1)
    inputs, _ = fed(cells, texts, [700], limits=Limits(features=4))
    assert len(inputs.profile.features) == 4
    assert dict(inputs.unknown)


def test_what_a_given_baseline_leaves_out_is_not_learnt():
    from stream_monitor.monitors.baseline import Profile

    cells, _, texts = made(2)
    inputs = Inputs(
        lambda c: c,
        settings_of(),
        Limits(),
        Profile(
            features={"old": numeric_profile(cells[0, :N], 0), "empty": category_profile({}, N)},
            rows=N,
        ),
    )
    inputs.add(rows_of(cells, 0, ROWS, texts))
    assert inputs.profile is not None
    assert set(inputs.profile.features) == {"old", "empty"}
    assert inputs.profile.features["empty"].type == "numeric"


@pytest.mark.parametrize(
    "rule", [Feature(type="numeric"), Feature(type="category"), Feature(), Feature(type="text")]
)
def test_a_baseline_without_values_and_then_some(rule):
    """Until they are learnt they break no rule but that of their type."""
    texts = Texts()
    for odd in (4.5, texts["a"], TRUE_CELL):
        inputs = Inputs(lambda c: c, settings_of(features={"x": rule}), Limits())
        for first, cell in ((0, NULL_CELL), (N, odd), (2 * N + 10, odd)):
            n = N if first < 2 * N else 250
            inputs.add(
                Rows(
                    ("x",),
                    np.full((1, n), cell),
                    np.arange(first, first + n, dtype=np.int64) * 100,
                    texts.names,
                )
            )
        said = [
            v.summary
            for v in judge(Context("m", "1", inputs.settings), inputs, (2 * N + 260) * 100)
            if v.level != "ok"
        ]
        assert not any("unknown category" in s for s in said)
        assert bool(said) == (rule.type == "numeric" and odd != 4.5), said


def test_numbers_that_become_text_break_a_rule_and_text_that_becomes_numbers():
    texts = Texts()
    for before, after, rule in (
        (2.5, texts["a"], "wrong type"),
        (texts["a"], 2.5, "unknown category"),
    ):
        inputs = Inputs(lambda c: c, settings_of(), Limits())
        for first, cell in ((0, before), (N, after)):
            inputs.add(
                Rows(
                    ("x",),
                    np.full((1, N), cell),
                    np.arange(first, first + N, dtype=np.int64) * 100 + first * 1_000,
                    texts.names,
                )
            )
        said = [
            v.summary
            for v in judge(
                Context("m", "1", inputs.settings), inputs, int(inputs.panes.watermark_ms)
            )
            if v.level != "ok"
        ]
        assert any(rule in s for s in said), said
