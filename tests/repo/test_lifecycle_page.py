"""
The nine examples of docs/lifecycle.md, from an empty folder.

Without DVC, whose commands take seconds each: its lines are left out, and its step is called as a
command. The README of `examples/churn` is tested with DVC.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from stream_monitor.cli import cli
from stream_monitor.demo.broker import start_in_thread

PAGE = (Path(__file__).parents[2] / "docs/lifecycle.md").read_text("utf-8")
PART = PAGE.partition("## By hand, from an empty folder")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PART, re.DOTALL | re.MULTILINE)
STEP = "      steps: [{name: train, command: [PYTHON, train.py]}]\n"
SAYS = {
    'models register --reason "the first model"': r"churn@v1\.0\.0 is commit .*written\n",
    'models register --reason "more customers"': r"churn@v1\.1\.0 is commit .*accuracy 0\.75\n",
    "models show v1.1.0": r"data/train\.csv  git:.*model\.json  git:.*accuracy 0\.75\n",
    "quality check": r"good for training; 4,000 rows, \d+ rules kept, 0 broken",
    "retrain history": r"done, v1\.2\.0\n.*there is no champion yet",
    "models compare v1.0.0 v1.1.0": r"the difference on the same rows decides.*promote: ",
    "models compare champion HEAD": r"the difference on the same rows decides.*reject: ",
    "replay": r"500 received.*no alerts",
    "deploy rollback": r"churn: v1\.2\.0 is in production",
}
"""What a command says, by how it begins."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, and a broker."""
    path = tmp_path / "churn"
    path.mkdir()
    monkeypatch.chdir(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "ana")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "ana@example.org")
    with start_in_thread(partitions=1) as broker:
        monkeypatch.setenv("STREAM_MONITOR_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap)
        yield path


def said(line: str) -> str:
    """What a line of the page writes."""
    if line.startswith("stream-monitor "):
        done = CliRunner().invoke(cli, shlex.split(line)[1:], catch_exceptions=False)
        assert done.exit_code == 0, (line, done.output)
        return done.output
    line = line.replace("dvc repro --quiet", "python train.py")
    if line.startswith("dvc "):
        return ""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", line], check=True, timeout=60, env=env)
    return ""


def test_they_run_as_they_stand_there(folder: Path):
    lines = []
    for language, text in BLOCKS:
        name = re.match(r"# (\S+)\n", text)
        if name is not None:
            step = STEP.replace("PYTHON", sys.executable)
            (folder / name[1]).write_text(re.sub(r"( +collect: null.*\n)", rf"\1{step}", text))
        elif language == "bash":
            lines += text.strip().splitlines()
    told = {line.removeprefix("stream-monitor "): said(line) for line in lines}
    for begins, pattern in SAYS.items():
        [found] = [text for line, text in told.items() if line.startswith(begins)]
        assert re.search(pattern, found, re.DOTALL), (begins, found)
    shown = [text for language, text in BLOCKS if not language and text.startswith("churn  ")]
    assert told["deploy status"].startswith(shown[-1])
    tags = subprocess.run(["git", "tag"], capture_output=True, text=True, check=True, timeout=60)
    assert {"churn@v1.0.0", "churn@v1.1.0", "churn@v1.2.0"} <= set(tags.stdout.split())


def test_there_are_nine():
    titles = re.findall(r"^\*\*(.+?)\.\*\*", PART, re.MULTILINE)
    assert len(titles) == 9
