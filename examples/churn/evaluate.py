"""
Let models answer the same held-out rows, which none of them was trained on.

Writes `metrics.json` and `predictions/challenger.parquet`; `predictions/champion.parquet` if there
is a champion; and `predictions/anchor.parquet` if the anchor, the last version that was proved
better or approved by a person, is another one. Their models come back from their tags by DVC.

    python evaluate.py                      # all of them
    python evaluate.py champion anchor      # only these
"""

from __future__ import annotations

import argparse
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

FOLDER = Path("predictions")
MODELS = ("challenger", "champion", "anchor")


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


def of_version(tag: str) -> Model:
    """The model of a version, brought back by DVC."""
    path = FOLDER / "model.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "dvc", "get", ".", "model.json", "--rev", tag, "-o", str(path)]
    subprocess.run(command, check=True)
    found = Model.load(path)
    path.unlink()
    return found


def main() -> None:
    """Compare, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}")
    wanted = parser.parse_args().models or MODELS
    names, x, y = labelled(DATA)
    start = int(len(y) * (1 - PARAMETERS["held_out"]))
    x, y = x[start:], y[start:]
    FOLDER.mkdir(exist_ok=True)
    if "challenger" in wanted:
        found = answers(Model.load("model.json"), names, x, y)
        parquet.write_table(found, FOLDER / "challenger.parquet")
        right = np.mean(np.array(found["prediction"]) == y)
        Path("metrics.json").write_text(json.dumps({"accuracy": round(float(right), 4)}) + "\n")
    for name in ("champion", "anchor"):
        tag = os.environ.get(f"STREAM_MONITOR_{name.upper()}_TAG")
        if tag and name in wanted:
            found = answers(of_version(tag), names, x, y)
            parquet.write_table(found, FOLDER / f"{name}.parquet")


if __name__ == "__main__":
    main()
