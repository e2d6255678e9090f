"""
The workflow of `examples/churn`, step by step in bash, on a copy of the example with a real git
remote and a real DVC remote.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/churn"
WORKFLOW = yaml.safe_load((EXAMPLE / ".github/workflows/model.yml").read_text())
FITTED = ".fit(x[:rows], y[:rows])"
WEAK, STRONG = ".fit(x[:rows] * [0, 0, 1, 1, 1], y[:rows])", FITTED


class Project:
    """A clone with its remotes."""

    def __init__(self, folder: Path) -> None:
        self.path, self.said = folder / "clone", ""
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
        shutil.copytree(
            EXAMPLE,
            self.path,
            ignore=shutil.ignore_patterns("__pycache__"),
            dirs_exist_ok=True,
        )
        self.train = (self.path / "train.py").read_text()
        assert FITTED in self.train
        self.run("python", "customers.py", "data/collected.parquet")
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

    def commit(self, fitted: str, *, repro: bool = True, tag: str | None = None) -> None:
        (self.path / "train.py").write_text(self.train.replace(FITTED, fitted))
        if repro:
            self.run("dvc", "repro", "-q")
            self.run("dvc", "push", "-q")
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", "a model")
        if tag:
            self.run("git", "tag", "-a", tag, "-m", tag)

    def job(self, name: str) -> str | None:
        """The step of a job that fails, in a fresh clone without a cache; None: it passes."""
        fresh = self.path.parent / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        self.run("git", "clone", "-q", str(self.path), str(fresh))
        output = fresh.parent / "output"
        output.write_text("")
        for step in WORKFLOW["jobs"][name]["steps"]:
            if "run" not in step or step["name"] == "Install":
                continue
            tag = dict(line.split("=", 1) for line in output.read_text().splitlines()).get("tag")
            if "if" in step:
                assert step["if"] == "steps.champion.outputs.tag != ''"
                if not tag:
                    continue
            told = {k: str(tag) for k, v in step.get("env", {}).items() if "outputs.tag" in v}
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
    project.commit(WEAK, tag="churn@v1.9.0")
    assert project.job("test") is None, project.said
    project.commit(STRONG, tag="churn@v1.10.0")
    assert project.job("gate") is None, project.said
    project.commit(WEAK)
    assert project.job("gate") == "It is not worse"  # than v1.10.0; it is v1.9.0 again
    assert "reject: accuracy 0." in project.said
    project.commit(STRONG, repro=False)
    assert project.job("gate") == "They are what the code makes"
