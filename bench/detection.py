"""
What the detectors of drift find, how soon, and how often they alarm on clean rows, by seeded
streams through the product's own monitors at the default budget: 1 false alarm in 30 days, 20
features, a million events a day.

Rule of the file: all delays are at one budget, and no table of them is without false alarms.
`docs/detection.md` has what it printed.

    python bench/detection.py                      # all tables, minutes
    python bench/detection.py --only delays clean
    python bench/detection.py --only real --csv electricity.csv
    python bench/detection.py --quick              # tiny, to see that it runs
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detection_budget import budgets, cost
from detection_faults import faults
from detection_streams import CASES
from detection_tables import CLEAN, clean, delays, real

TABLES = ("delays", "clean", "budget", "faults", "cost", "real")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--seeds", type=int, default=100, help="runs of each change")
    parser.add_argument("--scale", type=float, default=1.0, help="of clean rows and of days")
    parser.add_argument("--csv", type=Path, help="real rows: numbers, and the class (0, 1) last")
    parser.add_argument("--quick", action="store_true")
    a = parser.parse_args()
    few = CASES[2::9] if a.quick else CASES
    scale = min(a.scale, 0.02) if a.quick else a.scale
    if "delays" in a.only:
        delays(5 if a.quick else a.seeds, few, (6_000,) if a.quick else (10_000, 20_000))
    if "clean" in a.only:
        clean(scale, 0 if a.quick else 20_000, CLEAN[:5:4] if a.quick else CLEAN)
    if "budget" in a.only:
        budgets(scale / 20 if a.quick else scale)
    if "faults" in a.only:
        faults(6 if a.quick else 200)
    if "cost" in a.only:
        cost(15_000 if a.quick else 200_000)
    if "real" in a.only and a.csv is not None:
        real(a.csv)


if __name__ == "__main__":
    main()
