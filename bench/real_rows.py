"""
Real rows with one fault: is the fault told, and nothing else?

Rule of the file: each run is a CSV file that `stream-monitor replay` reads with its defaults, and
is scored from the alerts it writes. The rows are those of tables that ship with scikit-learn, and
of any file that is named: in random order, drawn again and again where a table is short. The model
is a logistic regression, and answers the changed rows. So what a fault does to its answers and
errors is no false alarm.

    python bench/real_rows.py                       # about 5 minutes
    python bench/real_rows.py --runs 1 --tables wine
    python bench/real_rows.py --csv rows.csv        # its last column is the class, 0 or 1
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from click.testing import CliRunner
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stream_monitor.cli import cli

Float = NDArray[np.float64]
ROWS, CHANGE, BETWEEN_MS, START_MS = 20_000, 10_000, 86.4, 1_700_000_000_000
FEATURES_MAX, TRAINED = 20, 3_000
CATEGORY_EVERY, NEW_LEVEL = 4, 9.0
"""Each fourth feature is written as a category: one of four, by where a value is in the column."""
TABLES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "breast_cancer": lambda y: y == 1,
    "wine": lambda y: y == 1,
    "digits": lambda y: y % 2 == 1,
    "diabetes": lambda y: y > np.median(y),
}
"""Tables of scikit-learn, with what the model is asked."""
Fault = Callable[[np.random.Generator, Float], Float]


def _some(share: float, value: float) -> Fault:
    return lambda rng, x: np.where(rng.random(len(x)) < share, value, x)


FAULTS: dict[str, Fault | None] = {
    "none": None,
    "mean +0.5 sd": lambda _, x: x + x.std() / 2,
    "mean -1 sd": lambda _, x: x - x.std(),
    "standard deviation × 2": lambda _, x: x.mean() + (x - x.mean()) * 2,
    "unit × 100": lambda _, x: x * 100,
    "stuck": lambda _, x: np.full(len(x), x[0]),
    "missing in 10 %": _some(0.1, np.nan),
    "0 in 20 %": _some(0.2, 0.0),
    "20 % of the labels wrong": None,
}
LABELS, NONE = "20 % of the labels wrong", "none"
OF_CATEGORIES: dict[str, Fault] = {
    "new category in 10 %": _some(0.1, NEW_LEVEL),
    "two categories swapped": lambda _, x: np.select([x == 0, x == 3], [3.0, 0.0], x),
}
FAULTS |= OF_CATEGORIES


class Table(NamedTuple):
    """Rows of numbers, and a class each."""

    name: str
    columns: list[str]
    rows: Float
    labels: NDArray[np.bool_]


class Score(NamedTuple):
    """What one run told."""

    found: bool
    """Whether an alert names the fault."""
    delay: int | None
    """Rows until then."""
    false: int
    """Notifications before the change, and features named that did not change."""

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); a run without a fault has 1 if nothing is told."""
        return 2 * self.found / (1 + self.found + self.false)


def tables(names: list[str], files: list[Path]) -> Iterator[Table]:
    """The tables of these names, and those of files."""
    for name in names:
        found = getattr(datasets, f"load_{name}")()
        rows = np.asarray(found.data, np.float64)
        varied = np.flatnonzero(rows.std(axis=0) > 0)[:FEATURES_MAX]
        columns = [str(found.feature_names[k]).replace(" ", "_") for k in varied]
        yield Table(name, columns, rows[:, varied], TABLES[name](found.target))
    for path in files:
        with path.open(newline="") as file:
            head, *body = csv.reader(file)
        rows = np.array(body, np.float64)
        yield Table(path.stem, head[:-1], rows[:, :-1], rows[:, -1] == 1)


def write(path: Path, table: Table, fault: str, seed: list[int]) -> str:
    """Write the rows of one run, with the answers of a model; the changed column."""
    rng = np.random.default_rng(seed)
    short = len(table.rows) < ROWS
    order = rng.integers(0, len(table.rows), ROWS) if short else rng.permutation(len(table.rows))
    rows, labels = table.rows[order[:ROWS]].copy(), table.labels[order[:ROWS]].copy()
    categories = np.arange(rows.shape[1]) % CATEGORY_EVERY == CATEGORY_EVERY - 1
    for k in np.flatnonzero(categories):
        cuts = np.unique(np.quantile(rows[:TRAINED, k], [0.5, 0.8, 0.95]))
        rows[:, k] = np.searchsorted(cuts, rows[:, k])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500))
    model.fit(rows[:TRAINED], labels[:TRAINED])
    filled = rows[:TRAINED].mean(axis=0)
    often = [(column == np.median(column)).mean() for column in rows.T]
    fit = (np.array(often) < 0.9) & (categories == (fault in OF_CATEGORIES))
    at = int(rng.choice(np.flatnonzero(fit)))
    change = FAULTS[fault]
    if change is not None:
        rows[CHANGE:, at] = change(rng, rows[CHANGE:, at])
    if fault == LABELS:
        labels[CHANGE:] ^= rng.random(ROWS - CHANGE) < 0.2
    known = np.where(np.isnan(rows) | (categories & (rows == NEW_LEVEL)), filled, rows)
    score = model.predict_proba(known)[:, 1]
    times = START_MS + (np.arange(ROWS) * BETWEEN_MS).astype(np.int64)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*table.columns, "prediction", "score", "label", "timestamp"])
        for row, p, label, time in zip(rows, score, labels, times, strict=True):
            cells = [
                "" if np.isnan(x) else f"q{x:.0f}" if category else f"{x:.6g}"
                for x, category in zip(row, categories, strict=True)
            ]
            out.writerow([*cells, int(p > 0.5), f"{p:.6f}", int(label), time])
    return LABELS if fault == LABELS else table.columns[at]


def replayed(path: Path) -> list[dict[str, Any]]:
    """The alerts of a replay with the defaults."""
    alerts = path.with_suffix(".jsonl")
    alerts.unlink(missing_ok=True)
    result = CliRunner().invoke(cli, ["replay", str(path), "--alerts", str(alerts)])
    if result.exit_code:
        raise SystemExit(f"{path}: {result.output}")
    return [json.loads(line) for line in alerts.read_text().splitlines()]


def scored(alerts: list[dict[str, Any]], fault: str, changed: str) -> Score:
    """Compare what was told with what was done."""
    change_ms = np.datetime64(int(START_MS + CHANGE * BETWEEN_MS), "ms")
    false, delays = set[str](), list[int]()
    for alert in alerts:
        after = np.datetime64(alert["starts_at"].rstrip("Z"), "ms") - change_ms
        rows = int(after / np.timedelta64(1, "ms") / BETWEEN_MS)
        named = {c["subject"] for c in alert["evidence"].get("contributors", [])}
        named |= {alert["subject"]}
        told = alert["status"] == "firing" and alert["notify"]
        if told and (rows < 0 or fault == NONE):
            false.add(alert["incident"])
        elif alert["kind"] == "data_drift":
            false |= named - {changed, "__features__"}
        found = (
            alert["kind"] in ("concept_drift", "performance", "calibration")
            if changed == LABELS
            else changed in named
        )
        if found and rows >= 0 and alert["severity"] != "info":
            delays.append(rows)
    found = bool(delays) if fault != NONE else not false
    return Score(found, min(delays, default=None), len(false))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=4, help="runs of each table and fault")
    parser.add_argument("--tables", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--csv", nargs="*", type=Path, default=[])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    scores: dict[str, list[Score]] = {fault: [] for fault in FAULTS}
    with tempfile.TemporaryDirectory() as folder:
        for number, table in enumerate(tables(options.tables, options.csv)):
            for index, fault in enumerate(FAULTS):
                for run in range(options.runs):
                    path = Path(folder) / f"{table.name}.csv"
                    changed = write(path, table, fault, [options.seed, number, index, run])
                    score = scored(replayed(path), fault, changed)
                    scores[fault].append(score)
                    if score.f1 < 1:
                        print(f"{table.name}, {fault}, {changed}, run {run}: {score}", flush=True)
    print("| fault | runs | told | rows until then, median / p90 | false | mean F1 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for fault, of in scores.items():
        delays = [s.delay for s in of if s.delay is not None]
        spread = "–"
        if delays:
            spread = f"{np.median(delays):,.0f} / {np.quantile(delays, 0.9):,.0f}"
        told = "–" if fault == NONE else sum(s.found for s in of)
        f1 = np.mean([s.f1 for s in of])
        print(
            f"| {fault} | {len(of)} | {told} | {spread} | {sum(s.false for s in of)} | {f1:.3f} |"
        )
    every = [s.f1 for of in scores.values() for s in of]
    print(f"| **all** | {len(every)} | | | | {np.mean(every):.3f} |")


if __name__ == "__main__":
    main()
