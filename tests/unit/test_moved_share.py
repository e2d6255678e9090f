"""A change of one share is told as that share: of a value, of missing values, or of new ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from stream_monitor.monitors.baseline import FeatureProfile, Profile, numeric_profile
from stream_monitor.monitors.evidence import Drifted, Watched
from stream_monitor.monitors.evidence_verdicts import describe
from stream_monitor.monitors.layout import Layout
from stream_monitor.monitors.moved_share import LEAST, MOST, moved_share
from stream_monitor.monitors.watched import watched_inputs
from stream_monitor.monitors.windowed import OFFSET, unit_of
from stream_monitor.offline.cause_words import change_in_words

ROWS = 20_000
Law = Callable[[int], np.ndarray]
random = np.random.default_rng(11)


def with_share(law: Law, share: float, value: float) -> Law:
    """Exactly that share of the rows has a value."""

    def drawn(n: int) -> np.ndarray:
        values = law(n)
        values[random.permutation(n)[: round(share * n)]] = value
        return values

    return drawn


def amounts(n: int) -> np.ndarray:
    return random.normal(1_500, 400, n)


def branches(n: int) -> np.ndarray:
    return random.choice(np.arange(3_001.0, 3_013.0), n)


def flags(share: float) -> Law:
    return with_share(np.zeros, share, 1.0)


def signal_of(reference: np.ndarray) -> tuple[Watched, FeatureProfile, int]:
    there = reference[~np.isnan(reference)]
    profile = numeric_profile(there, len(reference) - len(there))
    layout = Layout(Profile(features={"x": profile}), {})
    return next(watched_inputs(layout, lambda _: 0.01)), profile, layout.start["x"] + OFFSET


def told(before: Law, after: Law, rows: int) -> tuple[str, dict, np.ndarray, np.ndarray]:
    watched, profile, first = signal_of(before(3_000))
    edges, samples = np.array(profile.edges), (before(ROWS), after(rows))

    def counted(values: np.ndarray) -> np.ndarray:
        there = values[~np.isnan(values)]
        counts = np.bincount(np.searchsorted(edges, there, side="right"), minlength=len(edges) + 1)
        counts = np.append(counts, len(values) - len(there))
        bins = [counts[np.array(places) - first].sum() for places in watched.places]
        z = (there - profile.mean) / unit_of(profile)
        return np.array([*bins, z.sum(), (z * z).sum()], np.float64)

    was, now = (counted(x) for x in samples)
    drifted = Drifted(True, 1, 1, 0, 0, 1.0, 1.0, was, now)
    return (*describe(watched, drifted, (profile.mean, unit_of(profile))), *samples)


CODE = with_share(amounts, 0.08, -999.0)
CODED = with_share(amounts, 0.17, -999.0)
NEW, GAP = with_share(branches, 0.03, 4_001.0), with_share(branches, 0.1, 5_000.0)


@pytest.mark.parametrize("rows", [1_000, 8_000])
@pytest.mark.parametrize(
    ("before", "after", "text", "facts"),
    [
        (CODE, CODED, "share of -999 from 8% to 17%", {"level": "-999", "value": -999}),
        (CODED, CODE, "share of -999 from 17% to 8%", {"value": -999}),
        (CODE, with_share(amounts, 1.0, -999.0), "share of -999 from 8% to 100%", {}),
        (branches, NEW, "share of values above 3012 from 0% to 3%", {"above": 3_012}),
        (
            GAP,
            with_share(GAP, 0.05, 4_001.0),
            "share of values between 3012 and 5000 from 0% to 5%",
            {"above": 3_012, "below": 5_000},
        ),
        (branches, with_share(branches, 0.1, 7.0), "share of values below 3001 from 0% to 10%", {}),
        (flags(0.3), flags(0.45), "share of 1 from 30% to 45%", {"value": 1}),
        (
            with_share(amounts, 0.04, np.nan),
            with_share(amounts, 0.075, np.nan),
            "missing or broken values from 4% to 7.5%",
            {"what": "missing"},
        ),
        (with_share(amounts, 0.1, 0.5), amounts, "share of 0.5 from 10% to 0%", {"value": 0.5}),
    ],
)
def test_the_share_of_a_bin_is_told_if_it_is_what_changed(
    before: Law, after: Law, text: str, facts: dict, rows: int
) -> None:
    """The shares are counted again on the values themselves."""
    change, found, *samples = told(before, after, rows)
    assert change == text
    assert found.items() >= {"what": "share" if "share" in text else "missing", **facts}.items()
    low, high = found.get("above", -np.inf), found.get("below", np.inf)
    for name, values in zip(("before", "after"), samples, strict=True):
        if found["what"] == "missing":
            inside = np.isnan(values)
        elif "value" in found:
            inside = values == found["value"]
        else:
            inside = (values > low) & (values < high)
        assert found[name] == pytest.approx(inside.mean(), abs=1e-12)


@pytest.mark.parametrize("rows", [100, 1_000])
@pytest.mark.parametrize(
    ("after", "what"),
    [
        (lambda x: x + 0.3, "mean"),
        (lambda x: x + 3, "mean"),
        (lambda x: x + 500, "mean"),
        (lambda x: x * 2, "standard deviation"),
        (lambda x: x / 3, "standard deviation"),
    ],
)
def test_a_move_of_all_values_is_no_share(after, what: str, rows: int) -> None:
    """Normal values; the outermost bins hold a hundredth of them each."""
    normal = random.normal

    def moved(n: int) -> np.ndarray:
        values = normal(size=n)
        return after((values - values.mean()) / values.std())

    assert told(lambda n: normal(size=n), moved, rows)[1]["what"] == what


def test_a_constant_in_another_unit_is_told_by_its_mean() -> None:
    change, *_ = told(lambda n: np.full(n, 50.0), lambda n: np.full(n, 5_000.0), 500)
    assert change == "mean from 50 to 5,000"


def test_a_bin_is_named_if_it_is_most_of_the_statistic_g() -> None:
    """SciPy has G of all bins, and of each bin against the rest, with chance 1 ± √2 in it."""
    edges = (0.0, 5e-324, 1.0, np.nextafter(1.0, 2), 2.0, np.nextafter(2.0, 3))
    seen = set()
    for _ in range(300):
        before, after = (random.multinomial(n, random.dirichlet([4] * 3)) for n in (9_000, 4_000))
        laws = np.zeros((2, 8))
        laws[:, 1:6:2] = before, after

        def g(table: np.ndarray) -> float:
            table = table[:, table.sum(axis=0) > 0]
            return chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic

        of = [g(np.stack([laws[:, k], laws.sum(axis=1) - laws[:, k]], 1)) for k in (1, 3, 5)]
        found, best = moved_share(laws[0], laws[1], edges), int(np.argmax(of))
        gone = before[best] > before.sum() / 2 and after[best] < 0.05 * after.sum()
        least = max(MOST * (g(laws) - 1 - 2**0.5), 2 * LEAST)
        if not gone and abs(max(of) - least) > 1e-6:
            named = max(of) > least
            seen.add(named)
            assert (found is not None) == named
            assert found is None or found[1]["value"] == best
    assert seen == {True, False}


def test_without_a_change_no_share_is_named() -> None:
    counts = np.array([0, 50, 950, 0, 20.0])
    assert moved_share(counts, counts, (1.0, np.nextafter(1.0, 2), 9.0)) is None
    assert moved_share(np.zeros(5), counts) is None


def test_a_report_tells_it_without_quotes() -> None:
    """Only names of categories are quoted."""
    for before, after, words in [
        (CODE, CODED, "-999 became more frequent in `x`: from 8% to 17%"),
        (branches, NEW, "values above 3012 became more frequent in `x`: from 0% to 3%"),
    ]:
        found = told(before, after, 4_000)[1]
        assert change_in_words({"subject": "x", **found}) == words
