"""
The benchmarks run, and what they compare does the same work.

Tiny sizes, and nothing is asserted about time; those that need Kafka are in
`tests/kafka/test_bench.py`.
"""

from __future__ import annotations

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

BENCH = Path(__file__).parents[2] / "bench"


def bench(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCH / script), *arguments],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Modules of `bench` and `bench/peers`, as they find each other."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.syspath_prepend(str(BENCH / "peers"))
    return importlib.import_module


def test_every_stage_of_the_core_is_timed() -> None:
    lines = [
        json.loads(line)
        for line in bench(
            "bench_core.py", "--events", "8000", "--rounds", "1", "--json"
        ).splitlines()
    ]
    assert {line["stage"].split()[0] for line in lines} == {"split", "decode", "pack", "fold"}
    assert all(line["us_min"] > 0 for line in lines)


def test_the_cost_of_experiments_is_that_of_every_row_in_one() -> None:
    sizes = ("--pairs", "8000", "--models", "3", "--rounds", "1", "--units", "3000")
    units, fold, snapshot = map(
        json.loads, bench("experiment_cost.py", *sizes, "--json").splitlines()
    )
    assert (units["units"], units["outcomes"]) == (3_000, 3)
    assert (fold["experiments"], fold["rows"]) == (3, 8_000)
    assert fold["us a pair"] > 0
    assert snapshot["MB"] > snapshot["MB, none"]


def test_bytes_of_a_pending_prediction() -> None:
    lines = [
        json.loads(line)
        for line in bench("memory.py", "--only", "pending", "--pending", "20000").splitlines()
    ]
    assert [line["waiting"] for line in lines] == [5_000, 10_000, 15_000, 20_000]
    # the columns of a row alone are 46 bytes
    assert all(46 <= line["bytes_each"] < 300 for line in lines)


def test_the_table_of_estimates_is_printed(imported: Any, capsys: Any) -> None:
    estimate = imported("estimate")
    estimate.main(["--seeds", "1", "--rows", "9000"])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == len(estimate.STREAMS)
    said = {line.split(" | ")[0][2:]: line.split(" | ")[6:8] for line in lines}
    assert said["clean"] == ["0", ""]
    assert said["a quarter of labels turned"] == ["0", "1 of 1"]
    estimate.main(["--false-alarms", "5000"])
    told = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in told] == [
        "said to be invalid 0 times in 5,000 labels"
    ] * len(estimate.CLEAN)


def test_training_data_is_timed() -> None:
    told = json.loads(bench("training.py", "--rows", "9000", "--json"))
    assert told["rows"] > 2 * 9000
    assert 5 < told["bytes_row"] < 500
    assert min(told["archive_rows_s"], told["collect_s"], told["check_rows_s"]) > 0


def test_detector_benchmarks_run() -> None:
    assert "ns a value" in bench("bench_binning.py", "--rounds", "1")


def test_the_tables_of_detection_are_printed() -> None:
    """On few runs: changes are found, clean rows are quiet, and the right feature is named."""
    told = bench("detection.py", "--quick")
    rows = [[c.strip() for c in x.strip("| ").split(" | ")] for x in told.splitlines() if "|" in x]
    shift = next(r for r in rows if r[0] == "mean +0.5 sd")
    assert [cell.split()[0] for cell in shift[2:5]] == ["100%"] * 3
    false = dict(zip(rows[0], next(r for r in rows if r[0].startswith("**false")), strict=True))
    assert float(false["every 100 rows"]) > 1_000
    assert float(false["told both laws"]) == 0
    assert next(r for r in rows if r[0].startswith("independent"))[3] == "0"
    assert [r[4] for r in rows if r[0] == "100/1d"] == ["0"] * 2
    assert next(r for r in rows if r[0] == "**all**")[1:4] == ["6"] * 3


def test_the_detectors_of_frouros_are_compared_or_skipped(imported: Any, capsys: Any) -> None:
    frouros = imported("detection_frouros")
    frouros.main(["--quick"])
    told = capsys.readouterr().out
    if not frouros.PYTHON.exists():
        assert told == (
            "frouros is skipped: `python bench/detection_frouros.py --install` brings it\n"
        )
        return
    rows = [[c.strip() for c in x.strip("| ").split(" | ")] for x in told.splitlines() if "|" in x]
    for change in ("mean +1 sd", "errors 10 to 20 %"):
        assert [cell.split()[0] for cell in next(r for r in rows if r[0] == change)[1:]] == [
            "100%"
        ] * 2
    assert {r[0] for r in rows} >= {"CUSUM, numbers", "DDM, errors"}


def test_what_rules_of_windows_flag(imported: Any) -> None:
    """Their statistics are those of SciPy, ties included; a test at 5 % flags 5 % of clean data."""
    rules, rng = imported("detection_rules"), np.random.default_rng(1)
    reference, windows = rng.normal(size=999).round(1), rng.normal(size=(50, 100)).round(1)
    expected = [stats.ks_2samp(reference, w).statistic for w in windows]
    np.testing.assert_allclose(rules.apart(reference, windows), expected, rtol=1e-12)
    levels = rng.integers(0, 4, 6_000).astype(float)
    first, rest = levels[:1_000], levels[1_000:]
    at = rules.places(first, levels)
    base, counts = rules.counted(at[:1_000], 1_000, 4)[0], rules.counted(at[1_000:], 100, 4)
    p = [stats.chi2_contingency([base, c], correction=False).pvalue for c in counts]
    assert rules.differs(first, rest, counts, base, 100).tolist() == [x < 0.05 for x in p]
    far, js = rules.distances(base / 1_000, counts / 100)
    for i, q in enumerate(counts / 100):
        q = np.maximum(q, 1e-4)
        expected_js = distance.jensenshannon(base / 1_000, q, 2)
        assert js[i] == pytest.approx(expected_js, abs=1e-3)
        relative = stats.entropy(q, base / 1_000) + stats.entropy(base / 1_000, q)
        assert far[i] == pytest.approx(relative, abs=1e-2)
    assert 0.02 < rules.shares([rng.normal(size=40_000)], 20_000, 20_000)[4] < 0.09


def test_the_harness_of_experiments_sees_a_wrong_analysis() -> None:
    """An analysis by event tells equal arms apart; that by unit does not, on the same rows."""
    lines = bench("experiments.py", "--table", "aa", "--runs", "12", "--row", "Pareto activity in")
    name, ours, by_event, peeking, _ = (
        c.strip() for c in lines.splitlines()[-1].strip("|").split("|")
    )
    assert name == "Pareto activity in bursts"
    assert float(ours.partition("%")[0]) < 20
    assert float(by_event.partition("%")[0]) > 50
    assert peeking.count("%") == 3


def test_the_harness_of_champions_sees_a_wrong_rule() -> None:
    """Bounds by rows and an undivided risk promote equal models; those of the product do not."""
    printed = [part.splitlines() for part in bench("champion.py", "--runs", "600").split("\n\n")]
    tables = [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
        for lines in printed
        if lines[0].startswith("| ")
    ]
    told = dict(zip(("rules", "creep", "best-of", "units", "metrics"), tables, strict=True))
    equal = {row[0]: row[1:] for row in told["rules"]}["1,000, 10%, +0"]
    assert float(equal[0].rstrip("%")) > 40
    assert equal[-1] == "pass"
    assert float({row[0]: row for row in told["best-of"]}["10"][1].rstrip("%")) > 20
    assert all(float(row[1].rstrip("%")) > 25 for row in told["units"])
    assert {row[-1] for name in ("best-of", "units", "metrics") for row in told[name]} == {"pass"}
    assert {row[-1] for row in told["creep"]} == {"", "≤ 0.002: pass", "≤ 0.01: pass"}


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("burn-in", "yes/no 90 %, 50%"),
        ("power", "90→85"),
        ("canary", "2.0%, 5%"),
        ("canary", "ramp"),
        ("sample-ratio", "55%"),
        ("small-arm", "90 %, 5%"),
        ("tails", "scale log, 50%"),
        ("labels", "sooner"),
        ("whole", "no delay"),
        ("rollbacks", "are units"),
        ("peeking", "every day"),
    ],
)
def test_tables_of_experiments_are_printed(table: str, row: str) -> None:
    lines = bench("experiments.py", "--table", table, "--runs", "3", "--row", row).splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    assert len(cells) == 3
    assert {len(row) for row in cells} == {len(cells[0])}


@pytest.mark.parametrize(
    ("table", "row"), [("aa", "corrected later"), ("canary", "2.0%, 5%"), ("sample-ratio", "55%")]
)
def test_the_fold_of_the_worker_says_what_a_plain_one_says(table: str, row: str) -> None:
    """Two implementations, the same rows: equal verdicts at equal rows."""
    told = [
        bench("experiments.py", "--table", table, "--row", row, "--runs", "4", "--fold", fold)
        for fold in ("plain", "worker")
    ]
    assert told[0].splitlines()[3:] == told[1].splitlines()[3:]
    assert len(told[0].splitlines()) == 6


def test_bounds_of_experiments_are_missed_by_a_wrong_analysis() -> None:
    """The command says so, with the row and its bound; the right analysis keeps the same bound."""
    table = ("--table", "aa", "--runs", "8", "--row", "Pareto activity in", "--check")
    done = subprocess.run(
        [sys.executable, str(BENCH / "experiments.py"), *table, "--fold", "by-event"],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].endswith("≤ 1 of 8: MISSED; a wrong one more: holds |")
    assert "missed: Pareto activity in bursts: ≤ 1 of 8" in done.stderr
    right = bench("experiments.py", *table, "--fold", "worker")
    assert right.endswith("≤ 1 of 8: holds; a wrong one more: holds |\n")


def test_columns_and_the_way_through_a_log_tell_the_same_verdicts() -> None:
    lines = bench("experiments.py", "--table", "path", "--runs", "1", "--check").splitlines()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines[5:]]
    assert [row[4] for row in rows] == ["1 of 1"] * 6
    assert sum(int(row[2]) for row in rows) >= 2, "there are verdicts to compare"


def test_the_router_is_timed_and_compared_with_the_remainder() -> None:
    printed = bench("bench_router.py", "--keys", "200", "--rounds", "3")
    costs = {line[:26].strip(): float(line.split()[-2]) for line in printed.splitlines()[1:]}
    assert {"Router, text", "xxh3, text", "% 100, whole number"} <= set(costs)
    assert all(ns > 0 for ns in costs.values())
    assert bench("modulo_split.py") in (BENCH.parent / "docs" / "client.md").read_text()
    counted = {
        line[:50].strip(): line[50:].replace(" %", "").split()
        for line in bench("modulo_split.py", "--users", "300").splitlines()[1:]
    }
    assert counted["the request id 'a-17'"] == ["TypeError", "a"]
    seen = counted["users who see both models"]
    assert float(seen[0]) > 95
    assert float(seen[1]) == 0
    assert counted["b's share, ids in steps of 100"][0] == "100.0"
    assert float(counted["b's share, ids in steps of 100"][1]) == pytest.approx(30, abs=4)


def test_every_way_to_report_a_call_is_timed() -> None:
    *lines, end = bench("bench_client.py", "--calls", "50", "--rounds", "2").splitlines()
    costs = {line[:26].strip(): float(line.split()[-2]) for line in lines[1:]}
    assert {"with monitor.call()", "watch, def", "watch, async def", "MonitorMiddleware"} < set(
        costs
    )
    assert all(us > 0 for us in costs.values())
    assert end == "sent 400, dropped 0"


@pytest.mark.parametrize("module", ["workload", "measure", "cpu_profile", "steady"])
def test_examples(imported: Any, module: str) -> None:
    result = doctest.testmod(imported(module))
    assert result.attempted
    assert not result.failed


def test_shares_add_up(imported: Any) -> None:
    shares = imported("cpu_profile").shares(
        [
            "a (x.py:1);_fold (stream_monitor/monitors/inputs.py:1) 3",
            "a (x.py:1) 1",
            "split (stream_monitor/kafka/deliveries.py:60) 4",
        ]
    )
    assert shares == {"fetch": 50.0, "statistics": 37.5, "rest": 12.5}


def test_the_columnar_peer_finds_what_the_peer_with_river_finds(imported: Any) -> None:
    workload, columnar, river_monitors = (
        imported("workload"),
        imported("columnar"),
        imported("river_monitors"),
    )
    events = list(workload.events(12_000, models=2))
    monitor, inputs, quality = (
        columnar.Monitor("both"),
        river_monitors.Inputs(),
        river_monitors.Quality(),
    )
    for start in range(0, len(events), 1_000):
        part = events[start : start + 1_000]
        if start % 2_000:  # labels before and after their predictions
            monitor.on_labels([e.label for e in part])
            monitor.on_predictions([e.prediction for e in part])
        else:
            monitor.on_predictions([e.prediction for e in part])
            monitor.on_labels([e.label for e in part])
        monitor.evaluate()
    for event in events:
        prediction, label = json.loads(event.prediction), json.loads(event.label)
        inputs.update(prediction)
        quality.update(
            prediction["model"],
            prediction["version"],
            prediction["prediction"],
            label["label"],
            label["timestamp"],
        )
    assert len(monitor.versions) == 2
    assert not monitor.predictions
    assert not monitor.labels
    for key, version in monitor.versions.items():
        signals = list(inputs.versions[key].signals.values())
        assert version.missing.tolist() == [s.missing for s in signals]
        n, total, squares = version.moments
        z = total / n
        assert version.mean[:, 0] + version.sd[:, 0] * z == pytest.approx(
            [s.mean.get() for s in signals]
        )
        assert version.sd[:, 0] ** 2 * (squares / n - z * z) == pytest.approx(
            [s.var.get() for s in signals], rel=1e-3
        )
        assert version.bins.sum(axis=1).tolist() == [sum(s.bins) for s in signals]
        assert (
            np.abs(version.bins - [s.bins for s in signals]).max() <= 5
            # one interpolates its edges and the other does not, and one counts missing values to
            # the reference
        )
        of = quality.versions[key]
        predicted, actual, _ = version.window
        assert (predicted == actual).sum() == of.correct
        assert sum(of.confusion) == 6_000
