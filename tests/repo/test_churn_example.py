"""`examples/churn` as a new user sees it: its README is run, and nothing generated is in it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream_monitor.demo.broker import start_in_thread
from stream_monitor.lifecycle.champion import decide
from stream_monitor.lifecycle_settings import Decide

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/churn"
README = (EXAMPLE / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROJECT, FIRST, WATCHED, WHY, BAD = BLOCK.findall(README)
HASH = re.compile(r"\b[0-9a-f]{12,40}\b|\d+ s ago|by \w+:")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with a broker and the programs of these tests."""
    with start_in_thread(partitions=1) as broker:
        yield {
            **{k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "STREAM_MONITOR"))},
            "PATH": f"{programs(tmp_path)}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path),
            "DVC_NO_ANALYTICS": "1",
            "STREAM_MONITOR_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap,
            **{f"GIT_{who}_NAME": "ana" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "ana@example.org" for who in ("AUTHOR", "COMMITTER")},
        }


def programs(folder: Path) -> Path:
    """`stream-monitor` of this source tree, whatever is installed."""
    path = folder / "bin"
    path.mkdir()
    (path / "stream-monitor").write_text(f'#!/bin/sh\nexec {sys.executable} -m stream_monitor "$@"')
    (path / "stream-monitor").chmod(0o755)
    return path


def in_bash(text: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copied(folder: Path) -> Path:
    shutil.copytree(EXAMPLE, folder / "churn", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "churn"


class Server:
    """`server.py`, as a process."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "server.py", "--port", "0"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        found = re.search(r":(\d+)$", self.process.stdout.readline().strip())
        assert found is not None, "it did not start"
        self.port = int(found[1])

    def ask(self, path: str, body: Any = None, want: int = 200) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        text = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, text)
        response = connection.getresponse()
        said = response.read()
        assert response.status == want, said
        return json.loads(said)

    def end(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=30)[0]


@pytest.mark.slow
def test_the_readme_is_true(tmp_path, world):
    folder = copied(tmp_path)
    said = in_bash(PROJECT, folder, world)
    assert said.endswith('{"accuracy": 0.9017}\n')
    assert in_bash("git status --short", folder, world) == ""
    said = in_bash(FIRST, folder, world)
    shown = README.split("stream-monitor deploy status\n```", 1)[1].split("```")[1]
    for line in shown.strip().splitlines():
        parts = [p for p in HASH.split(re.sub(r"127\.0\.0\.1:\d+", "", line)) if p.strip()]
        assert all(p in said for p in parts), f"{line}\n{said}"
    server = Server(folder, world)
    try:
        assert server.ask("/healthz")["follows"] is True
        call = {"user": "user-17", "features": {"calls": 2.0}}
        first = server.ask("/predict", call)
        assert first["version"] == "v1.0.0"
        assert server.ask("/labels", {"id": first["id"], "label": 1}, 202) == {"sent": True}
        assert "features" in server.ask("/predict", {"user": "u"}, 400)["error"]
        sent = [sys.executable, "traffic.py", "--port", str(server.port), "--seconds", "3"]
        said = in_bash(" ".join([*sent, "--changed"]), folder, world)
        assert re.search(r"accuracy 0\.[345]\d  v1\.0\.0 100%", said)
        in_bash(BAD, folder, world)
        in_bash("stream-monitor models promote v1.1.0", folder, world)
        until = time.monotonic() + 30
        while (other := server.ask("/predict", call))["version"] == "v1.0.0":
            assert time.monotonic() < until, "the server does not follow"
            time.sleep(0.2)
        assert other["score"] == pytest.approx(1 - first["score"], abs=0.3)
        assert other["score"] != first["score"]  # its weights are turned
    finally:
        ended = server.end()
    assert "lost events: none" in ended
    the_anchor_stops_what_the_champion_lets_through(folder, world)
    said = in_bash(WATCHED + WHY, folder, world)
    assert "no runs yet" in said
    assert "churn@v1.1.0  production" in said


def the_anchor_stops_what_the_champion_lets_through(folder: Path, world: dict[str, str]) -> None:
    """The champion is the bad version, the new model its equal, the anchor the good one."""
    tags = {
        "STREAM_MONITOR_CHAMPION_TAG": "churn@v1.1.0",
        "STREAM_MONITOR_ANCHOR_TAG": "churn@v1.0.0",
    }
    written = [folder / f"predictions/{name}.parquet" for name in ("champion", "anchor")]
    in_bash("python evaluate.py", folder, world | tags)
    for again in written:  # DVC has no reason to do the stage again, but for its always_changed
        again.unlink()
    in_bash("dvc repro --quiet --single-item compare", folder, world | tags)
    champion, anchor = map(str, written)
    settings = Decide(rule="not worse", margin=0.01, min_rows=300)
    challenger = str(folder / "predictions/challenger.parquet")
    alone = decide(champion, challenger, settings, "run", anchor_file=champion)
    assert (alone["decision"], alone["difference"]) == ("promote", 0)
    found = decide(champion, challenger, settings, "run", anchor_file=anchor)
    assert found["decision"] == "reject"
    assert found["anchor"]["champion"] == pytest.approx(0.9017, abs=1e-4)
    assert decide(champion, challenger, settings, "run")["decision"] == "inconclusive"


def tracked() -> set[str]:
    """The files of the example that git has, or would take."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "examples/churn"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {line.removeprefix("examples/churn/") for line in done.stdout.splitlines()}


def test_it_has_what_its_readme_names_and_nothing_generated():
    files = tracked()
    named = set(re.findall(r"`([\w./]+\.(?:py|yaml|yml))`", README))
    assert named <= files
    assert not [
        name
        for name in files
        if name.startswith((".dvc", "data", "models", "predictions"))
        or name.endswith((".lock", ".parquet", ".pyc", ".dvc", ".json"))
    ]


def test_the_wheel_has_the_example_where_the_demo_looks():
    import tomllib

    from stream_monitor.demo.loop_project import HERE, SOURCES

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    shipped = {k.removeprefix("examples/churn/"): v for k, v in wheel.items() if "churn" in k}
    # file by file, because a folder would be shipped with whatever somebody made in it
    assert set(shipped) == tracked()
    for name, inside in shipped.items():
        assert ROOT / inside == SOURCES[0] / name
    assert SOURCES[0] == HERE / "churn"
    assert not SOURCES[0].exists()
    assert EXAMPLE in SOURCES


def test_what_somebody_made_in_the_example_is_not_copied(tmp_path):
    from stream_monitor.demo.loop_project import copied_example

    used = copied(tmp_path)
    (used / "data").mkdir()
    for name in (
        *("data/collected.parquet", "data/collected.parquet.dvc", "model.json", "dvc.lock"),
        *("metrics.json", "reference.json", ".dvcignore", "__pycache__/x.pyc"),
        *("predictions/challenger.parquet", "models/v1.0.0.json", ".dvc/config", ".git/config"),
    ):
        (used / name).parent.mkdir(exist_ok=True)
        (used / name).write_text("made")
    copied_example(used, tmp_path / "copy")
    found = {
        str(path.relative_to(tmp_path / "copy"))
        for path in (tmp_path / "copy").rglob("*")
        if path.is_file()
    }
    assert found == tracked()
