"""
Train on the older part of what was collected; the newest rows are held out for `evaluate.py`.

After a change of the world old rows lie, so the newest ones decide.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from model import Model
from pyarrow import parquet
from ruamel.yaml import YAML
from sklearn.linear_model import LogisticRegression

PARAMETERS = YAML(typ="safe").load(Path("params.yaml"))["train"]
DATA = os.environ.get("STREAM_MONITOR_DATA", "data/collected.parquet")


def labelled(path: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the features, their values and the labels, in the order of time."""
    table = parquet.read_table(path)
    names = sorted(n.removeprefix("features.") for n in table.column_names if "features." in n)
    y = np.array([np.nan if v is None else float(v) for v in table["label"].to_pylist()])
    x = np.column_stack([np.array(table[f"features.{n}"].to_pylist(), dtype=float) for n in names])
    known = ~np.isnan(y)
    return names, np.nan_to_num(x[known]), y[known].astype(int)


def main() -> None:
    """Write `model.json`, and tell the controller what was done."""
    names, x, y = labelled(DATA)
    rows = int(len(y) * (1 - PARAMETERS["held_out"]))
    simple = PARAMETERS["regularisation"]
    fitted = LogisticRegression(C=simple, max_iter=1_000).fit(x[:rows], y[:rows])
    Model(names, fitted.coef_[0].tolist(), float(fitted.intercept_[0])).save("model.json")
    result = os.environ.get("STREAM_MONITOR_RESULT")
    if result:
        Path(result).write_text(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
