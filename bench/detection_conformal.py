"""
The detector `conformal` on errors, whose rate of false alarms is a theorem: its delays beside those
of the detector on counts, at one budget.

Rule of the file: streams and budget are those of `detection.py`.

    python bench/detection_conformal.py
"""

from __future__ import annotations

import argparse

import numpy as np
from detection_feeds import BOUNDS, Alarms, alone, times
from detection_streams import CASES, FEATURES
from detection_tables import head, line

from stream_monitor.detectors.base import make

A_DAY, T0, HORIZON = 1_000_000, 10_000, 20_000


def cell(alarms: Alarms) -> str:
    """Found share, median and 90 % quantile of the delay; and false alarms before the change."""
    first = [next((a - T0 for a in of if a >= T0), np.inf) for of in alarms]
    false = sum(a < T0 for of in alarms for a in of)
    late = np.sort(first)
    shown = [f"{late[int(q * len(late))]:,.0f}" for q in (0.5, 0.9)]
    return f"{np.isfinite(late).mean():.0%} {' / '.join(shown)}, {false} false"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help=f"of {FEATURES} streams each")
    parser.add_argument("--quick", action="store_true", help="one seed, to see that it runs")
    given = parser.parse_args()
    labels = BOUNDS["errors"] * A_DAY
    head("errors", "evidence", "conformal")
    for case in [c for c in CASES if c.kind == "errors"][: 1 if given.quick else None]:
        ours, theirs = list[list[int]](), list[list[int]]()
        for seed in range(1 if given.quick else given.seeds):
            x = case.make(np.random.default_rng(seed), T0 + HORIZON, T0)
            ours += alone("errors", x, times(x.shape[1]), BOUNDS["errors"])
            theirs += [(make("conformal", {"threshold": labels}).update(v) + 1).tolist() for v in x]
        line([case.name, cell(ours), cell(theirs)])


if __name__ == "__main__":
    main()
