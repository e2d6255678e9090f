"""
Rules that other products judge windows by, on the streams of `detection.py`: how many windows they
flag where nothing changed, and how many where something did.

Rule of the file: a rule compares each window with the first rows, as its users do; every number of
windows that are flagged after a change has those of clean windows beside it.

    python bench/detection_rules.py

PSI > 0.1 (Siddiqi 2006) and the Jensen-Shannon distance > 0.1 (NannyML's default) count on ten bins
between quantiles of the reference, with missing values in a bin of their own; an empty bin is
0.0001. The test is that of Kolmogorov and Smirnov, or χ² where the reference has at most ten
values, at p < 0.05 (Evidently's default for up to 1,000 rows).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

import numpy as np
from detection_streams import CASES, Float
from detection_tables import CLEAN, head, line
from scipy.stats import chi2, kstwo

SIZES, RULES = (100, 1_000), ("PSI > 0.1", "JS > 0.1", "p < 0.05")
LIMIT, P, BINS, EMPTY = 0.1, 0.05, 10, 1e-4
HOURS, FEATURES = 24, 100
T0, REFERENCE = 10_000, 5_000
CHANGES = (
    "mean +0.1 sd",
    "mean +0.25 sd",
    "mean +0.5 sd",
    "variance × 1.5",
    "missing 0 to 5 %",
    "category 10 to 15 %",
    "errors 5 to 10 %",
)


def places(reference: Float, x: Float) -> np.ndarray:
    """The bin of each value: levels and missing values have their own."""
    known = np.unique(reference.view(np.uint64))
    if len(known) <= BINS or np.isnan(reference).all():
        at = np.minimum(np.searchsorted(known, x.view(np.uint64)), len(known) - 1)
        return np.where(known[at] == x.view(np.uint64), at, len(known))
    inner = np.unique(np.nanquantile(reference, np.arange(1, BINS) / BINS))
    return np.where(np.isnan(x), BINS, np.searchsorted(inner, x, side="left"))


def counted(at: np.ndarray, size: int, bins: int) -> Float:
    """Counts of bins in each window of `size` values; values behind the last whole one are left."""
    windows = len(at) // size
    flat = at[: windows * size] + bins * np.repeat(np.arange(windows), size)
    return np.bincount(flat, minlength=windows * bins).reshape(windows, bins).astype(np.float64)


def distances(p: Float, q: Float) -> tuple[Float, Float]:
    """PSI, and the Jensen-Shannon distance to the base 2."""
    p, q = np.maximum(p, EMPTY), np.maximum(q, EMPTY)
    middle = (p + q) / 2
    js = (p * np.log2(p / middle) + q * np.log2(q / middle)).sum(1) / 2
    return ((q - p) * np.log(q / p)).sum(1), np.sqrt(np.maximum(js, 0.0))


def apart(reference: Float, windows: Float) -> Float:
    """The statistic of Kolmogorov and Smirnov of each row of `windows`."""
    reference, x = np.sort(reference), np.sort(windows, axis=1)
    n, size = len(reference), x.shape[1]
    other = x[:, 1:] != x[:, :-1]
    edge = np.ones((len(x), 1), bool)
    rank = np.arange(size)
    above = np.abs(np.searchsorted(reference, x, side="right") / n - (rank + 1) / size)
    below = np.abs(np.searchsorted(reference, x, side="left") / n - rank / size)
    ends, starts = np.hstack((other, edge)), np.hstack((edge, other))
    return np.maximum(above * ends, below * starts).max(axis=1)


def differs(reference: Float, x: Float, counts: Float, first: Float, size: int) -> np.ndarray:
    """Whether the test says so, by window."""
    if np.isnan(reference).all() or len(np.unique(reference)) <= BINS:
        total = counts + first
        there, n = total > 0, first.sum()
        share = total / (n + size)
        with np.errstate(invalid="ignore", divide="ignore"):
            each = (counts - size * share) ** 2 / (size * share)
            each += (first - n * share) ** 2 / (n * share)
        return np.where(there, each, 0.0).sum(1) > chi2.isf(P, np.maximum(there.sum(1) - 1, 1))
    reference, x = reference[~np.isnan(reference)], x[~np.isnan(x)]
    windows = x[: len(x) // size * size].reshape(-1, size)
    n = len(reference)
    return apart(reference, windows) > kstwo.isf(P, round(n * size / (n + size)))


def flagged(signals: Iterable[Float], reference: int, start: int) -> Iterator[list[float]]:
    """By size of window: the share of windows from row `start` on that each rule flags."""
    signals = list(signals)
    for size in SIZES:
        told: list[list[np.ndarray]] = [[] for _ in RULES]
        for x in signals:
            first, rest = x[:reference], x[start:]
            at = places(first, x)
            bins = int(at.max()) + 1
            base = counted(at[:reference], reference, bins)[0]
            counts = counted(at[start:], size, bins)
            far, js = distances(base / reference, counts / size)
            for into, said in zip(
                told,
                (far > LIMIT, js > LIMIT, differs(first, rest, counts, base, size)),
                strict=True,
            ):
                into.append(said)
        yield [float(np.concatenate(said).mean()) for said in told]


def shares(signals: Iterable[Float], reference: int, start: int) -> list[float]:
    """Shares by rule, and within a rule by size."""
    return [
        share for rule in zip(*flagged(signals, reference, start), strict=True) for share in rule
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of clean rows")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    a = parser.parse_args()
    head("rows", *(f"{rule}, windows of {size:,}" for rule in RULES for size in SIZES))
    worst = dict[str, list[float]]()
    for number, (name, make) in enumerate(CLEAN[:1] if a.quick else CLEAN):
        lot = make(np.random.default_rng([15, number]), 0.02 if a.quick else a.scale)
        if lot.x.ndim == 2:  # not scores with their labels
            worst[name] = shares(lot.x, lot.baseline, max(lot.baseline, lot.learning))
            line([name, *(f"{share:.1%}" for share in worst[name])])
    for case in [c for c in CASES if c.name in CHANGES][: 1 if a.quick else None]:
        rng = np.random.default_rng([17, CASES.index(case)])
        x = case.make(rng, T0 + case.horizon, T0)
        line([f"after: {case.name}", *(f"{share:.1%}" for share in shares(x, REFERENCE, T0))])
    first = next(iter(worst.values()))
    a_day = (f"{HOURS * FEATURES * share:,.0f}" for share in first)
    line([f"**{FEATURES} independent features, a window an hour: false alarms a day**", *a_day])


if __name__ == "__main__":
    main()
