"""Which steps a project has, in which order (DVC is the oracle), and that none is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from stream_monitor.cli import cli
from stream_monitor.errors import InputError
from stream_monitor.lifecycle.stages import DVC, planned, stages_of
from stream_monitor.lifecycle_settings import ModelLoop, Step

# nothing stands before what it needs, if one reads it from the end
BACKWARDS = """
vars: [{name: model}]
stages:
  report:
    cmd: cat metrics.json > report.txt
    deps: [metrics.json]
    outs: [report.txt]
  evaluate:
    wdir: sub
    cmd: echo {} > ../metrics.json
    deps: ["../${name}.json", other.txt]
    metrics: [{../metrics.json: {cache: false}}]
  train:
    cmd: echo 1 > ${name}.json
    deps: [data.csv]
    outs: ["${name}.json"]
  other:
    cmd: echo 1 > sub/other.txt
    outs: [sub/other.txt]
"""


def repro(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [*DVC, *words],
        cwd=folder,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_stages_run_in_the_order_of_what_they_need(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "data.csv").write_text("1\n")
    (tmp_path / "dvc.yaml").write_text(BACKWARDS)
    repro(tmp_path, "init", "-q", "--no-scm")
    steps = stages_of(tmp_path)
    assert [s.name for s in steps] == ["train", "other", "evaluate", "report"]
    for step in steps:
        assert step.command[: len(DVC)] == DVC
        repro(tmp_path, *step.command[len(DVC) :])
    assert "up to date" in repro(tmp_path, "repro")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("stages: {a: {cmd: x}", "dvc.yaml: cannot be read"),
        ("stages: {collect: {cmd: 'true'}}", "collect is a step of stream-monitor's own"),
        (
            "stages: {a: {cmd: x, deps: [b], outs: [a]}, b: {cmd: x, deps: [a], outs: [b]}}",
            "stages need each other: ",
        ),
    ],
)
def test_stages_that_cannot_be_steps_are_refused(tmp_path, text, word):
    (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(InputError, match=word):
        stages_of(tmp_path)


@pytest.mark.parametrize("text", [None, "stages: {}", "artifacts: {}"])
def test_a_project_that_trains_nothing_is_refused_at_the_start(tmp_path, text):
    clone = tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(clone)], check=True, timeout=60)
    if text is not None:
        (clone / "dvc.yaml").write_text(text)
    config = tmp_path / "monitor.yaml"
    config.write_text("lifecycle: {models: {fraud: {repository: clone}}}\n")
    done = CliRunner().invoke(cli, ["controller", "--once", "--config", str(config)])
    assert isinstance(done.exception, InputError)
    what = "is not there" if text is None else "has no stages"
    assert f"`steps` is not set and {clone}/dvc.yaml {what}; set lifecycle.models.fraud.steps" in (
        str(done.exception)
    )
    step = Step(name="train", command=("true",))
    loop = ModelLoop(repository=str(clone), steps=(step,))
    assert planned("fraud", loop).steps == (step,)


def test_a_stage_gets_the_files_that_dvc_keeps_and_that_it_needs(tmp_path):
    """In a work tree, as a run has it: `collect` wrote one input, and nobody the other."""
    clone, tree = tmp_path / "clone", tmp_path / "tree"
    clone.mkdir()
    repro(clone, "init", "-q", "--no-scm")
    for name in ("rows.csv", "places.csv"):
        (clone / name).write_text(f"old {name}\n")
        repro(clone, "add", "-q", name)
    (clone / "dvc.yaml").write_text(
        "stages: {train: {cmd: cat rows.csv places.csv > model.txt, "
        "deps: [rows.csv, places.csv], outs: [model.txt]}}"
    )
    repro(clone, "repro", "-q")
    shutil.copytree(clone, tree, ignore=shutil.ignore_patterns("*.csv", "*.txt", "cache"))
    repro(tree, "cache", "dir", "--local", str(clone / ".dvc/cache"))
    (tree / "rows.csv").write_text("new rows\n")
    (step,) = stages_of(tree)
    repro(tree, *step.command[len(DVC) :])
    assert (tree / "model.txt").read_text() == "new rows\nold places.csv\n"
