"""
The gate of the workflow of `examples/churn`, step by step in bash, on a project with a real git
remote and a real DVC remote.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / "examples/churn/.github/workflows/model.yml").read_text())
DVC_YAML = """
stages:
  train:
    cmd: python train.py
    deps: [train.py, data/collected.parquet]
    outs: [model.json]
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py, model.json, data/collected.parquet]
    outs: [predictions/challenger.parquet]
"""
TRAIN = "from pathlib import Path\nPath('model.json').write_text('{right}')\n"
EVALUATE = """
import os, subprocess, sys
from pathlib import Path

import numpy as np
from pyarrow import parquet, table

data = parquet.read_table("data/collected.parquet")
label = data["label"].to_numpy()
Path("predictions").mkdir(exist_ok=True)

def answer(model, name, seed):
    wrong = np.random.default_rng(seed).random(len(label)) >= float(Path(model).read_text())
    said = np.where(wrong, 1 - label, label)
    rows = table({"event_id": data["event_id"], "label": label, "prediction": said})
    parquet.write_table(rows, f"predictions/{name}.parquet")

answer("model.json", "challenger", 1)
tag = os.environ.get("STREAM_MONITOR_CHAMPION_TAG")
if tag:
    get = ["get", ".", "model.json", "--rev", tag, "-o", "champion.json", "--force"]
    subprocess.run([sys.executable, "-m", "dvc", *get], check=True)
    answer("champion.json", "champion", 2)
"""


class Project:
    """A clone with its remotes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "clone"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "STREAM_MONITOR"))},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "DVC_NO_ANALYTICS": "1",
            **{f"GIT_{who}_NAME": "t" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "t@example.org" for who in ("AUTHOR", "COMMITTER")},
        }
        folder.joinpath("dvc").mkdir()
        self.run("git", "init", "--bare", "-b", "main", "remote.git", cwd=folder)
        self.run("git", "clone", "-q", "remote.git", "clone", cwd=folder)
        self.run("dvc", "init", "-q")
        self.run("dvc", "remote", "add", "-q", "-d", "store", str(folder / "dvc"))
        (self.path / "data").mkdir()
        rng = np.random.default_rng(0)
        rows = {
            "event_id": [f"e{i}" for i in range(1_500)],
            "x": rng.normal(size=1_500),
            "label": rng.integers(0, 2, 1_500),
        }
        parquet.write_table(pa.table(rows), self.path / "data/collected.parquet")
        for name, text in (
            ("dvc.yaml", DVC_YAML),
            ("evaluate.py", EVALUATE),
            (".gitignore", "/champion.json\n/predictions/champion.parquet\n"),
            ("monitor.yaml", "models: {churn: {}}\n"),
        ):
            (self.path / name).write_text(text)
        self.run("dvc", "add", "-q", "data/collected.parquet")

    def run(self, *words: str, cwd: Path | None = None, **more: str) -> str:
        done = subprocess.run(
            words,
            cwd=cwd or self.path,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise subprocess.CalledProcessError(
                done.returncode, words, done.stdout, done.stdout + done.stderr
            )
        return done.stdout

    def commit(self, right: float, *, repro: bool = True, tag: str | None = None) -> None:
        (self.path / "train.py").write_text(TRAIN.format(right=right))
        if repro:
            self.run("dvc", "repro", "-q")
            self.run("dvc", "push", "-q")
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", f"right {right}")
        if tag:
            self.run("git", "tag", "-a", tag, "-m", tag)

    def gate(self) -> str | None:
        """The name of the step that fails, in a fresh clone without a cache; None: it passes."""
        fresh = self.path.parent / "fresh"
        self.run("rm", "-rf", str(fresh))
        self.run("git", "clone", "-q", str(self.path), str(fresh))
        output = fresh.parent / "output"
        output.write_text("")
        for step in WORKFLOW["jobs"]["gate"]["steps"]:
            if "run" not in step or step["name"] == "Install":
                continue
            tag = dict(line.split("=", 1) for line in output.read_text().splitlines()).get("tag")
            if "if" in step:
                assert step["if"] == "steps.champion.outputs.tag != ''"
                if not tag:
                    continue
            told: dict[str, Any] = {
                k: tag for k, v in step.get("env", {}).items() if "outputs.tag" in v
            }
            try:
                self.run(
                    *("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]),
                    cwd=fresh,
                    GITHUB_OUTPUT=str(output),
                    **WORKFLOW["env"],
                    **told,
                )
            except subprocess.CalledProcessError as error:
                self.said = error.stderr
                return str(step["name"])
        return None


@pytest.mark.slow
def test_the_gate_lets_through_what_it_should(tmp_path):
    project = Project(tmp_path)
    project.commit(0.8, tag="churn@v1.9.0")
    assert project.gate() is None, project.said  # there is no champion before this commit
    project.commit(0.85, tag="churn@v1.10.0")
    assert project.gate() is None, project.said
    project.commit(0.8)
    assert project.gate() == "It is not worse"  # than v1.10.0, and not than v1.9.0
    assert "reject: accuracy 0.7" in project.said
    project.commit(0.9, repro=False)
    assert project.gate() == "They are what the code makes"
