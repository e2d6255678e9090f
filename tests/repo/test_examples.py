"""Examples run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def test_electricity_on_a_file_of_the_same_form(tmp_path):
    rng = np.random.default_rng(1)
    rows, late = 3_600, np.arange(3_600) > 2_700
    x = rng.random((rows, 6))
    label = np.where(late, x[:, 1] < 0.5, x[:, 1] > 0.5) ^ (rng.random(rows) < 0.1)
    names = "period,nswprice,nswdemand,vicprice,vicdemand,transfer,class"
    np.savetxt(
        tmp_path / "electricity.csv",
        np.column_stack([x, label]),
        delimiter=",",
        header=names,
        comments="",
        fmt="%.6f",
    )
    command = [
        sys.executable,
        str(ROOT / "examples" / "electricity.py"),
        str(tmp_path / "electricity.csv"),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "against scikit-learn: worst difference" in done.stdout
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["models"]["electricity"][
        "versions"
    ]["1"]
    assert (found["predictions"], found["labels"]) == (2_700, 2_646)
    alerts = [
        json.loads(line) for line in (tmp_path / "out" / "alerts.jsonl").read_text().splitlines()
    ]
    assert {"performance", "concept_drift"} <= {a["kind"] for a in alerts}
    assert (tmp_path / "out" / "report.html").stat().st_size > 5_000
