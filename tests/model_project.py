"""
A project of a model for tests: a bare remote, clones of it, and work trees of runs.

It is real git, and real DVC where a test asks for it. It cannot train: its files say what a test
wants.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from stream_monitor.lifecycle import git

DVC = Path(sys.executable).with_name("dvc")
QUIET = {"DVC_NO_ANALYTICS": "1", "CI": "1"}
WHO = ("-c", "user.name=ana", "-c", "user.email=ana@example.org")


class Project:
    """
    A remote and one clone of it.

    Parameters
    ----------
    folder : Path
    files : dict of str to str
        Of the first commit.
    with_dvc : bool
        `model.pkl` and `data/train.csv` are kept by DVC, and its remote is a folder.
    """

    def __init__(self, folder: Path, files: dict[str, str], *, with_dvc: bool = False) -> None:
        self.folder, self.remote, self.clone = folder, folder / "remote.git", folder / "clone"
        self.store = folder / "store"
        subprocess.run(
            ["git", "init", "--quiet", "--bare", "-b", "main", self.remote], check=True, timeout=60
        )
        self.cloned(self.clone)
        self.git("checkout", "--quiet", "-B", "main")
        if with_dvc:
            self.store.mkdir()
            self.dvc("init", "--quiet")
            self.dvc("remote", "add", "--quiet", "--default", "store", str(self.store))
        self.write(files)
        self.commit("base")

    def cloned(self, where: Path) -> Path:
        """Another clone."""
        subprocess.run(
            ["git", "clone", "--quiet", self.remote, where],
            check=True,
            timeout=60,
            capture_output=True,
        )
        return where

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        """Git, called as people call it."""
        done = subprocess.run(
            ["git", *WHO, *arguments],
            cwd=cwd or self.clone,
            check=True,
            timeout=60,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def dvc(self, *arguments: str, cwd: Path | None = None) -> str:
        """DVC, called as people call it."""
        done = subprocess.run(
            [str(DVC), *arguments],
            cwd=cwd or self.clone,
            timeout=120,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **QUIET, "PATH": f"{DVC.parent}:{os.environ['PATH']}"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def write(self, files: dict[str, str], where: Path | None = None) -> None:
        for name, text in files.items():
            path = (where or self.clone) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, what: str) -> str:
        """Commit all of the clone and push its branch."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", what)
        self.git("push", "--quiet", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD").strip()

    def tree(self, run: str, accuracy: float = 0.9, clone: Path | None = None) -> Path:
        """The work tree of a run, after its steps."""
        tree = self.folder / f"tree-{run}"
        self.git("worktree", "add", "--quiet", "--detach", str(tree), "origin/main", cwd=clone)
        self.write(
            {"model.json": f'"{run}"', "metrics.json": json.dumps({"accuracy": accuracy})}, tree
        )
        return tree

    def tags(self) -> dict[str, str]:
        """Tags of the remote, by name: the object."""
        listed = git.run(self.remote, "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)")
        refs = dict(line.split() for line in listed.splitlines())
        return {name: tag for name, tag in refs.items() if "@" in name}

    def says(self, tag: str) -> str:
        """The message of a tag, as git tells it."""
        return git.run(self.remote, "for-each-ref", "--format=%(contents)", f"refs/tags/{tag}")
