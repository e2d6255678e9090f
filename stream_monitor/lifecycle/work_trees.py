"""
The work tree of a run: a copy of the base commit that nobody else uses.

Rule of the file: a tree counts when its mark is there. A half-made one is removed and made anew,
because git leaves traces of it in several places.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from stream_monitor.errors import InputError
from stream_monitor.lifecycle import git
from stream_monitor.lifecycle.processes import RESULT

READY, TREE = "tree.ready", "tree"


def make(repository: Path, remote: str, base: str, folder: Path) -> Path:
    """
    The project in the work tree of a run, which is made if it is not there.

    It is a folder of the work tree, if `repository` is one of its clone.

    Parameters
    ----------
    repository : Path
        A clone, or the folder of a project in one.
    remote, base : str
        The branch of the remote from which it starts; of the clone if it has no such remote.
    folder : Path

    Raises
    ------
    StreamMonitorError
        Git refuses, or the branch has no such folder.
    """
    tree, below = folder / TREE, git.place_of(repository)[1]
    if (folder / READY).exists() and tree.exists():
        return tree / below
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove(repository, folder)
    for result in folder.glob(f"*{RESULT}"):
        result.unlink()  # what it tells of is not in the new tree
    commit = git.base_commit(repository, remote, base)
    git.run(repository, "worktree", "add", "--force", "--detach", "--", str(tree), commit)
    if not (tree / below).is_dir():
        raise InputError(f"{base} at {commit[:12]} has no folder {below}, and {repository} is one")
    _share_cache(repository, tree)
    (folder / READY).write_text(commit)
    return tree / below


def remove(repository: Path, folder: Path) -> None:
    """Remove a work tree, also a half-made one; what is not there is fine."""
    (folder / READY).unlink(missing_ok=True)
    tree = folder / TREE
    if tree.exists():
        git.run(
            repository, "worktree", "remove", "--force", "--force", "--", str(tree), check=False
        )
        shutil.rmtree(tree, ignore_errors=True)
    git.run(repository, "worktree", "prune")


def _share_cache(repository: Path, tree: Path) -> None:
    """Each work tree has a DVC cache of its own unless told; a shared one makes resuming quick."""
    top, below = git.place_of(repository)
    for place in dict.fromkeys((below, "")):  # DVC is there, or at the top
        own, made = top / place / ".dvc", tree / place / ".dvc"
        if made.is_dir():
            local = own / "config.local"
            told = local.read_text() if local.exists() else ""
            if "[cache]" not in told:
                told += f"[cache]\n    dir = {(own / 'cache').absolute()}\n"
            (made / "config.local").write_text(told)
            return
