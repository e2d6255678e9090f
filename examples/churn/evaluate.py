"""
Let the new model and the champion answer the same held-out rows, which neither was trained on.

Writes `metrics.json` and `predictions/challenger.parquet`, and `predictions/champion.parquet` if
there is a champion. Its model comes back from the version's tag by DVC.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from model import Model
from pyarrow import parquet
from train import DATA, PARAMETERS, labelled


def answers(model: Model, names: list[str], x: np.ndarray, y: np.ndarray) -> pa.Table:
    """A row for each call: its number, features, the label, the score and the prediction."""
    scores = [model.score(dict(zip(names, row, strict=True))) for row in x]
    return pa.table(
        {
            "event_id": [str(i) for i in range(len(y))],
            "label": y,
            "score": scores,
            "prediction": [int(s >= 0.5) for s in scores],
            **{f"features.{name}": x[:, i] for i, name in enumerate(names)},
        }
    )


def champion(tag: str) -> Model:
    """The model of a version, brought back by DVC."""
    path = Path("champion.json")
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "dvc", "get", ".", "model.json", "--rev", tag, "-o", str(path)]
    subprocess.run(command, check=True)
    return Model.load(path)


def main() -> None:
    """Compare, and write what was found."""
    names, x, y = labelled(DATA)
    start = int(len(y) * (1 - PARAMETERS["held_out"]))
    x, y = x[start:], y[start:]
    folder = Path("predictions")
    folder.mkdir(exist_ok=True)
    found = answers(Model.load("model.json"), names, x, y)
    parquet.write_table(found, folder / "challenger.parquet")
    right = np.mean(np.array(found["prediction"]) == y)
    Path("metrics.json").write_text(json.dumps({"accuracy": round(float(right), 4)}) + "\n")
    tag = os.environ.get("STREAM_MONITOR_CHAMPION_TAG")
    if tag:
        parquet.write_table(answers(champion(tag), names, x, y), folder / "champion.parquet")


if __name__ == "__main__":
    main()
