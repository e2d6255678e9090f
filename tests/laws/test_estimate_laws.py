"""
Accuracy without labels: the numbers are those of an oracle, the interval contains the truth, what
stopped being valid says so, and neither cuts nor restarts show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import f1_score, precision_score, recall_score

from stream_monitor.join.rows import Pairs
from stream_monitor.monitors import version_state
from stream_monitor.monitors.checked import AGAIN_ROWS, LEARN_ROWS, strata
from stream_monitor.monitors.definitions import Changes, definitions
from stream_monitor.monitors.estimate_verdicts import estimate_samples, estimate_summary
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.score_cells import BINS, EDGES, bins_of
from stream_monitor.monitors.version import Version
from stream_monitor.monitors.version_state import VersionForm
from stream_monitor.settings import CoreSettings, Labels, Limits, ModelSettings, Threshold
from stream_monitor.state import decode, encode
from stream_monitor.stats.expected_metrics import accuracy, binary
from stream_monitor.stats.monotone import right_shares
from stream_monitor.verdicts import Verdict

T0, STEP_MS, HOUR = 1_760_000_000_000, 100, 3_600_000
NAN = float("nan")


# ---- streams


class World:
    """Rows of a model with a calibrated score, of which some labels are turned from a row on."""

    def __init__(
        self, seed: int, n: int, *, hard_from: int = 10**9, turned_from: int = 10**9
    ) -> None:
        rng = np.random.default_rng([seed, 14])
        self.n, at = n, np.arange(n)
        hard = rng.random(n) < np.where(at >= hard_from, 0.8, 0.3)
        logit = np.where(hard, rng.normal(0, 1, n), rng.normal(0, 4, n))
        self.score = 1 / (1 + np.exp(-logit))
        turned = (at >= turned_from) & (rng.random(n) < 0.25)
        self.label = ((rng.random(n) < self.score) ^ turned).astype(np.float64)
        self.answer = (self.score >= 0.5).astype(np.float64)
        self.delay = np.full(n, 20_000)
        self.probabilities = np.empty((n, 0))
        self.times = T0 + at * STEP_MS

    @property
    def right(self) -> np.ndarray:
        return self.answer == self.label

    def pairs(self) -> Pairs:
        """In the order of their labels."""
        nan = np.full(self.n, NAN)
        one_score = not self.probabilities.shape[1]
        found = Pairs(
            row=np.arange(self.n),
            version=np.zeros(self.n, np.int64),
            id=np.arange(1, self.n + 1).astype(np.uint64),
            time=self.times,
            outcome=self.answer,
            score=self.score if one_score else nan,
            segment=np.zeros(self.n, np.int64),
            probabilities=self.probabilities,
            label=self.label,
            label_time=self.times + self.delay,
            previous=nan,
            corrected=np.zeros(self.n, bool),
            origin=np.arange(self.n),
        )
        return found.at(np.argsort(found.label_time, kind="stable"))

    def rows(self) -> Rows:
        if self.probabilities.shape[1]:
            k = self.probabilities.shape[1]
            cells = np.vstack([self.answer, self.probabilities.T])
            return Rows(("prediction", *(f"score.{i}" for i in range(k))), cells, self.times, [])
        return Rows(("prediction", "score"), np.stack([self.answer, self.score]), self.times, [])


def made(**settings: Any) -> Version:
    settings = {"task": "binary", "labels": Labels(max_delay_ms=100_000), **settings}
    return Version("m", "1", CoreSettings(defaults=ModelSettings(**settings)), {}, [], [])


def restarted(version: Version) -> Version:
    """The version of a snapshot of it."""
    form = decode(encode(version_state.form_of(version)), VersionForm)
    now = definitions(version.settings, Limits())
    new = Version("m", "1", CoreSettings(defaults=version.settings), {}, [], [])
    version_state.load(new, form, [], Changes(now, now), changed=False)
    return new


def fed(
    version: Version, world: World, size: int = 1_000, *, restarts: bool = False
) -> tuple[Version, list[tuple[int, Verdict]]]:
    """Predictions and labels in the order of their times, `size` labels at a time."""
    told: list[tuple[int, Verdict]] = []
    pairs, rows, served = world.pairs(), world.rows(), 0
    for k in range(world.probabilities.shape[1]):
        version.class_column(str(k))
    for start in range(0, world.n, size):
        part = pairs.at(slice(start, start + size))
        now = int(part.label_time.max())
        until = max(int(np.searchsorted(world.times, now, side="right")), served)
        if until > served:
            version.take(rows.at(slice(served, until)), now)
        version.take_pairs(part, [], now)
        served = until
        found: list[Verdict] = []
        version.reduce(found.append, look=False)
        told += [(start, verdict) for verdict in found]
        if restarts:
            version = restarted(version)
    assert not version.contained.off
    return version, told


def of_estimate(told: list[tuple[int, Verdict]]) -> list[tuple[int, str]]:
    """Levels of the alert on validity, when they changed."""
    found: list[tuple[int, str]] = []
    for at, verdict in told:
        if verdict.key.detector == "estimate" and (not found or found[-1][1] != verdict.level):
            found.append((at, verdict.level))
    return found


def summary(version: Version) -> dict[str, Any]:
    return estimate_summary(version.context, version.estimate, version.watermark_ms)


# ---- oracles

SCORES = {"precision": precision_score, "recall": recall_score, "f1": f1_score}


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_those_of_isotonic_regression(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, [3, 40][seed % 2], BINS)
    right = rng.binomial(rows, np.sort(rng.random(BINS))[:: 1 if seed % 3 else -1])
    there = np.flatnonzero(rows)
    fits = [
        IsotonicRegression(increasing=up).fit(
            there, right[there] / rows[there], sample_weight=rows[there]
        )
        for up in (True, False)
    ]
    losses = [
        float(rows[there] @ (fit.predict(there) - right[there] / rows[there]) ** 2) for fit in fits
    ]
    found = right_shares(rows[None], right[None])
    best = fits[int(losses[1] < losses[0] - 1e-12)]
    assert np.allclose(found.share[there], best.predict(there))
    assert (found.low <= found.share + 1e-12).all()
    assert (found.share <= found.high + 1e-12).all()
    assert (found.low == found.high)[there].all()
    between = np.arange(there[0], there[-1] + 1)
    ends = np.sort([best.predict(there).min(), best.predict(there).max()])
    assert (found.low[between] >= ends[0] - 1e-12).all()
    assert (found.high[between] <= ends[1] + 1e-12).all()


def test_metrics_are_those_of_labels_drawn_by_the_shares() -> None:
    rng = np.random.default_rng(1)
    shares = right_shares(np.full((2, 3), 1_000), np.array([[900, 800, 700], [600, 750, 950]]))
    counts, positive = np.array([500.0, 300, 200, 100, 200, 400]), np.repeat([0.0, 1.0], 3)
    cell = np.repeat(np.arange(6), counts.astype(int))
    answers = positive[cell]
    found = {"accuracy": accuracy(shares, counts), **binary(shares, counts, positive)}
    drawn: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(100):
        right = rng.random(len(cell)) < shares.share[cell]
        labels = np.where(right, answers, 1 - answers)
        drawn["accuracy"].append(right.mean())
        for name, score in SCORES.items():
            drawn[name].append(score(labels, answers))
    for name, (value, (low, high)) in found.items():
        assert value == pytest.approx(np.mean(drawn[name]), abs=0.003)
        assert low < min(drawn[name])
        assert max(drawn[name]) < high
        assert high - low < 9 * np.std(drawn[name]) + 0.03


def test_the_estimate_is_that_of_counting_row_by_row() -> None:
    world = World(1, 6_000)
    version, _ = fed(made(), world, size=900)
    estimate = version.estimate
    learnt = int(right_shares(*strata(estimate.checked.state.fitted, *of(version))).rows)
    found: dict[tuple[int, int], list[bool]] = {}
    for i in range(learnt):  # the first labelled rows, which come in order here
        cell = int(world.answer[i]), int(np.searchsorted(EDGES, world.score[i], side="right"))
        found.setdefault(cell, []).append(bool(world.right[i]))
    fits = {}
    for answer in (0, 1):
        bins = sorted(b for a, b in found if a == answer)
        mean = [np.mean(found[answer, b]) for b in bins]
        weight = [len(found[answer, b]) for b in bins]
        fit = IsotonicRegression(increasing=answer == 1, out_of_bounds="clip")
        fits[answer] = fit.fit(bins, mean, sample_weight=weight)
    got = estimate.expected("last_1000", version.watermark_ms)
    assert got is not None
    here = slice(world.n - got.span.count, world.n)
    places = bins_of(world.score[here])
    each = [fits[int(a)].predict([b])[0] for a, b in zip(world.answer[here], places, strict=True)]
    assert got.metrics["accuracy"][0] == pytest.approx(np.mean(each), abs=2e-3)
    assert 1_000 <= got.span.count <= 1_100


def of(version: Version) -> tuple[Any, Any]:
    return version.estimate.checked.state.places, version.performance.live


# ---- what it says


def errors(version: Version, world: World) -> tuple[float, bool]:
    """Estimate less what labels say of the same rows, and whether that is in the interval."""
    found = version.estimate.expected("last_1000", version.watermark_ms)
    assert found is not None
    value, (low, high) = found.metrics["accuracy"]
    realised = float(world.right[world.n - found.span.count :].mean())
    return value - realised, low <= realised <= high


@pytest.mark.parametrize("seed", range(4))
def test_on_clean_data_it_is_right_and_stays_valid(seed: int) -> None:
    world = World(seed, 12_000)
    version, told = fed(made(), world)
    assert of_estimate(told) == []
    assert summary(version)["windows"]["last_1000"].keys() == {
        "accuracy",
        "precision",
        "recall",
        "f1",
    }
    error, inside = errors(version, world)
    assert inside
    assert abs(error) < 0.05


def test_other_inputs_move_the_estimate_before_any_label() -> None:
    world = World(5, 12_000, hard_from=11_000)
    world.delay[:] = 100 * HOUR
    world.delay[:10_500] = 20_000
    version = made()
    pairs, rows = world.pairs(), world.rows()
    version.take(rows, 0)
    version.take_pairs(pairs.at(slice(0, 10_500)), [], 0)
    version.reduce(lambda _: None, look=False)
    before = version.performance.window("last_1000", "accuracy")[0]["accuracy"]
    error, inside = errors(version, world)
    realised = float(world.right[-1_000:].mean())
    assert inside
    assert abs(error) < 0.05 < abs(before - realised)


@pytest.mark.parametrize(
    ("thresholds", "severity"),
    [({}, "info"), ({"estimated_accuracy": Threshold(min=0.1)}, "warning")],
)
def test_another_concept_is_said_once_and_over_when_it_is_learnt_again(
    thresholds: dict[str, Threshold], severity: str
) -> None:
    world = World(6, 16_000, turned_from=8_000)
    version, told = fed(made(thresholds=thresholds), world, size=200)
    (at, level), (over, fine) = of_estimate(told)
    assert (level, fine) == (severity, "ok")
    assert 8_000 <= at <= 9_000
    assert at + AGAIN_ROWS <= over <= at + 3 * AGAIN_ROWS
    bad = next(v for _, v in told if v.level == severity and v.key.detector == "estimate")
    assert bad.key.kind == "calibration"
    assert "is not valid" in bad.summary
    assert bad.value < -0.1
    error, inside = errors(version, world)
    assert inside, "it is learnt again"
    assert abs(error) < 0.05


def test_while_it_is_not_valid_no_number_is_shown_and_no_limit_is_judged() -> None:
    world = World(6, 9_200, turned_from=8_000)
    version, _ = fed(made(thresholds={"estimated_accuracy": Threshold(min=0.99)}), world, size=200)
    assert version.estimate.checked.state.contradicted is not None
    found = summary(version)
    assert "windows" not in found
    assert "were right by their labels" in found["not_estimated"]
    samples = {
        (s.name, s.labels): s.value
        for s in estimate_samples(version.context, version.estimate, version.watermark_ms)
    }
    assert samples["model_estimate_valid", ("m", "1", "contradicted")] == 0.0
    assert not [name for name, _ in samples if name.startswith("model_estimated_")]
    told: list[Verdict] = []
    version.tick(T0 + HOUR, told.append, "")
    limit = next(v for v in told if v.key[3:5] == ("performance", "estimated_accuracy"))
    assert (limit.level, limit.clear) == ("ok", True)


def test_a_limit_is_judged_by_the_end_that_favours_the_model() -> None:
    world = World(7, 6_000)
    level = float(world.right.mean())
    for least, expected in ((level + 0.02, "ok"), (level + 0.1, "warning"), (level - 0.1, "ok")):
        rule = Threshold(min=round(least, 3))
        version, _ = fed(made(thresholds={"estimated_accuracy": rule}), world)
        told: list[Verdict] = []
        version.tick(T0 + HOUR, told.append, "")
        found = [v for v in told if v.key.kind == "performance"]
        assert [v.level for v in found if v.key.subject == "estimated_accuracy"] == [expected]
        if expected == "warning":
            assert "predictions with a score is" in found[-1].summary
        assert [v for v in found if v.key.subject == "accuracy"], "the level is judged as before"


def test_where_there_is_no_estimate_the_summary_says_why() -> None:
    world = World(8, 2_000)
    world.score[:] = NAN
    version, _ = fed(made(), world)
    assert "have no score" in summary(version)["not_estimated"]
    version, _ = fed(made(), World(8, LEARN_ROWS))
    assert "it needs 700 labelled predictions" in summary(version)["not_estimated"]
    version, _ = fed(made(task="regression"), World(8, 2_000))
    assert "regression" in summary(version)["not_estimated"]
    assert version.estimate.state.served.sums.sum() == 0


def test_scores_of_three_classes_and_more_classes_than_places() -> None:
    world = World(9, 8_000)
    rng = np.random.default_rng(9)
    for k in (3, 12):
        world.probabilities = rng.dirichlet(np.full(k, 0.3), world.n)
        draw = rng.random(world.n)[:, None]
        world.label = np.minimum((world.probabilities.cumsum(axis=1) < draw).sum(axis=1), k - 1.0)
        world.answer = np.full(world.n, NAN)
        version, told = fed(made(task="multiclass"), world)
        world.answer = world.probabilities.argmax(axis=1).astype(float)
        error, inside = errors(version, world)
        assert inside
        assert abs(error) < 0.05
        assert of_estimate(told) == []
        state = version.estimate.state
        assert state.places.merged == state.checked.places.merged == (k == 12)


# ---- late labels, cuts and restarts


def late(seed: int) -> World:
    """Positive labels come after ten minutes, others after 20 seconds."""
    world = World(seed, 20_000)
    rng = np.random.default_rng([seed, 2])
    world.delay = np.where(world.label == 1, 600_000, 20_000) + rng.integers(0, 5_000, world.n)
    return world


def test_labels_that_come_late_by_class_are_learnt_when_they_are_mature() -> None:
    world = late(10)
    version, told = fed(made(labels=Labels(max_delay_ms=900_000)), world)
    state = version.estimate.state
    assert state.waits
    assert not [v for _, v in told if v.key.detector == "estimate" and v.level != "ok"]
    assert state.checked.learnt_rows > LEARN_ROWS
    found = version.estimate.expected("24h", version.watermark_ms)
    assert found is not None
    until = version.performance.maturity.until_ms
    assert until is not None
    assert found.span.start_ms >= until - 20_000, "the mature rows have labels"
    value, (low, high) = found.metrics["accuracy"]
    realised = float(world.right[world.times >= found.span.start_ms].mean())
    assert low <= realised <= high
    early = float(world.right[world.times + world.delay <= world.times[-1]][-1_000:].mean())
    assert abs(value - realised) < 0.05, early


CASES = ("plain", "score alone", "late", "corrected", "many classes", "another concept")


def case(name: str) -> tuple[World, dict[str, Any]]:
    world = late(11) if name in ("late", "corrected") else World(11, 5_000, turned_from=3_000)
    settings: dict[str, Any] = {"labels": Labels(max_delay_ms=900_000)}
    if name == "score alone":
        world.answer[:] = NAN
    if name == "many classes":
        at = np.arange(float(world.n))
        world.answer = at % np.where(at < 3_050, 3.0, 13.0)
        settings["task"] = "multiclass"
    return world, settings


def cut(world: World, name: str) -> Iterator[Pairs]:
    """The pairs, with corrections of some of them behind if they are wanted."""
    pairs = world.pairs()
    if name != "corrected":
        yield pairs
        return
    half = pairs.at(slice(0, world.n // 2))
    again = half.at(slice(-400, None))
    yield half
    yield again._replace(previous=again.label, label=1 - again.label, corrected=np.ones(400, bool))
    yield pairs.at(slice(world.n // 2, None))


@pytest.mark.parametrize("name", CASES)
def test_how_rows_were_cut_and_restarts_do_not_show(name: str) -> None:
    world, settings = case(name)
    parts = list(cut(world, name))
    pairs = Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    seen = []
    for sizes, restarts in (([5_000], False), ([777, 41], False), ([1_300], True)):
        version, start, turn = made(**settings), 0, 0
        told: list[Any] = []
        version.take(world.rows(), 0)
        while start < len(pairs.row):
            size = sizes[turn % len(sizes)]
            part = pairs.at(slice(start, start + size))
            version.take_pairs(part, [], 0)
            version.reduce(told.append, look=False)
            start, turn = start + size, turn + 1
            if restarts:
                version = restarted(version)
        assert not version.contained.off
        assert name != "late" or version.estimate.state.waits
        version.estimate.flush()
        shown = [
            (s.name, s.labels, s.value)
            for s in estimate_samples(version.context, version.estimate, version.watermark_ms)
        ]
        seen.append(
            (
                encode(version.estimate.state),
                encode([v for v in told if v.key.detector == "estimate"]),
                json.dumps(shown),
            )
        )
    assert seen[0] == seen[1] == seen[2]


def test_rows_that_cannot_be_counted_end_the_estimate_and_not_the_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, version = World(1, 50), made()
    version.take(world.rows(), 0)
    version.take_pairs(world.pairs(), [], 0)
    version.reduce(lambda _: None, look=False)

    def fails(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(version.estimate, "_take_in", fails)
    assert not version.contained.off
    assert version_state.form_of(version).contained.off.keys() == {"estimate"}
