"""
The tables of `detection.py` on rows: delays, false alarms on clean rows, and real rows.

Rule of the file: each function prints one table of Markdown. Delays are over all runs: a run that
found nothing counts as infinite, and so does one whose false alarm before the change is still open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import detection_feeds as feeds
import detection_oracle as oracle
import numpy as np
from detection_streams import (
    CASES,
    FEATURES,
    ROW_MS,
    Case,
    Float,
    autoregressive,
    flags,
    latencies,
    mixed,
    scored,
    season,
)

from stream_monitor.times import DAY_MS

T0S, BASELINES = (10_000, 20_000), (1_000, 5_000)
OTHERS = ("adwin", "page_hinkley")
OTHERS_ROWS = 200_000
"""Clean rows that the other detectors get."""
Clean = tuple[str, Callable[[np.random.Generator, float], "Lot"]]


def line(cells: Iterable[object]) -> None:
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def head(*cells: str) -> None:
    line(cells)
    line("---" for _ in cells)


class Delays:
    """Delays and false alarms of one detector in the runs of one case."""

    def __init__(self) -> None:
        self.delays, self.false, self.values = list[float](), 0, 0

    def add(self, alarms: feeds.Alarms, t0: int, horizon: int) -> None:
        for rows in alarms:
            after = [r - t0 for r in rows if t0 < r <= t0 + horizon]
            self.delays.append(after[0] if after else math.inf)
            self.false += sum(r <= t0 for r in rows)
            self.values += t0

    def text(self) -> str:
        """Found share, then the delay's median and 90 % quantile."""
        if not self.delays:
            return "–"
        d = np.sort(self.delays)
        found = f"{np.isfinite(d).mean():.0%}"
        median, high = (d[math.ceil(q * len(d)) - 1] for q in (0.5, 0.9))
        return f"{found} {shown(median)} / {shown(high)}"

    @property
    def high(self) -> float:
        """The 90 % quantile of the delay."""
        return float(np.sort(self.delays)[math.ceil(0.9 * len(self.delays)) - 1])


def shown(rows: float) -> str:
    return f"{rows:,.0f}" if np.isfinite(rows) else "–"


def _ours(case: Case, x: Float, baseline: int, tolerance: float) -> feeds.Alarms:
    when, bound = feeds.times(x.shape[-1]), feeds.BOUNDS[case.kind]
    if case.kind in feeds.GROUPS:
        given = None if tolerance else 0.0
        return feeds.alone(case.kind, x, when, bound, given)
    return feeds.openings(feeds.inputs(baseline, bound, len(x), tolerance), x, when)


def delays(seeds: int, cases: Sequence[Case] = CASES, t0s: Sequence[int] = T0S) -> None:
    """Found share and delay of every case."""
    print(f"\n### Drifts that are found: share of {seeds} runs, delay in rows (median / 90 %)\n")
    ours = [f"{t0 // 1000}k clean, reference {b:,}" for t0 in t0s for b in BASELINES]
    others = ("no tolerance", "ADWIN", "Page-Hinkley", "every 100 rows", "told both laws")
    head("change", "to reach", *ours, *others)
    all_of: dict[str, Delays] = {}
    missed, beyond = list[str](), list[str]()
    for number, case in enumerate(cases):
        told = {name: Delays() for name in (*ours, "none", *OTHERS, "always", "told")}
        for t0 in t0s:
            for run in range(math.ceil(seeds / FEATURES)):
                rng = np.random.default_rng([14, number, t0, run])
                x = case.make(rng, t0 + case.horizon, t0)[: seeds - run * FEATURES]
                found: feeds.Alarms = []
                for i, b in enumerate(BASELINES):
                    if not found or case.kind not in feeds.GROUPS:  # they have no baseline
                        found = _ours(case, x, b, feeds.TOLERANCE)
                    told[ours[t0s.index(t0) * len(BASELINES) + i]].add(found, t0, case.horizon)
                if t0 == t0s[0]:
                    told["none"].add(_ours(case, x, BASELINES[-1], 0.0), t0, case.horizon)
                    told["always"].add(feeds.always(x), t0, case.horizon)
                    if case.name in oracle.RATIOS:
                        first = oracle.alarms(case.name, x, feeds.BOUNDS[case.kind])
                        told["told"].add(first, t0, case.horizon)
                    for method in OTHERS if case.numbers else ():
                        rows = 0 if case.kind == "errors" else BASELINES[-1]
                        fired = feeds.firings(method, x, rows)
                        told[method].add(fired, t0, case.horizon)
        best, worst = (f(told[at].high for at in ours) for f in (min, max))
        if worst > case.goal:
            missed.append(f"{case.name} ({'everywhere' if best > case.goal else 'in part'})")
        if told["told"].delays and told["told"].high > case.goal:
            beyond.append(case.name)
        line([case.name, f"{case.goal:,}", *(of.text() for of in told.values())])
        for name, of in told.items():
            total = all_of.setdefault(name, Delays())
            total.false, total.values = total.false + of.false, total.values + of.values
    rates = (f"{of.false / of.values * 1e6:.3g}" if of.values else "–" for of in all_of.values())
    line(["**false alarms before the change, a million values**", "", *rates])
    print(f"\nSlower than to reach: {', '.join(missed) or 'none'}.")
    print(f"So is a detector that is told both laws: {', '.join(beyond) or 'nowhere'}.", flush=True)


class Lot:
    """Clean rows: what is fed, and how many alarms the budget allows."""

    def __init__(self, kind: str, x: Float, when: np.ndarray, baseline: int = 5_000) -> None:
        self.kind, self.x, self.when, self.baseline = kind, x, when, baseline
        self.models, self.learning, self.inherits = 1, 0, False

    def alarms(self, tolerance: float) -> list[feeds.Alarms]:
        if self.kind in feeds.GROUPS:
            given = None if tolerance else 0.0
            bound = feeds.BOUNDS[self.kind]
            return [feeds.alone(self.kind, self.x, self.when, bound, given)]
        found, half = list[feeds.Alarms](), self.x.shape[1] // self.models
        bound, profile = feeds.BOUNDS["features"] / FEATURES * len(self.x), None
        for model in range(self.models):
            of = feeds.inputs(self.baseline, bound, len(self.x), tolerance)
            if self.inherits and profile is not None:
                of.use(profile)
            part = slice(model, None, self.models)  # side by side
            if self.inherits:
                part = slice(model * half, (model + 1) * half)
            found.append(feeds.openings(of, self.x[:, part], self.when[part]))
            profile = of.profile
        return found

    def allowed(self) -> float:
        """False alarms that the budget allows in this time."""
        days = (self.when[-1] - self.when[self.learning]) / DAY_MS
        if self.kind in feeds.GROUPS:
            return float(days / feeds.BOUNDS[self.kind] * len(self.x))
        return float(days / feeds.DAYS * feeds.SHARES[0])

    def count(self, found: feeds.Alarms) -> int:
        return sum(r > self.learning for rows in found for r in rows)


def _independent(baseline: int) -> Callable[[np.random.Generator, float], Lot]:
    def made(rng: np.random.Generator, scale: float) -> Lot:
        n = int(400_000 * scale)
        return Lot("features", mixed(rng, n), feeds.times(n), baseline)

    return made


def _dependent(rho: float) -> Callable[[np.random.Generator, float], Lot]:
    def made(rng: np.random.Generator, scale: float) -> Lot:
        n = int(100_000 * scale)
        return Lot("features", autoregressive(rho)(rng, (12, n)), feeds.times(n))

    return made


def _rare(rng: np.random.Generator, scale: float) -> Lot:
    n = int(80_000 * scale)
    return Lot("features", mixed(rng, n), feeds.times(n, 60_000.0), 1_000)


def _dense(rng: np.random.Generator, scale: float) -> Lot:
    n = int(300_000 * scale)
    apart = np.full(n, ROW_MS)
    apart[n // 3 : 2 * n // 3] /= 20
    return Lot("features", mixed(rng, n), np.cumsum(apart).astype(np.int64))


def _versions(*, inherits: bool) -> Callable[[np.random.Generator, float], Lot]:
    def made(rng: np.random.Generator, scale: float) -> Lot:
        n = int(200_000 * scale)
        lot = Lot("features", mixed(rng, n), feeds.times(n))
        lot.models, lot.inherits = 2, inherits
        return lot

    return made


def _wrong(rng: np.random.Generator, scale: float) -> Lot:
    n = int(200_000 * scale)
    return Lot("errors", flags(rng, (4, n), 0.35), feeds.times(n))


def _calibrated(rng: np.random.Generator, scale: float) -> Lot:
    """Scores that move by the hour, and are as likely to be right as before."""
    n = int(200_000 * scale)
    return Lot("calibration", scored(rng, n, n), feeds.times(n))


def _latencies(rng: np.random.Generator, scale: float) -> Lot:
    n = int(200_000 * scale)
    return Lot("latency", latencies(rng, (4, n)), feeds.times(n))


def _season(rng: np.random.Generator, scale: float) -> Lot:
    """A thousand rows an hour; what is told in the first 14 days does not count."""
    day = 24 * max(int(1_000 * scale), 50)
    lot = Lot("features", season(rng, (10, 21 * day), day), feeds.times(21 * day, DAY_MS / day))
    lot.learning = 14 * day
    return lot


CLEAN: tuple[Clean, ...] = (
    ("independent, mixed laws, reference 1,000", _independent(1_000)),
    ("independent, mixed laws, reference 5,000", _independent(5_000)),
    ("1 event a minute", _rare),
    ("traffic × 20 in the middle", _dense),
    ("two versions side by side", _versions(inherits=False)),
    ("a new version with the old baseline", _versions(inherits=True)),
    ("errors, accuracy 0.65", _wrong),
    ("calibration, scores move by the hour", _calibrated),
    ("latency", _latencies),
    *((f"AR(1) {rho:g}", _dependent(rho)) for rho in (0.5, 0.7, 0.9)),
    ("daily season ±0.5 sd, days 15 to 21", _season),
)


def clean(scale: float, kswin: int, rows: Sequence[Clean] = CLEAN) -> None:
    """False alarms on rows without a change."""
    print("\n### False alarms on clean rows\n")
    others = ("ADWIN", "Page-Hinkley", f"KSWIN (first {kswin:,} values)")
    head(
        "rows",
        "rows × signals",
        "the budget allows",
        "false alarms",
        "no tolerance",
        *(f"{o}, a million values" for o in others[: 2 + bool(kswin)]),
    )
    for number, (name, make) in enumerate(rows):
        lot = make(np.random.default_rng([15, number]), scale)
        ours, bare = (
            sum(lot.count(found) for found in lot.alarms(tolerance))
            for tolerance in (feeds.TOLERANCE, 0.0)
        )
        told = []
        part = lot.x if lot.learning else lot.x[..., :OTHERS_ROWS]
        values = int(np.isfinite(part[..., lot.learning :]).sum())
        for method in OTHERS:
            if lot.kind not in ("features", "errors"):
                told.append("–")
                continue
            rows = 0 if lot.kind == "errors" else lot.baseline
            fired = lot.count(feeds.firings(method, part, rows))
            told.append(f"{fired / values * 1e6:,.3g}")
        if kswin and lot.x.ndim == 2:
            fired = sum(map(len, feeds.firings("kswin", lot.x[:1, :kswin], kswin)))
            told.append(f"{fired / kswin * 1e6:,.0f}")
        size = f"{lot.x.shape[-1] - lot.learning:,} × {len(lot.x)}"
        line([name, size, f"{lot.allowed():.2g}", ours, bare, *told])


def real(path: Path) -> None:
    """
    The electricity data in natural order, at 1M rows a day. As its prediction a row has the class
    of the row before.
    """
    rows = np.genfromtxt(path, delimiter=",", skip_header=1)
    x, label = rows[:, :-1].T, rows[:, -1]
    wrong = (label[1:] != label[:-1]).astype(np.float64)[None]
    n = x.shape[1]
    print(f"\n### Real rows in natural order: {path.name}, {n:,} rows, {len(x)} features\n")
    head(
        "tolerance", "openings of a feature", "alerts `data_drift`, 10,000 rows", "`concept_drift`"
    )
    for tolerance in (feeds.TOLERANCE, 0.02, 0.05, 0.0):
        of = feeds.inputs(5_000, feeds.BOUNDS["features"] / FEATURES * len(x), len(x), tolerance)
        alerts, was, openings, seen = 0, False, 0, dict[str, int]()
        columns, when = feeds.names(len(x)), feeds.times(n)
        for at in range(0, n, 50):  # an alert is open while a feature is
            part = slice(at, at + 50)
            of.add(feeds.Rows(columns, x[:, part].copy(), when[part], []))
            drifted = of.drift.evidence.drifted if of.drift.evidence is not None else {}
            now = any(d.open for d in drifted.values())
            alerts, was = alerts + (now and not was), now
            found = {name: d.found_row for name, d in drifted.items()}
            openings += sum(seen.get(name) != row for name, row in found.items())
            seen = found
        errors = feeds.alone("errors", wrong, when[1:], feeds.BOUNDS["errors"], tolerance)
        per = 10_000 / n
        line([tolerance, openings, f"{alerts * per:.2f}", f"{len(errors[0]) * per:.2f}"])
