"""
The work tree of a run: a copy of the base commit that nobody else uses.

Rule of the file: a tree counts when its mark is there. A half-made one is removed and made anew,
because git leaves traces of it in several places.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from stream_monitor.lifecycle import git
from stream_monitor.lifecycle.processes import RESULT

READY, TREE = "tree.ready", "tree"


def make(repository: Path, remote: str, base: str, folder: Path) -> Path:
    """
    The work tree in the folder of a run; made if it is not there.

    Parameters
    ----------
    repository : Path
        A clone.
    remote, base : str
        The branch of the remote from which it starts; of the clone if it has no such remote.
    folder : Path

    Raises
    ------
    StreamMonitorError
        Git refuses.
    """
    tree = folder / TREE
    if (folder / READY).exists() and tree.exists():
        return tree
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove(repository, folder)
    for result in folder.glob(f"*{RESULT}"):
        result.unlink()  # what it tells of is not in the new tree
    commit = git.base_commit(repository, remote, base)
    git.run(repository, "worktree", "add", "--force", "--detach", "--", str(tree), commit)
    _share_cache(repository, tree)
    (folder / READY).write_text(commit)
    return tree


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
    if not (tree / ".dvc").is_dir():
        return
    local = repository / ".dvc" / "config.local"
    told = local.read_text() if local.exists() else ""
    if "[cache]" not in told:
        told += f"[cache]\n    dir = {(repository / '.dvc' / 'cache').absolute()}\n"
    (tree / ".dvc" / "config.local").write_text(told)
