"""
Runs of projects in unusual places: in a folder of a larger repository, on a branch `master` without
a user or a remote, with a submodule; real git and DVC, and the controller on the embedded broker.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from stream_monitor.cli import cli
from stream_monitor.config import load
from stream_monitor.demo.broker import BrokerThread, start_in_thread
from stream_monitor.errors import InputError
from stream_monitor.kafka.records import write
from stream_monitor.lifecycle import git as ours
from stream_monitor.lifecycle.events import Stage, encode
from stream_monitor.lifecycle.stages import DVC
from stream_monitor.lifecycle.tags import artifact_of

MODEL = "house prices 2.0"
LIMITS = {"cooldown": "0s", "min_new_labels": 0, "max_a_week": 9}
STAGE = """
stages:
  train:
    cmd: cat prices.csv > model.txt && cp numbers.json metrics.json
    deps: [prices.csv]
    outs: [model.txt]
    metrics: [{metrics.json: {cache: false}}]
"""


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    with start_in_thread(partitions=1) as running:
        yield running


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name, no configuration of git: what a fresh container has."""
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@x", "-c", "protocol.file.allow=always")
    return run(folder, "git", *identity, *words)


def asked(tmp_path: Path, broker: BrokerThread, loop: dict[str, Any]) -> dict[str, Any]:
    """A run that a person asks for, from its start to its end; the run, as `history` has it."""
    config = tmp_path / "monitor.yaml"
    config.write_text(
        json.dumps(
            {
                "kafka": {"bootstrap_servers": broker.bootstrap},
                "lifecycle": {"models": {MODEL: {"collect": None, "artifact": "houses", **loop}}},
            }
        )
    )
    for words in (("retrain", "run", MODEL), ("controller", "--once")):
        done = CliRunner().invoke(cli, [*words, "--config", str(config)])
        assert done.exit_code == 0, done.output + repr(done.exception)
    told = CliRunner().invoke(cli, ["retrain", "history", "--json", "--config", str(config)])
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[0])
    return found


@pytest.mark.parametrize("dvc_at", ["top", pytest.param("project", marks=pytest.mark.slow)])
def test_a_project_in_a_folder_of_a_larger_repository(tmp_path, broker, dvc_at):
    top, project = tmp_path / "all", tmp_path / "all/models/houses"
    project.mkdir(parents=True)
    git(top, "init", "-q", "-b", "master")
    at, more = (top, ()) if dvc_at == "top" else (project, ("--subdir",))
    run(at, *DVC, "init", "-q", *more)
    run(at, *DVC, "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    (project / "prices.csv").write_text("1\n")
    run(project, *DVC, "add", "-q", "prices.csv")
    (project / "dvc.yaml").write_text(STAGE)
    (project / "numbers.json").write_text('{"rmse": 48838.99}')
    (project / ".gitignore").write_text("/prices.csv\n")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "first")
    found = asked(tmp_path, broker, {"repository": str(project), "base": "master"})
    assert (found["end"], found["reason"]) == ("done", "")
    files = git(top, "ls-tree", "-r", "--name-only", "houses@v1.0.0").split()
    assert {"models/houses/dvc.lock", "models/houses/metrics.json"} <= set(files)
    assert "houses v1.0.0: rmse 48,839" in git(top, "show", "houses@v1.0.0")
    got = tmp_path / "got.txt"
    way = ("get", str(top), "models/houses/model.txt", "--rev", "houses@v1.0.0")
    run(tmp_path, *DVC, *way, "-o", str(got))
    assert got.read_text() == "1\n"


def test_a_submodule_is_there_after_a_step_that_gets_it(tmp_path, broker):
    for name in ("library", "clone"):
        (tmp_path / name).mkdir()
        git(tmp_path / name, "init", "-q", "-b", "main")
    (tmp_path / "library/constant.txt").write_text("42")
    git(tmp_path / "library", "add", "-A")
    git(tmp_path / "library", "commit", "-q", "-m", "library")
    clone = tmp_path / "clone"
    git(clone, "submodule", "--quiet", "add", str(tmp_path / "library"), "vendor")
    git(clone, "commit", "-q", "-m", "first")
    git(tmp_path, "clone", "-q", "--bare", str(clone), "remote.git")
    git(clone, "remote", "add", "origin", str(tmp_path / "remote.git"))
    get = ["git", "-c", "protocol.file.allow=always", "submodule", "update", "--init"]
    copy = "import shutil; shutil.copy('vendor/constant.txt', 'model.txt')"
    steps = [
        {"name": "modules", "command": get},
        {"name": "train", "command": [sys.executable, "-c", copy]},
    ]
    found = asked(tmp_path, broker, {"repository": str(clone), "steps": steps})
    assert (found["end"], found["reason"]) == ("done", "")
    assert git(tmp_path / "remote.git", "show", "houses@v1.0.0:model.txt") == "42"
    listed = git(clone, "worktree", "list").splitlines()
    assert len(listed) == 1, "the work tree is gone, though it had a submodule"


def test_a_step_that_wrote_no_answers_is_told(tmp_path, broker):
    clone = tmp_path / "clone"
    clone.mkdir()
    git(clone, "init", "-q", "-b", "main")
    git(clone, "commit", "-q", "--allow-empty", "-m", "first")
    steps = [{"name": "train", "command": ["true"]}]
    loop = {"repository": str(clone), "steps": steps, "limits": LIMITS}
    assert asked(tmp_path, broker, loop)["end"] == "done"
    settings = load(str(tmp_path / "monitor.yaml"), {})
    champion = Stage(
        model=MODEL, at="2026-01-01T00:00:00Z", by="ana", stages={"v1.0.0": "production"}
    )
    asyncio.run(write(settings, "lifecycle", MODEL, encode(champion.named())))
    found = asked(tmp_path, broker, loop)
    assert found["end"] == "failed"
    for word in ("no step wrote predictions/champion.parquet", "always_changed"):
        assert word in found["reason"]
    words = ["retrain", "status", "--config", str(tmp_path / "monitor.yaml")]
    done = CliRunner().invoke(cli, words)
    (command,) = [line.split("`")[1] for line in done.output.splitlines() if "`" in line]
    assert shlex.split(command) == ["stream-monitor", "retrain", "run", MODEL]


def test_a_bare_clone_is_named(tmp_path):
    git(tmp_path, "init", "-q", "--bare", "bare.git")
    with pytest.raises(ours.GitError, match="it is a bare repository; name a clone with files"):
        ours.place_of(tmp_path / "bare.git")


def test_a_name_that_no_tag_takes_says_what_to_write():
    with pytest.raises(InputError, match=r"2\.0': \{repository: \., artifact: 'house-prices-2-0'"):
        artifact_of(MODEL)
