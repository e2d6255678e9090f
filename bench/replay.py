"""
Rows a second of `stream-monitor replay` on a CSV table, and the same numbers once by pandas and
scikit-learn: `python bench/replay.py [--rows N] [--features N]`.

The table has a prediction, a score, a label and numeric features. Replay folds a prediction and a
label a row through the whole core (join, windows, drift, quality, anomalies, alerts). The batch
reads the same file with pandas, if it is there, else with numpy, and computes each metric once on
all rows and the mean of each feature: a lower bound of any tool.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BATCH = """
import sys
from sklearn import metrics as m
try:
    import pandas
    table = {name: column.to_numpy() for name, column in pandas.read_csv(sys.argv[1]).items()}
except ImportError:
    import numpy
    rows = numpy.genfromtxt(sys.argv[1], delimiter=",", names=True)
    table = {name: rows[name] for name in rows.dtype.names}
y, p, s = table["label"], table["prediction"], table["score"]
print([f(y, p) for f in (m.accuracy_score, m.precision_score, m.recall_score, m.f1_score)], [f(y, s) for f in (m.roc_auc_score, m.log_loss, m.brier_score_loss)])
print([column.mean() for column in table.values()])
"""  # noqa: E501


def write(path: Path, rows: int, features: int, apart_s: int | None = None) -> None:
    """The table, in pieces."""
    rng = np.random.default_rng(7)
    with path.open("w") as file:
        file.write(
            ",".join(
                [
                    *(["timestamp"] if apart_s else []),
                    "prediction",
                    "score",
                    "label",
                    *(f"f{i}" for i in range(features)),
                ]
            )
            + "\n"
        )
        for start in range(0, rows, 50_000):
            n = min(50_000, rows - start)
            score = rng.random(n).round(6)
            columns = np.column_stack(
                [
                    score >= 0.5,
                    score,
                    rng.random(n) < score,
                    rng.normal(size=(n, features)).round(6),
                ]
            )
            fmt = ["%g"] * columns.shape[1]
            if apart_s:
                columns, fmt = (
                    np.column_stack(
                        [1_577_836_800 + apart_s * np.arange(start, start + n), columns]
                    ),
                    ["%d", *fmt],
                )
            np.savetxt(file, columns, delimiter=",", fmt=fmt)


def timed(*command: str) -> tuple[float, float]:
    """Wall and CPU seconds of a process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        time.perf_counter() - began,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=10)
    parser.add_argument(
        "--apart",
        type=int,
        metavar="SECONDS",
        help="time between two rows; without it the table has no times",
    )
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write(path, a.rows, a.features, a.apart)
        replay_s, replay_cpu_s = timed(
            sys.executable,
            "-m",
            "stream_monitor",
            "replay",
            str(path),
            "--summary",
            str(Path(folder) / "s.json"),
        )
        peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        batch_s, batch_cpu_s = timed(sys.executable, "-c", BATCH, str(path))
        found = json.loads((Path(folder) / "s.json").read_text())["records"]
        size = path.stat().st_size
    assert found["predictions"]["accepted"] == found["labels"]["accepted"] == a.rows
    numbers = {
        "rows": a.rows,
        "features": a.features,
        "megabytes": round(size / 1e6),
        "replay_s": replay_s,
        "replay_cpu_s": replay_cpu_s,
        "rows_a_cpu_s": a.rows / replay_cpu_s,
    }
    numbers |= {
        "batch_s": batch_s,
        "batch_cpu_s": batch_cpu_s,
        "replay_to_batch": replay_cpu_s / batch_cpu_s,
        "replay_peak_mb": peak_mb,
    }
    print(json.dumps({k: round(v, 2) for k, v in numbers.items()}))


if __name__ == "__main__":
    main()
