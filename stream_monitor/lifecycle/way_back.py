"""
Whether the files of a version still exist, so that it can be gone back to.

Rule of the file: a way back must be quick and must not fail because of a question. What is in the
cache of the clone is not copied, each other file has a limit of time, and what cannot be asked is
told, not guessed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from stream_monitor.errors import InputError
from stream_monitor.lifecycle import dvc, git, tagging
from stream_monitor.lifecycle.dvc import DvcError
from stream_monitor.lifecycle.events import Version
from stream_monitor.lifecycle.git import GitError
from stream_monitor.lifecycle.tags import split
from stream_monitor.lifecycle_settings import ModelLoop

TIMEOUT_S = 120.0


class Way(NamedTuple):
    """What is known of the files of a version."""

    missing: tuple[tuple[str, str], ...] = ()
    """Path and hash of those that DVC cannot bring back."""
    unknown: str = ""
    """Why it could not be asked; empty: it was."""

    @property
    def words(self) -> str:
        """What is missing; empty: nothing is known to be."""
        return ", ".join(f"{path} ({known})" for path, known in self.missing)


def look(loop: ModelLoop | None, known: Version | None) -> Way:
    """
    Look for the model files of a version.

    Parameters
    ----------
    loop : ModelLoop or None
        Where the clone is; None: it is configured elsewhere.
    known : Version or None
        The event that registered it; None: there is none.

    Notes
    -----
    A file that is not in the cache of the clone is copied once, into a temporary folder.
    """
    if loop is None:
        return Way(unknown="its repository is not configured here")
    if known is None:
        return Way(unknown="it was never registered, so nobody knows its files")
    files = [(p, h) for p, h in known.artifact.items() if h.startswith("md5:") and p[:1] != "("]
    repository = Path(loop.repository)
    try:
        if files:
            _demand_tag(repository, known.tag, loop.remote)
        return Way(tuple(f for f in files if not _is_there(repository, known.tag, *f)))
    except (InputError, GitError) as e:
        return Way(unknown=str(e))


def _demand_tag(repository: Path, tag: str, remote: str) -> None:
    try:
        git.commit_of(repository, tag)
    except GitError:
        tagging.refresh(repository, (split(tag) or (tag,))[0], remote)
        git.commit_of(repository, tag)


def _is_there(repository: Path, tag: str, path: str, known: str) -> bool:
    digest = known.removeprefix("md5:")
    for folder in (repository.absolute(), *repository.absolute().parents):
        if (folder / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]).is_file():
            return not digest.endswith(".dir") or _can_be_brought(repository, tag, path)
        if (folder / ".git").exists():
            break
    return _can_be_brought(repository, tag, path)


def _can_be_brought(repository: Path, tag: str, path: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="stream-monitor-") as folder:
        try:
            dvc.get(repository, path, tag, Path(folder) / "model", timeout_s=TIMEOUT_S)
        except DvcError:
            return False
    return True
