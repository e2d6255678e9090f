"""
Where the drift detectors of frouros alarm on streams that `detection_frouros.py` wrote.

Rule of the file: only frouros, numpy and the standard library, because it is run by the interpreter
of `.bench-frouros`. Parameters are the defaults of frouros. A detector is reset at its alarm and
goes on; after the first alarm behind the change its stream ends. Rows are counted from 1.

What to know of frouros 0.9.0: its ADWIN refuses a negative sum, so values go in as distances from
the smallest one, which changes nothing of its test. Tests of two samples compare each window of
100 rows with the first `--reference` rows, at the 0.001 of its README; its PSI has no threshold of
its own, and gets the usual 0.1. KSWIN costs 0.3 ms a value, so it reads few streams, for 2,000 rows
before and behind the change; it keeps 100.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from frouros.detectors import concept_drift, data_drift

WINDOW, ALPHA, PSI_LIMIT = 100, 0.001, 0.1
READS = {
    "numbers": (
        "ADWIN",
        "CUSUM",
        "PageHinkley",
        "GeometricMovingAverage",
        "KSWIN",
        "KSTest",
        "PSI",
    ),
    "levels": ("ChiSquareTest",),
    "errors": ("DDM", "EDDM", "RDDM", "HDDMA", "HDDMW", "ECDDWT", "STEPD", "ADWIN"),
}
"""What each is made for."""
KSWIN_STREAMS, KSWIN_ROWS = 5, 2_000


def values(name: str, x: np.ndarray, change: int) -> list[int]:
    """Rows at which a detector of single values alarms."""
    config = concept_drift.KSWINConfig(seed=0) if name == "KSWIN" else None
    found, of = list[int](), getattr(concept_drift, name)(config=config)
    if name == "ADWIN":
        x = x - x.min()
    for row, value in enumerate(x.tolist(), 1):
        of.update(value=value)
        if of.drift:
            found.append(row)
            if row > change:
                break
            of.reset()
    return found


def windows(name: str, x: np.ndarray, reference: int, change: int) -> list[int]:
    """Ends of the windows that differ from the first `reference` rows."""
    found, of = list[int](), getattr(data_drift, name)()
    of.fit(X=x[:reference])
    for end in range(reference + WINDOW, len(x) + 1, WINDOW):
        told, _ = of.compare(X=x[end - WINDOW : end])
        if told.distance > PSI_LIMIT if name == "PSI" else told.p_value <= ALPHA:
            found.append(end)
            if end > change:
                break
    return found


def told(file: Path, only: list[str], reference: int, change: int) -> Iterator[dict[str, object]]:
    streams = np.load(file)
    for name in READS[file.stem.split("-")[1]]:
        if only and name not in only:
            continue
        began, start, some = time.process_time(), 0, streams
        if hasattr(data_drift, name):
            start = reference
            alarms = [windows(name, x, reference, change) for x in some]
        else:
            if name == "KSWIN":
                some = streams[:KSWIN_STREAMS, : change + KSWIN_ROWS]
                start = change - KSWIN_ROWS
            alarms = [[start + r for r in values(name, x[start:], change - start)] for x in some]
        read = sum((a[-1] if a and a[-1] > change else some.shape[1]) - start for a in alarms)
        yield {
            "case": int(file.stem.split("-")[0]),
            "detector": name,
            "start": start,
            "alarms": alarms,
            "us": (time.process_time() - began) / read * 1e6,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with NUMBER-{numbers,levels,errors}.npy")
    parser.add_argument("--only", nargs="*", default=[], metavar="DETECTOR")
    parser.add_argument("--reference", type=int, required=True, help="rows")
    parser.add_argument("--change", type=int, required=True, help="rows before the change")
    a = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)  # STEPD divides by 0 before the first error
    for file in sorted(a.folder.glob("*.npy")):
        for line in told(file, a.only, a.reference, a.change):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
