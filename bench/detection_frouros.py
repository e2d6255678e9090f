"""
The drift detectors of frouros, with its default parameters, on the streams of `detection.py`,
beside the detector of the product.

Rule of the file: no table of what is found is without false alarms. frouros needs an older numpy,
so it runs in an environment of its own (`bench/peers/frouros_drift.py`), on arrays of numbers.

    python bench/detection_frouros.py --install   # makes .bench-frouros
    python bench/detection_frouros.py             # all tables, minutes
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compare
import detection_feeds as feeds
import measure
import numpy as np
from detection_streams import CASES, FEATURES, Case, Float
from detection_tables import Delays, head, line, shown

ENVIRONMENT = measure.ROOT / ".bench-frouros"
PYTHON = ENVIRONMENT / "bin" / "python"
PEER = Path(__file__).parent / "peers" / "frouros_drift.py"
T0, REFERENCE = 10_000, 5_000
A_DAY = 1_000_000
LEFT_OUT = ("score, its logit +0.25 sd", "residuals of a regression +0.25 sd")
"""The same law as the mean +0.25 sd."""
READS = {
    "numbers": "features, latency",
    "levels": "features and predictions with levels",
    "errors": "errors",
}
DEPENDENT = "AR(1) 0.7, +0.5 sd"
TOO_OFTEN = 500
"""False alarms a million values from which a detector is no comparison."""
Cell = dict[str, Delays]


def reads(case: Case, x: Float) -> str | None:
    """What kind of detector can read it; None: frouros has none."""
    if case.kind == "errors":
        return "errors"
    if case.numbers:
        return "numbers"
    return "levels" if np.isnan(x).all() else None


def prepared(x: Float, kind: str) -> np.ndarray:
    """As `feeds.firings` has them: standardised by the first rows; levels as whole numbers."""
    if kind == "levels":
        return np.unique(x.view(np.uint64), return_inverse=True)[1].reshape(x.shape)
    if kind == "errors":
        return x.astype(np.int64)
    first = x[:, :REFERENCE]
    deviation = first.std(axis=1, keepdims=True)
    return (x - first.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1.0)


def theirs(streams: dict[int, tuple[str, Float]], only: list[str]) -> Iterator[dict[str, Any]]:
    """What the detectors of frouros say, a detector and case at a time."""
    with tempfile.TemporaryDirectory() as folder:
        for number, (kind, x) in streams.items():
            np.save(Path(folder) / f"{number:02}-{kind}.npy", prepared(x, kind))
        command = [str(PYTHON), str(PEER), folder, "--reference", str(REFERENCE)]
        command += ["--change", str(T0), "--only", *only]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            yield from map(json.loads, running.stdout)
        if running.returncode:
            sys.exit(f"{PEER.name} ended with {running.returncode}")


def ours(case: Case, x: Float, days: float | None = None) -> Delays:
    """
    The product's detector, with so many days for each false alarm of a signal.

    With a budget that is not the default, delays are of the runs without a false alarm before the
    change: one that is still open would hide it, while detectors of frouros begin anew.
    """
    bound = feeds.BOUNDS[case.kind] if days is None else days
    when, told = feeds.times(x.shape[-1]), Delays()
    if case.kind in feeds.GROUPS:
        alarms = feeds.alone(case.kind, x, when, bound)
    else:
        of = feeds.inputs(REFERENCE, bound, len(x))
        alarms = feeds.openings(of, x, when)
    told.add(alarms, T0, case.horizon)
    if days is not None:
        late = zip(told.delays, alarms, strict=True)
        told.delays = [d for d, rows in late if not any(r <= T0 for r in rows)]
    return told


def added(into: Delays, alarms: feeds.Alarms, start: int, horizon: int) -> None:
    """Alarms of a detector that began at the row `start`."""
    into.add([[r - start for r in rows] for rows in alarms], T0 - start, horizon)


def rate(told: list[Delays]) -> float:
    """False alarms a million values."""
    return sum(d.false for d in told) / max(sum(d.values for d in told), 1) * 1e6


def quiet(told: list[Delays]) -> str:
    return f"{rate(told):.3g}" if any(d.values for d in told) else "–"


def table(cases: list[Case], found: dict[int, Cell], us: dict[str, list[float]]) -> None:
    """Found share and delay of each change, and the false alarms of each detector below."""
    names = list(dict.fromkeys(name for n in found for name in found[n]))
    head("change", *names)
    for n, told in found.items():
        line([cases[n].name, *(told[k].text() if k in told else "–" for k in names)])
    for title, dependent in (("", False), ("AR(1) 0.7: ", True)):
        rows = [told for n, told in found.items() if (cases[n].name == DEPENDENT) == dependent]
        if rows:
            rates = (quiet([told[k] for told in rows if k in told]) for k in names)
            line([f"**{title}false alarms before the change, a million values**", *rates])
    line(["µs of CPU a value", *(f"{np.mean(us[k]):.2g}" for k in names)])


def median(told: Delays) -> float:
    d = np.sort(told.delays)
    return float(d[math.ceil(0.5 * len(d)) - 1])


def at_one_rate(
    cases: list[Case], streams: dict[int, tuple[str, Float]], found: dict[int, Cell]
) -> None:
    """The product's detector at the rate of false alarms that each of frouros has here."""
    print("\n### At the rate of false alarms of each\n")
    columns = ("false alarms a million values", "ours there", "found more often: ours / theirs")
    head("frouros", *columns, "sooner: ours / theirs", "where ours is later, median")
    for kind in READS:
        of_kind = [n for n in found if streams[n][0] == kind]
        for name in dict.fromkeys(k for n in of_kind for k in found[n] if k != "ours"):
            mine = [n for n in of_kind if name in found[n]]
            clean = [n for n in mine if cases[n].name != DEPENDENT]
            false = rate([found[n][name] for n in clean])
            if false > TOO_OFTEN:
                line([f"{name}, {kind}", f"{false:,.0f}", *["–"] * 3, "it alarms all the time"])
                continue
            at = {n: found[n]["ours"] for n in mine}
            if false:
                at = {n: ours(cases[n], streams[n][1], A_DAY / 1e6 / false) for n in mine}
            budget = "" if false else " (the default budget)"
            there = quiet([at[n] for n in clean]) + budget
            pairs = {cases[n].name: (at[n], found[n][name]) for n in mine}
            line([f"{name}, {kind}", f"{false:.3g}", there, *compared(pairs)])


def compared(pairs: dict[str, tuple[Delays, Delays]]) -> tuple[str, str, str]:
    """Of how many changes ours finds more or finds them sooner, theirs likewise; and where."""
    pairs = {name: pair for name, pair in pairs.items() if pair[0].delays}
    shares = [[np.isfinite(d.delays).mean() for d in pair] for pair in pairs.values()]
    delays = {name: [median(d) for d in pair] for name, pair in pairs.items()}
    later = [f"{name}: {shown(a)} / {shown(b)}" for name, (a, b) in delays.items() if a > b]
    more = [sum(a > b for a, b in shares), sum(a < b for a, b in shares)]
    return (
        f"{more[0]} / {more[1]} of {len(pairs)}",
        f"{sum(a < b for a, b in delays.values())} / {len(later)}",
        "; ".join(later) or "nowhere",
    )


def run(cases: list[Case], seeds: int, only: list[str]) -> None:
    streams, found, us = dict[int, tuple[str, Float]](), dict[int, Cell](), dict[str, list[float]]()
    for n, case in enumerate(cases):
        rng = np.random.default_rng([16, CASES.index(case)])
        x = case.make(rng, T0 + case.horizon, T0)[:seeds]
        kind = reads(case, x)
        if kind is not None and case.name not in LEFT_OUT:
            streams[n] = kind, x
    for n, (kind, x) in streams.items():
        began = time.process_time()
        found[n] = {"ours": ours(cases[n], x)}
        us.setdefault(f"ours {kind}", []).append((time.process_time() - began) / x.size * 1e6)
    for told in theirs(streams, only):
        into = found[told["case"]].setdefault(told["detector"], Delays())
        added(into, told["alarms"], told["start"], cases[told["case"]].horizon)
        us.setdefault(told["detector"], []).append(told["us"])
        print(f"{cases[told['case']].name}: {told['detector']}", file=sys.stderr)
    for kind, title in READS.items():
        part = {n: told for n, told in found.items() if streams[n][0] == kind}
        if part:
            print(f"\n### frouros: {title}\n")
            table(cases, part, us | {"ours": us[f"ours {kind}"]})
    at_one_rate(cases, streams, found)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--install",
        nargs="?",
        const=sys.executable,
        metavar="PYTHON",
        help="make .bench-frouros with this interpreter and stop; frouros needs one below 3.13",
    )
    parser.add_argument("--seeds", type=int, default=10, help=f"streams, at most {FEATURES}")
    parser.add_argument("--only", nargs="+", default=[], metavar="DETECTOR")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    a = parser.parse_args(argv)
    if a.install:
        compare.install(ENVIRONMENT, "frouros", a.install)
        return
    if not PYTHON.exists():
        print("frouros is skipped: `python bench/detection_frouros.py --install` brings it")
        return
    if a.quick:
        few = [c for c in CASES if c.name in ("mean +1 sd", "errors 10 to 20 %")]
        run(few, 3, ["CUSUM", "DDM"])
    else:
        run(CASES, a.seeds, a.only)


if __name__ == "__main__":
    main()
