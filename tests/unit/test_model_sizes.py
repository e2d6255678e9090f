"""Sizes of the model's files of a version and of a work tree, in a real git repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stream_monitor.lifecycle.model_sizes import model_bytes

LOCK = """
schema: '2.0'
stages:
  train:
    cmd: python train.py
    deps: [{path: train.py, hash: md5, md5: 0123456789abcdef0123456789abcdef, size: 7}]
    outs:
    - {path: model.bin, hash: md5, md5: 0123456789abcdef0123456789abcdef, size: 1000}
    - {path: parts, hash: md5, md5: 0123456789abcdef0123456789abcdef.dir, size: 300, nfiles: 2}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    def git(*words: str) -> None:
        told = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *told, *words], cwd=tmp_path, check=True, timeout=30)

    git("init", "-q")
    (tmp_path / "dvc.lock").write_text(LOCK)
    (tmp_path / "small.json").write_text("x" * 40)
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    git("tag", "-a", "churn@v1.0.0", "-m", "first")
    (tmp_path / "small.json").write_text("x" * 90)
    (tmp_path / "model.bin").write_bytes(b"x" * 1_500)
    (tmp_path / "parts").mkdir()
    for name in "ab":
        (tmp_path / "parts" / name).write_bytes(b"x" * 200)
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "sizes"),
    [
        (["model.bin"], (1_000, 1_500)),
        (["parts"], (300, 400)),
        (["small.json"], (40, 90)),
        (["model.bin", "parts", "small.json"], (1_340, 1_990)),
        (["absent.bin"], None),
        ([], None),
        (["small.json", "../../etc/passwd"], None),
        (["/etc/passwd"], None),
    ],
)
def test_sizes_are_those_of_dvc_and_of_git(tree, paths, sizes):
    assert model_bytes(tree, "churn@v1.0.0", paths) == sizes


@pytest.mark.parametrize("tag", ["churn@v9.0.0", "--output=x"])
def test_a_version_that_is_not_there_has_no_size(tree, tag):
    assert model_bytes(tree, tag, ["small.json"]) is None


def test_a_lock_that_cannot_be_read_has_none(tree):
    (tree / "dvc.lock").write_text("stages: [")
    subprocess.run(["git", "add", "-A"], cwd=tree, check=True, timeout=30)
    told = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *told, "commit", "-qm", "b"], cwd=tree, check=True, timeout=30)
    assert model_bytes(tree, "HEAD", ["model.bin"]) == (1_500, 1_500)  # git has it by now
    assert model_bytes(tree, "HEAD", ["absent"]) is None
