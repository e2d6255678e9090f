"""The workflow of `examples/churn`: valid for its tools, few rights, and commands that exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from stream_monitor.cli import cli

WORKFLOW = Path(__file__).parents[2] / "examples/churn/.github/workflows/model.yml"
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
TEXT = WORKFLOW.read_text("utf-8")


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TEXT)["jobs"]
    return found


def steps(job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = jobs()[job]["steps"]
    return found


def commands(job: str) -> Iterator[str]:
    for step in steps(job):
        yield from step.get("run", "").splitlines()


def test_it_follows_the_schema():
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.github-workflows", str(WORKFLOW)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def actionlint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, from PATH or built by Go."""
    found = shutil.which("actionlint")
    if found is not None:
        return found
    if shutil.which("go") is None:
        pytest.skip("neither actionlint nor go is on PATH")
    folder = tmp_path_factory.mktemp("go")
    done = subprocess.run(
        ["env", f"GOBIN={folder}", "go", "install", ACTIONLINT],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        cwd=folder,
    )
    if done.returncode:
        pytest.skip(f"go could not install {ACTIONLINT}: {done.stderr[-500:]}")
    return str(folder / "actionlint")


@pytest.mark.slow
def test_actionlint_has_nothing_to_say(actionlint, tmp_path):
    def said(text: str) -> str:
        path = tmp_path / "model.yml"
        path.write_text(text, "utf-8")
        done = subprocess.run(
            [actionlint, "-no-color", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode == 0) is (done.stdout == "")
        return done.stdout

    assert said(TEXT) == ""
    assert 'job "gate" needs job "tests"' in said(TEXT.replace("needs: test", "needs: tests"))
    assert '"label" is not defined' in said(TEXT.replace("outputs.tag }}", "label }}"))


def test_it_may_only_read_and_ends():
    workflow = yaml.safe_load(TEXT)
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML reads `on` as true
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert jobs()["gate"]["needs"] == "test"
    for name, job in jobs().items():
        assert 0 < job["timeout-minutes"] <= 30
        assert "permissions" not in job
        assert "env" not in job  # secrets are given to single steps
        for step in steps(name):
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step["uses"])
                assert step["with"]["persist-credentials"] is False
            # what others write reaches a shell as a variable, never as text of the script
            assert "${{" not in step.get("run", "")
    assert all("secrets." not in str(step) for step in steps("test"))


def test_the_gate_has_its_checks_in_order():
    found = [" ".join(line.split()[:3]) for line in commands("gate")]
    wanted = [
        "dvc pull",
        "dvc status --quiet",
        "stream-monitor quality check",
        "stream-monitor replay predictions/challenger.parquet",
        "python evaluate.py champion",
        "stream-monitor models compare",
    ]
    assert [line for line in found if line in wanted] == wanted


@pytest.mark.parametrize(
    "line", [line for line in commands("gate") if line.startswith("stream-monitor ")]
)
def test_its_commands_are_understood(line):
    words = shlex.split(line)[1:]
    group: click.Command = cli
    context = click.Context(cli, info_name="stream-monitor")
    while isinstance(group, click.Group):
        name, command, words = group.resolve_command(context, words)
        assert command is not None
        group, context = command, click.Context(command, parent=context, info_name=name)
    group.parse_args(context, words)
