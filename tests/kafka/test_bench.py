"""
Each benchmark that needs Kafka, once and small: it runs to its end and prints what it promises.

Nothing is asserted about time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kafka
BENCH = Path(__file__).parents[2] / "bench"


def bench(script: str, bootstrap: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCH / script), "--bootstrap", bootstrap, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(out: str) -> list[Any]:
    return [json.loads(line) for line in out.splitlines()]


def test_worker(kafka: Any) -> None:
    (found,) = lines(bench("worker.py", kafka.bootstrap, "--events", "20000", "--labels"))
    assert found["complete"]
    assert (found["joined"], found["labels lost"]) == (20_000, 0)
    assert 0 < found["events"] <= 20_000
    assert 400 < found["bytes"] < 460


def test_compare_with_the_peers_that_need_no_more_than_the_tests_do(kafka: Any) -> None:
    out = bench(
        "compare.py",
        kafka.bootstrap,
        "--rounds",
        "2",
        "--events",
        "12000",
        "--work",
        "predictions",
        "both",
        "--peers",
        "columnar",
        "--seconds",
        "60",
    )
    rows = [line.split("|") for line in out.splitlines()[2:]]
    assert [(row[1].strip(), row[2].strip().split(":")[0]) for row in rows] == [
        (work, who) for work in ("predictions", "both") for who in ("stream-monitor", "by hand")
    ]
    assert all("cut" not in row[9] for row in rows), "the second round counts all of it again"


def test_before_after(kafka: Any) -> None:
    out = bench(
        "before_after.py", kafka.bootstrap, "--before", "HEAD", "--rounds", "1", "--events", "12000"
    )
    rows = [[cell.strip() for cell in line.split("|")] for line in out.splitlines()[2:]]
    assert [(row[1], row[5]) for row in rows] == [("predictions", "1"), ("pairs", "1")]
    assert all(int(row[at].replace(",", "")) > 0 for row in rows for at in (2, 3))


def test_latency(kafka: Any) -> None:
    found = lines(
        bench(
            "latency.py", kafka.bootstrap, "--rate", "100", "--seconds", "4", "--scrape-ms", "200"
        )
    )
    assert [line.get("phase") for line in found] == ["idle", "gauge", "alert", "alert", None]
    assert found[1]["n"] > 0
    assert sum(line["n"] for line in found[2:4]) > 0


def test_memory_of_many_models(kafka: Any) -> None:
    (found,) = lines(
        bench(
            "memory.py", kafka.bootstrap, "--only", "many", "--events", "20000", "--models", "200"
        )
    )
    assert found["models"] == 200
    assert found["complete"]


def test_recovery(kafka: Any) -> None:
    (found,) = json.loads(
        bench(
            "recovery.py",
            kafka.bootstrap,
            "--pending",
            "8000",
            "--rate",
            "400",
            "--before",
            "1",
            "--signals",
            "SIGTERM",
            "--json",
        )
    )
    assert found["exit code"] == 0
    assert found["predictions stored"] >= 8_000
    assert (found["records folded again"], found["rows written again by INGEST"]) == (0, 0)


def test_soak(kafka: Any) -> None:
    found = json.loads(
        bench(
            "soak.py",
            kafka.bootstrap,
            "--minutes",
            "0.1",
            "--rate",
            "1000",
            "--sample",
            "2",
            "--json",
        )
    )
    assert not found["problems"]
    assert found["records sent"] > 3_000
    assert set(found["dead letters"]) >= {"invalid_json", "out_of_range", "too_large", "too_deep"}
    assert found["odd ones among them, %"] > 5


def test_profile(kafka: Any) -> None:
    if not (
        shutil.which("py-spy")
        or any(
            (f / "py-spy").exists()
            for f in (Path(sys.executable).parent, BENCH.parent / ".bench-venv" / "bin")
        )
    ):
        pytest.skip("py-spy is not installed (dependency group `bench`)")
    if os.geteuid():
        pytest.skip("py-spy needs to be root to look at another process")
    (found,) = lines(bench("cpu_profile.py", kafka.bootstrap, "--events", "60000", "--json"))
    assert sum(found.values()) == pytest.approx(100, abs=1)
    assert found["decode"] > 0
